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
	began   time.Time

	mu        sync.Mutex
	seq       uint64
	statement uint64 // the last that was numbered
	running   int    // statements that have begun and not ended
	// Behind what is in the spool come the runs of packer and then the frames of buf: events
	// of mode Async, and the current one.
	packer  packer
	buf     []byte
	encoder record.Encoder
	run     uint64 // number of the last run that was sealed
	kept    uint64 // seq of the last event that is in the spool
	packed  uint64 // of the last that is there or in packer
	uncut   int    // bytes of frames in the spool that are in no chunk yet
	broken  error  // events that Record took were lost; final
	closed  bool
}

const (
	// keepBuf is the largest buffer that a recorder keeps for the next event.
	keepBuf = 128 << 10
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
	before := len(r.buf)
	held := before > 0 || len(r.packer.runs) > 0
	e.Seq, e.Elapsed = r.seq+1, max(0, e.Time.Sub(r.began))
	statement := r.statement
	if e.Statement == record.Next {
		e.Statement = statement + 1
	}
	if r.buf, err = r.encoder.AppendFrames(r.buf, e); err != nil {
		return at, 0, err
	}
	if before > 0 && len(r.buf) > maxRun {
		// The event makes many runs: what refers to another must not be cut off from it.
		r.pack(r.buf[:before], record.Span{First: r.packed + 1, Last: r.seq})
		r.buf = r.buf[:copy(r.buf, r.buf[before:])]
	}
	r.seq++
	r.running += turns[e.Kind]
	r.statement = max(statement, e.Statement)
	if m == Async && r.holds() {
		if !held {
			r.spool.hold(r)
		}
		return at, r.seq, nil
	}
	at, err = r.flush(e.Time, m == Remote, urgent)
	if err != nil && r.broken == nil {
		r.seq, r.statement, r.running = r.seq-1, statement, r.running-turns[e.Kind] // nothing of the event was kept, so that the session can still be closed
	}
	return at, r.seq, err
}

// holds reports whether what is held need not be handed over yet. It makes a run of what is
// enough for one, and lets no chunk get full before all that is held is in it: events refer
// to others of their chunk. r.mu is held.
func (r *Recorder) holds() bool {
	if len(r.buf) < asyncBytes {
		return true
	}
	return r.seal() == nil && len(r.packer.entries) < packedBytes && r.uncut+r.packer.frames < chunkBytes
}

// seal makes runs of the frames of buf; r.mu is held.
func (r *Recorder) seal() error {
	frames, span := r.buf, record.Span{Last: r.packed}
	if n := len(frames); n > 0 && n <= maxRun {
		r.pack(frames, record.Span{First: r.packed + 1, Last: r.seq})
		frames = nil
	}
	for len(frames) > 0 {
		f, err := record.NextFrame(frames)
		if err != nil {
			return err
		}
		if span, err = span.Next(frames[:f.Size]); err != nil {
			return err
		}
		r.pack(frames[:f.Size], span)
		frames = frames[f.Size:]
	}
	r.buf = r.buf[:0]
	return nil
}

// pack makes a run.
func (r *Recorder) pack(frames []byte, span record.Span) {
	r.run++
	r.packer.add(r.session.key, frames, span, r.run)
	r.packed = span.Last
}

// release hands over what is held; where that fails the session takes no more. r.mu is held.
func (r *Recorder) release(now time.Time) error {
	if len(r.buf) == 0 && len(r.packer.runs) == 0 {
		return nil
	}
	_, err := r.flush(now, false, false)
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
	_ = r.release(now) // the session knows
	r.encoder.Cut()
	r.spool.cutUncut(r.session)
	r.uncut = 0
}

// turns is what an event does to the statements that run.
var turns = [256]int{record.KindIntent: 1, record.KindFinished: -1}

// Idle reports whether nothing runs that was recorded as begun.
func (r *Recorder) Idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running <= 0
}

// flush hands over what is held; r.mu is held. Where that fails behind events that Record
// took, the session takes no more.
func (r *Recorder) flush(now time.Time, cut, urgent bool) (position, error) {
	err := r.seal()
	var at position
	if err == nil {
		at, cut, r.uncut, err = r.spool.append(r.session, &r.packer, now, cut, urgent)
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
	r.packed = r.kept
	r.packer.done()
	if r.buf = r.buf[:0]; cap(r.buf) > keepBuf {
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
