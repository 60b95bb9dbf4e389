package gate

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
	"unsafe"

	"github.com/posterngate/postern/dataplane/engine"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/ssh"
)

// An execution is the way back of one admitted statement: it counts, keeps the first
// rows, and records the end. It is pooled by its gate, begun by Admit and ended by
// Done, in between used by one goroutine at a time.
type execution struct {
	g         *Gate
	ad        *admitted
	statement uint64
	start     time.Time
	rows      int64
	bytes     int64
	kept      int64 // rows of the result that were recorded, or bytes of the output
	ofRows    allotment
	ofBytes   allotment
	toClient  int64 // of bytes: what counts against the limit
	columns   []record.Column
	shown     bool  // whether columns were recorded
	raw       int64 // as kept, of what masks hid
	rawShown  bool
	yes       *typesv1.Hold // by which people have let it through; nil where nobody was asked

	// What has not ended is a list, which the gate's mutex guards.
	before, after *execution
	judged        *policy.Snapshot // by which it was judged last

	hash  [sha256.Size]byte // of its text
	text  []byte            // of which that is; reused
	event record.Event      // reused
	pbuf  []record.Param    // reused
}

var _ engine.FlowSink = (*execution)(nil)

func (x *execution) begin(ad *admitted, yes *typesv1.Hold, now time.Time) {
	x.ad, x.yes, x.start = ad, yes, now
	x.rows, x.bytes, x.toClient, x.kept, x.shown = 0, 0, 0, 0, false
	x.raw, x.rawShown = 0, false
	x.columns = x.columns[:0]
}

// allot says what may be set aside for the execution.
func (x *execution) allot(obligations []postern.Obligation) {
	b, t := x.g.cfg.Budget, &x.ad.terms
	x.ofRows = allotment{meter: &b.Rows, limit: t.Rows, most: -1}
	x.ofBytes = allotment{meter: &b.Bytes, limit: t.Bytes, most: -1}
	if x.ad.free {
		x.ofRows.limit, x.ofBytes.limit = -1, -1
	}
	for i := range obligations {
		if m := obligations[i].MaxRows; m > 0 && (x.ofRows.most < 0 || m < x.ofRows.most) {
			x.ofRows.most = m
		}
	}
}

// Room sets rows and bytes aside for what is about to be passed on.
func (x *execution) Room(rows, bytes int64) (int64, int64) {
	b := x.g.cfg.Budget
	return x.ofRows.more(b, rows, rowsAhead), x.ofBytes.more(b, bytes, bytesAhead)
}

// params views the parameters without copying them: they are encoded before Admit
// returns, and the views are not used after.
func (x *execution) params(args engine.Args) []record.Param {
	x.pbuf = x.pbuf[:0]
	for i, v := range args.Values {
		p := record.Param{Binary: binary(args.Formats, i)}
		if args.Null != nil && args.Null(i) {
			p.Null = true
		} else if len(v) > 0 {
			p.Value = unsafe.String(unsafe.SliceData(v), len(v))
		}
		p.Text = recordedText(args, i, p.Binary && !p.Null)
		x.pbuf = append(x.pbuf, p)
	}
	for _, v := range args.Beside {
		x.pbuf = append(x.pbuf, record.Param{Value: v})
	}
	return x.pbuf
}

// paramsOf copies the parameters, for what is recorded once Admit has returned.
func paramsOf(args engine.Args) []record.Param {
	var out []record.Param
	for i, v := range args.Values {
		null := args.Null != nil && args.Null(i)
		p := record.Param{Value: string(v), Null: null, Binary: binary(args.Formats, i)}
		p.Text = recordedText(args, i, p.Binary && !null)
		out = append(out, p)
	}
	return out
}

// recordedText is what a binary value says, where the engine can read it, so that those
// who read the record see what people who approve see.
func recordedText(args engine.Args, i int, binary bool) string {
	if !binary || args.Text == nil {
		return ""
	}
	text, _ := args.Text(i)
	return text
}

// binary applies PostgreSQL's rule for format codes: none means text, one means all.
func binary(formats []int16, i int) bool {
	switch {
	case len(formats) == 0:
		return false
	case len(formats) == 1:
		return formats[0] == 1
	}
	return i < len(formats) && formats[i] == 1
}

func shownParams(args engine.Args) []postern.Param {
	var out []postern.Param
	for i, v := range args.Values {
		switch {
		case args.Null != nil && args.Null(i):
			out = append(out, postern.Param{Null: true})
		case binary(args.Formats, i):
			out = append(out, postern.Param{Value: binaryText(args, i, v)})
		default:
			out = append(out, postern.Param{Value: string(v)})
		}
	}
	return out
}

