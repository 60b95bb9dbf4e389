package spool

import (
	"fmt"
	"time"
)

// append puts the runs of one flush into the log, all of them or none that is kept.
// With cut they end a chunk; was tells whether one was ended, and uncut how many bytes of
// frames stand behind the last.
func (s *Spool) append(ses *session, p *packer, now time.Time, cut, urgent bool) (at position, was bool, uncut int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses.failed != nil {
		return position{}, false, 0, ses.failed
	}
	if s.closed {
		return position{}, false, 0, fmt.Errorf("spool: record in session %s: the spool is closed", ses.id)
	}
	if len(p.runs) > 1 && !urgent && !s.disk.room(len(p.entries)) {
		return position{}, false, 0, fmt.Errorf("spool: record in session %s: %w", ses.id, errFull)
	}
	before := len(ses.chunks)
	for runs := p.runs; len(runs) > 0; {
		n, err := s.putRuns(ses, p.entries, runs, now, urgent)
		if err != nil {
			err = fmt.Errorf("spool: record in session %s: %w", ses.id, err)
			if len(runs) < len(p.runs) {
				s.failLocked(ses, err) // a part of it is kept
			}
			return position{}, false, 0, err
		}
		runs = runs[n:]
	}
	if cut && len(ses.uncut) > 0 {
		s.cut(ses)
	}
	return s.tail(), len(ses.chunks) > before, ses.frames, nil
}

// putRuns puts as many of the runs as fit behind each other, one at least, and says how
// many; s.mu is held.
func (s *Spool) putRuns(ses *session, entries []byte, runs []sealedRun, now time.Time, urgent bool) (n int, err error) {
	seg, err := s.open(entryRun, runs[0].size, urgent)
	if err != nil {
		return 0, err
	}
	from := runs[0].at - entryHeader
	to, frames := from, ses.frames
	for ; n < len(runs); n++ {
		r := runs[n]
		end := r.at + entrySize(r.size) - entryHeader
		if n > 0 && !seg.fits(end-from-entryHeader) {
			break
		}
		payload := entries[r.at : r.at+r.size]
		if frames == 0 {
			markFirst(payload)
		}
		stamp(entries[to:], entryRun, ses.ref, payload)
		if frames += r.frames; frames >= chunkBytes {
			frames = 0
		}
		to = end
	}
	at := seg.addAll(entries[from:to])
	for _, r := range runs[:n] {
		s.took(ses, extent{seg, int32(at + r.at - from), int32(r.size)}, r, now)
	}
	return n, nil
}

// took counts a run that was put; s.mu is held.
func (s *Spool) took(ses *session, at extent, run sealedRun, now time.Time) {
	if len(ses.uncut) == 0 {
		ses.since = now
		if ses.uncut == nil && len(s.extents) > 0 {
			ses.uncut = s.extents[len(s.extents)-1]
			s.extents = s.extents[:len(s.extents)-1]
		}
		s.waiting.push(ses)
	}
	ses.uncut = append(ses.uncut, at)
	ses.size += run.size
	ses.frames += run.frames
	ses.last = run.last
	at.seg.live += run.size
	s.unacked += int64(run.size)
	if ses.rank == 0 {
		s.age(ses)
	}
	if ses.frames >= chunkBytes {
		s.cut(ses)
	}
}

// put appends one entry and asks for more room where a segment was begun; s.mu is held.
func (s *Spool) put(kind entryKind, ref uint64, payload []byte, urgent bool) (*segment, int, error) {
	seg, err := s.open(kind, len(payload), urgent)
	if err != nil {
		return nil, 0, err
	}
	return seg, seg.add(kind, ref, payload), nil
}

// open is where the next entry goes. It asks for more room where a segment was begun, and
// refuses what comes where none can be; s.mu is held.
func (s *Spool) open(kind entryKind, payload int, urgent bool) (*segment, error) {
	place := s.disk.place
	seg, err := s.disk.open(kind, payload, urgent)
	if err != nil {
		s.full = true
		s.refuse(fmt.Errorf("spool: nothing can be recorded: %w", err))
	}
	if err != nil || place != s.disk.place {
		wake(s.wakeGrow)
	}
	return seg, err
}

