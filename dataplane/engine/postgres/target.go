package postgres

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/wire"
)

// A targetCore is the way from the target to the client. Rows pass as spans, counted by
// their headers; every other message is matched with what it answers.
type targetCore struct{ *conn }

// proceed is a Park that waits for nothing.
func proceed(context.Context) error { return nil }

// Step implements pump.Core.
func (t targetCore) Step(in []byte) (n int, want pump.Next, err error) {
	n, want, err = t.step(in)
	return n, want, t.flush(err)
}

func (t targetCore) step(in []byte) (n int, want pump.Next, err error) {
	t.mu.Lock()
	defer t.mu.Unlock() // after a panic too, or nobody could end the session
	t.activity++
	if t.ashore && !t.landed {
		t.landed = true
		want = pump.Next{Park: proceed, Ashore: true}
	}
	for err == nil && n < len(in) && want.Bytes == 0 && want.Park == nil && !want.More {
		rest := in[n:]
		if t.tail > 0 {
			k := min(len(rest), t.tail)
			err = t.part(rest[:k])
			n += k
			continue
		}
		typ, size, herr := next(rest)
		data := typ == 'D' || typ == 'd'
		switch {
		case herr != nil:
			err = herr
		case size == 0:
			want.Bytes = headerLen
		case len(rest) < size && data && size > wire.Large && !t.whole(size):
			n += len(rest)
			err = t.large(rest, size)
		case size > t.e.limits.Message && !data:
			err = broken("the resource sent a message that is too long")
		case len(rest) < size:
			want.Bytes = size
		case data:
			var k int
			k, err = t.rows(typ, rest)
			n += k
			t.more, want.More = false, t.more
		default:
			err = t.answer(typ, rest[:size])
			n += size
		}
	}
	t.behind = len(in) - n
	t.afterStep()
	if len(t.down.Bytes()) > 0 {
		t.unsent.Store(true)
	}
	return n, want, err
}

func (t targetCore) flush(err error) error {
	if len(t.back) > 0 {
		if _, werr := t.target.Write(t.back); werr != nil && err == nil {
			err = lost(werr)
		}
		t.back = t.back[:0]
	}
	if p := t.down.Bytes(); len(p) > 0 {
		if werr := t.out.write(p, t.tail > 0 && t.passing); werr != nil && err == nil {
			err = werr
		}
		t.unsent.Store(false)
	}
	t.down.Reset()
	return err
}

// afterStep cancels at the target what was cut short here and still runs there.
func (t targetCore) afterStep() {
	if e := t.q.first(); e != nil && e.over != nil && (e.kind == kindExecute || e.kind == kindQuery) && !t.copying && (e.wrapped == nil || !e.wrapped.synced) {
		t.startCancel()
	}
}

// receiver is the execution that data belongs to, and whether it is shown.
func (t targetCore) receiver() (e *entry, show bool, err error) {
	e = t.q.first()
	if e == nil || (e.kind != kindQuery && e.kind != kindExecute) || e.report != nil {
		return nil, false, broken("the resource sent data that nobody asked for")
	}
	if e.hidden || e.over != nil {
		return e, false, nil
	}
	if !e.flow.Admitted() {
		return nil, false, broken("the resource sent data of a statement that was not admitted")
	}
	return e, true, nil
}

// room is how many rows and bytes e may pass on, which is about to pass on that many.
func room(e *entry, rows, bytes int64) (int64, int64) {
	rows, bytes = e.flow.Room(rows, bytes)
	if m := e.st.maxRows; m >= 0 {
		rows = min(rows, m-e.rows)
	}
	return rows, bytes
}