// binaryText is a binary value for people: as its type is read, or as hex.
func binaryText(args engine.Args, i int, v []byte) string {
	if args.Text != nil {
		if s, ok := args.Text(i); ok {
			return s
		}
	}
	return `\x` + hex.EncodeToString(v)
}

func (x *execution) Columns(cols []engine.ResultColumn) error {
	x.columns = x.columns[:0]
	for _, c := range cols {
		x.columns = append(x.columns, record.Column{Name: c.Name, Type: c.Type, Binary: c.Binary, Masked: c.Masked})
	}
	return nil
}

func (x *execution) Rows(n int, span []byte) error {
	x.rows += int64(n)
	x.bytes += int64(len(span))
	x.toClient += int64(len(span))
	x.g.cfg.Budget.Rows.Use(int64(n))
	x.g.cfg.Budget.Bytes.Use(int64(len(span)))
	if x.kept >= int64(x.ad.terms.ResultRows) || len(span) == 0 {
		return nil // large rows and COPY come as chunks, and are not kept
	}
	return x.keep(n, span)
}

// keep records rows as the client got them, until the task's bound is reached.
func (x *execution) keep(n int, span []byte) error {
	room := int(int64(x.ad.terms.ResultRows) - x.kept)
	if n > room {
		span, n = firstRows(span, room)
	}
	x.kept += int64(n)
	x.event = record.Event{
		Time: x.g.cfg.Now(), Kind: record.KindRows, Statement: x.statement,
		Rows: int64(n), Encoding: record.EncodingDataRow, Data: span,
	}
	if !x.shown {
		x.event.Columns, x.shown = x.columns, true
	}
	return x.record()
}

// firstRows cuts a span of whole messages, each a type byte and a length that counts
// itself, after n of them.
func firstRows(span []byte, n int) ([]byte, int) {
	at, got := 0, 0
	for got < n && at+5 <= len(span) {
		size := int(uint32(span[at+1])<<24|uint32(span[at+2])<<16|uint32(span[at+3])<<8|uint32(span[at+4])) + 1
		if size < 5 || at+size > len(span) {
			break
		}
		at += size
		got++
	}
	return span[:at], got
}

func (x *execution) Chunk(d engine.Direction, p []byte) error {
	x.bytes += int64(len(p))
	if d == engine.ToClient {
		x.toClient += int64(len(p))
		x.g.cfg.Budget.Bytes.Use(int64(len(p)))
	}
	return nil
}

// maxOutput is how much of what one execution says is kept, in bytes. Where somebody works
// on a terminal, or tells a shell what to do, all of it is: nothing else says what is done there.
const maxOutput = 64 << 20

// keepsAll reports whether the output of a statement is kept without a bound.
func keepsAll(facts policy.Facts) bool {
	f, ok := facts.(*ssh.Facts)
	return ok && f != nil && (f.Verb == ssh.Shell || f.Terminal || f.Told())
}

// Output keeps what was said; past the bound it is counted alone.
func (x *execution) Output(s engine.Stream, p []byte) error {
	if s.Said() {
		if err := x.Chunk(engine.ToClient, p); err != nil {
			return err
		}
	}
	if x.kept += int64(len(p)); x.kept > maxOutput && !x.ad.all {
		return nil
	}
	x.event = record.Event{Time: x.g.cfg.Now(), Kind: record.KindChunk, Statement: x.statement, Tag: s.String(), Bytes: int64(len(p)), Data: p, Shape: x.ad}
	return x.record()
}

func (x *execution) Done(o engine.Outcome) error {
	x.g.untrack(x)
	now := x.g.cfg.Now()
	x.ofRows.settle(x.rows)
	x.ofBytes.settle(x.toClient)
	x.event = record.Event{
		Time: now, Kind: record.KindFinished, Statement: x.statement, Tag: o.Tag, Rows: x.rows, Bytes: x.bytes,
		Affected: o.Affected, Code: o.Code, Message: o.Message, Duration: now.Sub(x.start),
	}
	err := x.record()
	x.g.instrument.finished(now.Sub(x.start), o.Code)
	x.event = record.Event{}
	clear(x.pbuf)
	x.g.flows.Put(x)
	return err
}

// record keeps the event. Nothing waits for it: what was to be as durable as the task asks
// is the intent.
func (x *execution) record() error {
	if err := x.g.cfg.Recorder.Record(&x.event, policy.Async); err != nil {
		return unrecorded(err)
	}
	return nil
}
