package record

import (
	"iter"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
)

// rawSuffix ends the id of a raw recording. No session's id ends so.
const rawSuffix = "_raw"

// RawID names the raw recording of a session: what masks hid from it, sealed to a key of
// its own, for those few who may read that.
func RawID(session postern.SessionID) postern.SessionID { return session + rawSuffix }

// RawOf tells of which session a recording is the raw one, and whether it is one.
func RawOf(id postern.SessionID) (session postern.SessionID, raw bool) {
	of, raw := strings.CutSuffix(string(id), rawSuffix)
	return postern.SessionID(of), raw
}

// WithRaw puts what the raw recording of a session tells between the session's events, by
// the clock that both have in common, and marks it as Raw. It ends at the first error.
func WithRaw(events, raw iter.Seq2[*Event, error]) iter.Seq2[*Event, error] {
	return func(yield func(*Event, error) bool) {
		next, stop := iter.Pull2(raw)
		defer stop()
		hidden, err, more := next()
		for e, failed := range events {
			for failed == nil && more && (err != nil || e.Seq > 0 && hidden.Elapsed <= e.Elapsed || e.Kind == KindClosed) {
				if err != nil {
					yield(nil, err)
					return
				}
				if !yieldRaw(hidden, yield) {
					return
				}
				hidden, err, more = next()
			}
			if !yield(e, failed) {
				return
			}
		}
		for ; more; hidden, err, more = next() {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yieldRaw(hidden, yield) {
				return
			}
		}
	}
}

// yieldRaw tells of an event of a raw recording, but not of its beginning and end.
func yieldRaw(e *Event, yield func(*Event, error) bool) bool {
	if e.Kind == KindOpened || e.Kind == KindClosed {
		return true
	}
	e.Raw = true
	return yield(e, nil)
}
