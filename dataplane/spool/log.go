package spool

import (
	"errors"
	"fmt"
)

// errFull says that nothing more may be kept. What ends a session may be.
var errFull = errors.New("the spool is full")

// A log is the segments in order. It is guarded by Spool.mu.
type log struct {
	dir  string
	size int    // bytes of a segment
	most int    // segments, those in reserve included
	name uint64 // of the next file
	// segments are in use, the oldest first; entries go to the last.
	segments []*segment
	// spare were allocated ahead. One of them is the reserve: only what ends a session
	// or lets the log shrink may begin it.
	spare []*segment
	place uint64 // of the last segment
}

func (l *log) active() *segment { return l.segments[len(l.segments)-1] }

// open is the active segment, with room for an entry. What is urgent may use the reserve,
// but runs only a half of it: without room for cuts, states and seals nothing could be
// shipped any more, and so nothing trimmed.
func (l *log) open(kind entryKind, payload int, urgent bool) (*segment, error) {
	if len(l.spare) == 0 {
		if !urgent {
			return nil, errFull
		}
		if kind == entryRun && l.active().used > l.size/2 {
			if err := l.more(); err != nil {
				return nil, err
			}
		}
	}
	if !l.active().fits(payload) {
		if err := l.roll(urgent); err != nil {
			return nil, err
		}
	}
	return l.active(), nil
}

// room reports whether n bytes in several entries would fit without the reserve. Each
// segment may lose the size of one entry at its end.
func (l *log) room(n int) bool {
	return n+n/8 <= (l.most-len(l.segments)-1)*(l.size-2*maxEntry)
}

func (l *log) roll(urgent bool) error {
	if len(l.spare) == 0 || len(l.spare) == 1 && !urgent {
		if err := l.more(); err != nil {
			return err
		}
	}
	l.active().add(entryRoll, 0, nil)
	l.begin()
	return nil
}

// more adds a spare segment.
func (l *log) more() error {
	seg, err := l.grow(l.name)
	if err != nil {
		return err
	}
	l.name++
	l.spare = append(l.spare, seg)
	return nil
}

// begin makes the first spare segment the active one.
func (l *log) begin() {
	l.place++
	next := l.spare[0]
	next.begin(l.place)
	l.segments = append(l.segments, next)
	l.spare = append(l.spare[:0], l.spare[1:]...)
}

// grow allocates one more segment, if the quota allows it. It does not change l.
func (l *log) grow(name uint64) (*segment, error) {
	if len(l.segments)+len(l.spare) >= l.most {
		return nil, fmt.Errorf("%w: it may have %d segments of %d bytes", errFull, l.most, l.size)
	}
	seg, err := createSegment(l.dir, name, l.size)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errFull, err)
	}
	return seg, nil
}
