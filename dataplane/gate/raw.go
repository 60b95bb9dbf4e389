package gate

import (
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/record"
)

// What masks hide goes into the session's raw recording, where its task asks for that, with
// the bounds of what is shown. It is recorded before what is shown passes, so that a raw
// recording which fails ends the session.

// KeepsRaw implements engine.FlowSink.
func (x *execution) KeepsRaw() bool { return x.g.cfg.Raw != nil }

// RawRows keeps rows as they were before their masks.
func (x *execution) RawRows(n int, span []byte) error {
	room := int(int64(x.ad.terms.ResultRows) - x.raw)
	if !x.KeepsRaw() || room <= 0 || len(span) == 0 {
		return nil
	}
	if n > room {
		span, n = firstRows(span, room)
	}
	x.raw += int64(n)
	e := record.Event{Kind: record.KindRows, Rows: int64(n), Encoding: record.EncodingDataRow, Data: span}
	if !x.rawShown {
		e.Columns, x.rawShown = x.columns, true
	}
	return x.recordRaw(e)
}

// RawOutput keeps what was said as it was before its masks.
func (x *execution) RawOutput(s engine.Stream, p []byte) error {
	if x.raw += int64(len(p)); !x.KeepsRaw() || x.raw > maxOutput && !x.ad.all {
		return nil
	}
	return x.recordRaw(record.Event{Kind: record.KindChunk, Tag: s.String(), Bytes: int64(len(p)), Data: p})
}

func (x *execution) recordRaw(e record.Event) error {
	x.event = e
	x.event.Time, x.event.Statement = x.g.cfg.Now(), x.statement
	if err := x.g.cfg.Raw.Record(&x.event, policy.Async); err != nil {
		return unrecorded(err)
	}
	return nil
}