// cut makes a chunk of the runs that have none; sealCuts does the rest. s.mu is held.
func (s *Spool) cut(ses *session) {
	ses.chunks = append(ses.chunks, &chunk{runs: ses.uncut, size: ses.size, since: ses.since})
	ses.uncut, ses.size, ses.frames = nil, 0, 0
	s.cuts.push(ses)
	wake(s.wakeSeal)
}

// ship queues a session that has something to ship; s.mu is held.
func (s *Spool) ship(ses *session) {
	if ses.shippable() {
		s.ready.push(ses)
		wake(s.wakeShip)
	}
}

// cutUncut cuts what has no cut, if anything.
func (s *Spool) cutUncut(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(ses.uncut) > 0 {
		s.cut(ses)
	}
}

// cutAged cuts what has waited long enough.
func (s *Spool) cutAged(now time.Time) {
	for _, ses := range s.aged(now) {
		ses.recorder.cut(now)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.cuts.list) > 0 {
		wake(s.wakeSeal) // there was no room for them
	}
}

// aged takes the sessions out of waiting whose first run without a cut is old.
func (s *Spool) aged(now time.Time) (due []*session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range len(s.waiting.list) {
		ses := s.waiting.pop()
		switch {
		case len(ses.uncut) == 0:
		case now.Sub(ses.since) < chunkAge:
			s.waiting.push(ses)
		default:
			due = append(due, ses)
		}
	}
	return due
}

// putState writes what the next start must know of a session; s.mu is held.
func (s *Spool) putState(ses *session, urgent bool) error {
	var room [512]byte
	seg, _, err := s.put(entryState, ses.ref, ses.appendState(room[:0]), urgent)
	if err == nil {
		ses.stateSeg = seg
	}
	return err
}

// end says that the session is over.
func (s *Spool) end(ses *session, how ending) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("spool: end session %s: the spool is closed", ses.id)
	}
	if s.sessions[ses.id] != ses {
		return ses.failed // refused by the control plane, and put aside
	}
	return s.endLocked(ses, how)
}

// endLocked cuts the last chunk and lets the session be sealed, though only once there is
// room to say so; s.mu is held.
func (s *Spool) endLocked(ses *session, how ending) error {
	how.last = ses.last
	ses.ended, ses.ending = true, how
	err := s.putEnd(ses)
	if len(ses.uncut) > 0 {
		s.cut(ses)
	}
	s.cuts.push(ses)
	wake(s.wakeSeal)
	return err
}

// putEnd writes how a session has ended, unless the log says so already; s.mu is held.
func (s *Spool) putEnd(ses *session) error {
	if ses.told {
		return nil
	}
	if _, _, err := s.put(entryEnd, ses.ref, ses.ending.append(nil), true); err != nil {
		return fmt.Errorf("spool: end session %s: %w", ses.id, err)
	}
	ses.told = true
	return nil
}

// fail lets a session take no more events.
func (s *Spool) fail(ses *session, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failLocked(ses, why)
}

func (s *Spool) failLocked(ses *session, why error) {
	if ses.failed == nil {
		ses.failed = why
	}
	ses.stirred()
}

// awaitStored waits until the control plane has stored the event.
func (s *Spool) awaitStored(ses *session, seq uint64) error {
	timeout := time.NewTimer(s.cfg.RemoteTimeout)
	defer timeout.Stop()
	for {
		s.mu.Lock()
		if ses.behind(seq) {
			s.mu.Unlock()
			return nil
		}
		if ses.failed != nil {
			s.mu.Unlock()
			return ses.failed
		}
		if ses.moved == nil {
			ses.moved = make(chan struct{})
		}
		moved := ses.moved
		s.mu.Unlock()
		select {
		case <-moved:
		case <-timeout.C:
			return fmt.Errorf("spool: session %s: the control plane did not store the record within %s", ses.id, s.cfg.RemoteTimeout)
		}
	}
}

// hold notes that a recorder holds events back.
func (s *Spool) hold(r *Recorder) {
	s.mu.Lock()
	s.held[r] = struct{}{}
	s.mu.Unlock()
}

// flushHeld takes what recorders hold back in mode Async. What fails ends the session.
func (s *Spool) flushHeld() {
	s.mu.Lock()
	held := make([]*Recorder, 0, len(s.held))
	for r := range s.held {
		held = append(held, r)
	}
	clear(s.held)
	s.mu.Unlock()
	for _, r := range held {
		r.mu.Lock()
		_ = r.release(time.Now()) // the session knows
		r.mu.Unlock()
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