// rows passes on a run of whole messages of one type, of which the first is complete.
func (t targetCore) rows(typ byte, in []byte) (n int, err error) {
	e, show, err := t.receiver()
	if err != nil {
		return 0, err
	}
	rows, bytes := int64(0), int64(0)
	if show {
		rows, bytes = room(e, 0, 0)
	}
	if show && e.st.masking != nil {
		return t.maskedRows(e, typ, in, rows, bytes)
	}
	count := int64(0)
	for n+headerLen <= len(in) && in[n] == typ {
		length := binary.BigEndian.Uint32(in[n+1:])
		if length < 4 || length > 1<<30 {
			return n, broken("the resource sent a row of impossible length")
		}
		size := int(length) + 1
		if n+size > len(in) {
			break
		}
		if show && (count >= rows || int64(n+size) > bytes) {
			rows, bytes = room(e, count+1, int64(n+size))
		}
		if show && (count >= rows || int64(n+size) > bytes) {
			if count > 0 {
				err = t.pass(e, typ, in[:n], count)
			}
			t.overrule(e, limitOf(count >= rows))
			return n, err
		}
		n += size
		count++
	}
	if !show {
		return n, nil
	}
	return n, t.pass(e, typ, in[:n], count)
}

// pass reports a run of rows and sends it on.
func (t targetCore) pass(e *entry, typ byte, span []byte, count int64) error {
	ok, err := t.report(e, typ, span, count)
	if ok {
		t.down.Pass(span)
	}
	return err
}

// report accounts for a run of rows as the client will get them. It is false where they
// must not be sent.
func (t targetCore) report(e *entry, typ byte, span []byte, count int64) (bool, error) {
	err := t.tellColumns(e)
	if err == nil {
		if typ == 'D' {
			err = e.flow.Rows(int(count), span)
		} else if err = e.flow.Rows(int(count), nil); err == nil {
			err = e.flow.Chunk(engine.ToClient, span)
		}
	}
	if err != nil {
		r := postern.AsRefusal(err)
		if r.Code == postern.CodeUnavailable {
			return false, r // no record, no access
		}
		t.overrule(e, r)
		return false, nil
	}
	e.rows += count
	e.bytes += int64(len(span))
	return true, nil
}

// tellColumns reports the columns of a result before its first row, where the target
// described them with an earlier message.
func (t targetCore) tellColumns(e *entry) error {
	if e.columns {
		return nil
	}
	e.columns = true
	if e.st == nil || len(e.st.columns) == 0 {
		return nil
	}
	if e.kind != kindExecute {
		return e.flow.Columns(e.st.columns)
	}
	// A prepared statement is described before the formats of its result are chosen.
	t.cols = append(t.cols[:0], e.st.columns...)
	for i := range t.cols {
		t.cols[i].Binary = isBinary(e.formats, i)
	}
	return e.flow.Columns(t.cols)
}

// large begins a row that is larger than the buffer. Its size is checked against the
// budget before any of it passes; it is reported in parts and counted as one row.
func (t targetCore) large(part []byte, size int) error {
	e, show, err := t.receiver()
	if err != nil {
		return err
	}
	t.tail = size
	if show {
		rows, bytes := room(e, 1, int64(size))
		switch {
		case e.st.masking != nil:
			t.overrule(e, &postern.Refusal{
				Code: postern.CodeLimit, Reason: fmt.Sprintf("a row of the result is longer than %d bytes, and so cannot be masked", t.e.limits.MaskedRow),
				Hint: "leave its long columns out",
			})
			show = false
		case rows < 1 || bytes < int64(size):
			t.overrule(e, limitOf(rows < 1))
			show = false
		default:
			if err = t.tellColumns(e); err == nil {
				err = e.flow.Rows(1, nil)
			}
			if err != nil {
				return postern.AsRefusal(err)
			}
			e.rows++
			e.bytes += int64(size)
		}
	}
	t.passing = show
	return t.part(part)
}

// part goes on with a large row.
func (t targetCore) part(p []byte) error {
	t.tail -= len(p)
	if !t.passing {
		return nil
	}
	t.down.Pass(p)
	if e := t.q.first(); e != nil && e.flow.Admitted() {
		return e.flow.Chunk(engine.ToClient, p)
	}
	return nil
}
