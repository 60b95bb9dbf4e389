package spool

import (
	"errors"
	"slices"
)

// grow allocates ahead, so that sessions need not wait for it: the reserve, and one
// segment to go on with.
func (s *Spool) grow() {
	for {
		s.mu.Lock()
		l := &s.disk
		if s.closed || len(l.spare) >= 2 || len(l.segments)+len(l.spare) >= l.most {
			s.mu.Unlock()
			break
		}
		name := l.name
		l.name++
		s.mu.Unlock()
		seg, err := createSegment(l.dir, name, l.size)
		if err != nil {
			s.log.Error("the spool cannot grow", "error", err)
			break
		}
		s.mu.Lock()
		l.spare = append(l.spare, seg)
		s.mu.Unlock()
	}
	if s.refusal.Load() != nil {
		s.check()
	}
}

// trim deletes the segments that are not needed any more, from the oldest on.
func (s *Spool) trim() error {
	s.mu.Lock()
	count, err := s.moveStates()
	s.mu.Unlock()
	if count == 0 || err != nil {
		return err
	}
	// What was moved must be on the disk before the place it was moved from is gone, and
	// no sync may still be at work on a segment that goes.
	if err := s.syncAll(); err != nil {
		return err
	}
	s.mu.Lock()
	gone := slices.Clone(s.disk.segments[:count])
	s.disk.segments = slices.Delete(s.disk.segments, 0, count)
	s.mu.Unlock()
	for _, seg := range gone {
		// One after the other for good, so that no power failure leaves a gap in the log.
		err = errors.Join(err, seg.close(true), syncDir(s.disk.dir))
	}
	return err
}

// moveStates counts the segments that can go, and writes anew the states of sessions
// that stand in them; s.mu is held.
func (s *Spool) moveStates() (count int, err error) {
	for ; count < len(s.disk.segments)-1 && s.disk.segments[count].live == 0; count++ {
		for _, ses := range s.sessions {
			if ses.stateSeg != s.disk.segments[count] {
				continue
			}
			if err := s.putState(ses, true); err != nil {
				return 0, err
			}
		}
	}
	return count, nil
}
