package spool

import (
	"fmt"
	"sync"
)

// position is a place in the log.
type position struct {
	place uint64 // of the segment
	used  int    // bytes of it
}

func (p position) before(q position) bool {
	return p.place < q.place || p.place == q.place && p.used < q.used
}

// A syncer lets one fdatasync serve all who wait: the first who comes syncs for
// everybody who came before it began.
type syncer struct {
	mu   sync.Mutex
	cond *sync.Cond
	busy bool
	done position
	err  error // final: after a failed sync nobody knows what is on the disk
}

func (y *syncer) init() { y.cond = sync.NewCond(&y.mu) }

// syncTo returns once everything before at is on the disk.
func (s *Spool) syncTo(at position) error {
	y := &s.sync
	y.mu.Lock()
	defer y.mu.Unlock()
	for {
		switch {
		case y.err != nil:
			return y.err
		case !y.done.before(at):
			return nil
		case y.busy:
			y.cond.Wait()
			continue
		}
		y.busy = true
		y.mu.Unlock()
		done, err := s.syncSegments()
		y.mu.Lock()
		y.busy = false
		if err != nil {
			y.err = fmt.Errorf("spool: sync: %w", err)
			s.diskFault(y.err)
		} else {
			y.done = done
		}
		y.cond.Broadcast()
	}
}

// syncAll brings all that was appended so far to the disk.
func (s *Spool) syncAll() error {
	s.mu.Lock()
	at := s.tail()
	s.mu.Unlock()
	return s.syncTo(at)
}

// tail is the end of the log; s.mu is held.
func (s *Spool) tail() position {
	a := s.disk.active()
	return position{a.place, a.used}
}

// syncSegments syncs, the oldest first, whatever was written since the last time. Only
// syncTo calls it, so that it never runs twice at a time.
func (s *Spool) syncSegments() (position, error) {
	type part struct {
		seg  *segment
		used int
	}
	var dirty []part
	s.mu.Lock()
	at := s.tail()
	for _, seg := range s.disk.segments {
		if seg.synced < seg.used {
			dirty = append(dirty, part{seg, seg.used})
		}
	}
	s.mu.Unlock()
	for _, p := range dirty {
		if err := datasync(p.seg.file); err != nil {
			return position{}, err
		}
		s.mu.Lock()
		p.seg.synced = p.used
		s.mu.Unlock()
	}
	return at, nil
}

// diskFault makes the spool refuse for good.
func (s *Spool) diskFault(err error) {
	s.mu.Lock()
	s.fault = err
	s.mu.Unlock()
	s.check()
}
