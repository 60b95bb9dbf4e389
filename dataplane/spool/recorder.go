package spool

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/posterngate/postern/pkg/record"
)

// A Recorder keeps one session's story. It is safe for concurrent use.
type Recorder struct {
	spool   *Spool
	session *session
	began   time.Time

	mu        sync.Mutex
	seq       uint64
	statement uint64 // the last that was numbered
	running   int    // statements that have begun and not ended
	// buf is runRoom bytes and then the frames that are not in the spool yet: those of
	// mode Async, and of the current event.
	buf     []byte
	encoder record.Encoder
	run     uint64      // number of the last run that was sealed
	runs    []sealedRun // those of the current flush
	packer  packer
	kept    uint64 // seq of the last event that is in the spool
	broken  error  // events that Record took were lost; final
	closed  bool
}

const (
	// keepBuf is the largest buffer that a recorder keeps for the next event.
	keepBuf = 128 << 10
	runRoom = runHead + record.SealRoom
	// maxRun is the most bytes of frames in one entry.
	maxRun = maxEntry - entryHeader - runHead - record.SealOverhead
)

// Record returns once e is as durable as m says; it sets e.Seq and e.Elapsed, e.Time
// where that is zero and e.Statement where it is record.Next, and keeps nothing of e. An error means that e must be taken as not
// recorded: nothing may be forwarded, and the session must end. What tells how something
// ended (Finished, Denied, Settled) is taken even where nothing else is.
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
		if r.session.barred.Load() {
			return at, 0, fmt.Errorf("spool: session %s: the control plane does not store its recording", r.session.id)
		}
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if len(r.buf) == 0 {
		var room [runRoom]byte
		r.buf = append(r.buf, room[:]...)
	}
	before := len(r.buf)
	e.Seq, e.Elapsed = r.seq+1, max(0, e.Time.Sub(r.began))
	statement := r.statement
	if e.Statement == record.Next {
		e.Statement = statement + 1
	}
	if r.buf, err = r.encoder.AppendFrames(r.buf, e); err != nil {
		return at, 0, err
	}
	if before > runRoom && len(r.buf)-runRoom > maxRun {
		if err := r.apart(before, e.Time, urgent); err != nil {
			return at, 0, err
		}
		before = runRoom
	}
	r.seq++
	r.running += turns[e.Kind]
	r.statement = max(statement, e.Statement)
	if m == Async && len(r.buf) < asyncBytes {
		if before == runRoom {
			r.spool.hold(r)
		}
		return at, r.seq, nil
	}
	at, err = r.flush(e.Time, m == Remote, urgent)
	if err != nil && before == runRoom {
		r.seq, r.statement, r.running = r.seq-1, statement, r.running-turns[e.Kind] // nothing of the event was kept, so that the session can still be closed
	}
	return at, r.seq, err
}

// apart hands over what is held behind the first bytes of buf before the event that stands
// there does, which makes many runs: what refers to another event must not be cut off from
// it. r.mu is held.
func (r *Recorder) apart(first int, now time.Time, urgent bool) error {
	event := slices.Clone(r.buf[first:])
	r.buf = r.buf[:first]
	if err := r.release(now, urgent); err != nil {
		return err
	}
	var room [runRoom]byte
	r.buf = append(append(r.buf, room[:]...), event...)
	return nil
}

// release hands over what is held; where that fails the session takes no more. r.mu is held.
func (r *Recorder) release(now time.Time, urgent bool) error {
	if len(r.buf) <= runRoom {
		return nil
	}
	_, err := r.flush(now, false, urgent)
	if err != nil {
		r.broken = err
		r.spool.fail(r.session, err)
	}
	return err
}

// cut ends a chunk behind all that was recorded so far, where anything was since the last.
func (r *Recorder) cut(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.release(now, false) // the session knows
	r.encoder.Cut()
	r.spool.cutUncut(r.session)
}

// turns is what an event does to the statements that run.
var turns = [256]int{record.KindIntent: 1, record.KindFinished: -1}

// Idle reports whether nothing runs that was recorded as begun.
func (r *Recorder) Idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running <= 0
}

// flush seals all frames of buf and hands them over; r.mu is held. Where that fails
// behind events that Record took, the session takes no more.
func (r *Recorder) flush(now time.Time, cut, urgent bool) (position, error) {
	err := r.seal()
	var at position
	if err == nil {
		at, cut, err = r.spool.append(r.session, r.runs, now, cut, urgent)
	}
	if err != nil || cut {
		r.encoder.Cut()
	}
	if err != nil && r.kept+1 < r.seq {
		r.broken = err
		r.spool.fail(r.session, err)
	}
	if err == nil {
		r.kept = r.seq
	}
	r.packer.done()
	clear(r.runs)
	r.runs, r.buf = r.runs[:0], r.buf[:0]
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
	how := ending{}
	if err != nil {
		how = ending{truncated: true, reason: endLost}
	}
	return errors.Join(err, r.spool.end(r.session, how))
}
