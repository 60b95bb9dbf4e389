package spool

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/posterngate/postern/pkg/record"
)

// A Recorder keeps one session's story. It is safe for concurrent use.
type Recorder struct {
	spool   *Spool
	session *session

	mu     sync.Mutex
	seq    uint64
	buf    []byte // frames not yet in the spool: those of mode Async, and of the current event
	kept   uint64 // seq of the last event that is in the spool
	broken error  // events that Record took were lost; final
	closed bool
}

// keepBuf is the largest buffer that a recorder keeps for the next event.
const keepBuf = 128 << 10

// Record returns once e is as durable as m says; it sets e.Seq, and e.Time where that
// is zero, and keeps nothing of e. An error means that e must be taken as not recorded:
// nothing may be forwarded, and the session must end. What tells how something ended
// (Finished, Denied, Settled) is taken even where nothing else is.
func (r *Recorder) Record(e *record.Event, m Mode) error {
	switch e.Kind {
	case record.KindOpened, record.KindClosed:
		return fmt.Errorf("spool: the event %s is the recorder's own", e.Kind)
	case record.KindFinished, record.KindDenied, record.KindSettled:
		return r.record(e, m, true)
	}
	return r.record(e, m, false)
}

func (r *Recorder) record(e *record.Event, m Mode, urgent bool) error {
	r.mu.Lock()
	at, seq, err := r.write(e, m, urgent)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	switch m {
	case Local, Async:
		return nil
	case Disk:
		return r.spool.syncTo(at)
	}
	return r.spool.awaitStored(r.session, seq)
}

// write encodes e and hands the frames over; r.mu is held.
func (r *Recorder) write(e *record.Event, m Mode, urgent bool) (at position, seq uint64, err error) {
	if r.closed {
		return at, 0, errors.New("spool: the recording is closed")
	}
	if r.broken != nil {
		return at, 0, r.broken
	}
	if !urgent {
		if err := r.spool.Healthy(); err != nil {
			return at, 0, err
		}
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	before := len(r.buf)
	e.Seq = r.seq + 1
	if r.buf, err = record.AppendFrames(r.buf, e); err != nil {
		return at, 0, err
	}
	r.seq++
	if m == Async && len(r.buf) < asyncBytes {
		if before == 0 {
			r.spool.hold(r)
		}
		return at, r.seq, nil
	}
	at, err = r.flush(e.Time, m == Remote, urgent)
	if err != nil && before == 0 {
		r.seq-- // nothing of the event was kept, so that the session can still be closed
	}
	return at, r.seq, err
}

// flush hands all frames of buf over; r.mu is held. Where that fails behind events that
// Record took, the session takes no more.
func (r *Recorder) flush(now time.Time, cut, urgent bool) (position, error) {
	at, err := r.spool.append(r.session, r.buf, now, cut, urgent)
	if err != nil && r.kept+1 < r.seq {
		r.broken = err
		r.spool.fail(r.session, err)
	}
	if err == nil {
		r.kept = r.seq
	}
	r.buf = r.buf[:0]
	if cap(r.buf) > keepBuf {
		r.buf = nil
	}
	return at, err
}

// Close records why the session ended; its recording is then sealed and shipped. It is
// idempotent.
func (r *Recorder) Close(why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil
	}
	_, _, err := r.write(&record.Event{Time: time.Now(), Kind: record.KindClosed, Reason: why}, Local, true)
	r.closed = true
	return errors.Join(err, r.spool.end(r.session, ending{truncated: err != nil, reason: why}))
}
