package spool

import (
	"fmt"
	"time"
)

// append puts the runs of one flush into the log, all of them or none that is kept.
// With cut they end a chunk; was tells whether one was ended.
func (s *Spool) append(ses *session, runs []sealedRun, now time.Time, cut, urgent bool) (at position, was bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses.failed != nil {
		return position{}, false, ses.failed
	}
	if s.closed {
		return position{}, false, fmt.Errorf("spool: record in session %s: the spool is closed", ses.id)
	}
	if len(runs) > 1 && !urgent && !s.disk.room(len(runs)*maxEntry) {
		return position{}, false, fmt.Errorf("spool: record in session %s: %w", ses.id, errFull)
	}
	before := len(ses.chunks)
	for i := range runs {
		if err := s.putRun(ses, runs[i], now, urgent); err != nil {
			err = fmt.Errorf("spool: record in session %s: %w", ses.id, err)
			if i > 0 {
				s.failLocked(ses, err) // a part of the event is kept
			}
			return position{}, false, err
		}
	}
	if cut && len(ses.uncut) > 0 {
		s.cut(ses)
	}
	return s.tail(), len(ses.chunks) > before, nil
}

// putRun puts the entry of one run; s.mu is held.
func (s *Spool) putRun(ses *session, r sealedRun, now time.Time, urgent bool) error {
	if len(ses.uncut) == 0 {
		markFirst(r.payload)
	}
	seg, off, err := s.put(entryRun, ses.ref, r.payload, urgent)
	if err != nil {
		return err
	}
	if len(ses.uncut) == 0 {
		ses.since = now
		if ses.uncut == nil && len(s.extents) > 0 {
			ses.uncut = s.extents[len(s.extents)-1]
			s.extents = s.extents[:len(s.extents)-1]
		}
		s.waiting.push(ses)
	}
	ses.uncut = append(ses.uncut, extent{seg, int32(off), int32(len(r.payload))})
	ses.size += len(r.payload)
	ses.frames += r.frames
	ses.last = ses.uncut[len(ses.uncut)-1].span().Last
	seg.live += len(r.payload)
	s.unacked += int64(len(r.payload))
	if ses.rank == 0 {
		s.age(ses)
	}
	if ses.frames >= chunkBytes {
		s.cut(ses)
	}
	return nil
}

// put appends one entry and asks for more room where a segment was begun; s.mu is held.
func (s *Spool) put(kind entryKind, ref uint64, payload []byte, urgent bool) (*segment, int, error) {
	place := s.disk.place
	seg, off, err := s.disk.put(kind, ref, payload, urgent)
	if err != nil {
		s.full = true
		s.refuse(fmt.Errorf("spool: nothing can be recorded: %w", err))
	}
	if err != nil || place != s.disk.place {
		wake(s.wakeGrow)
	}
	return seg, off, err
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
		_ = r.release(time.Now(), false) // the session knows
		r.mu.Unlock()
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
