package spool

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// Recovery is what Open found of an earlier process.
type Recovery struct {
	Sessions []Recovered // of which something is still to be shipped, by id
	// Damage says where the log stopped to make sense; empty for a clean end. A process
	// that was killed in the middle of a write leaves such a place as its last.
	Damage string
	// Lost names files that stood behind the damage and were put aside.
	Lost []string
}

// Recovered is one session of an earlier process.
type Recovered struct {
	ID        postern.SessionID
	Last      uint64 // seq of the last event that was kept
	Truncated bool   // it lived when the process stopped
}

const (
	nodeStopped = "the node stopped"
	lostSuffix  = ".lost"
)

// recover reads the log of an earlier process, ends what lived, and begins a new one.
func (s *Spool) recover() (Recovery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting.which, s.ready.which = 0, 1
	var r Recovery
	if err := s.openSegments(&r); err != nil {
		return r, err
	}
	found, err := s.readSegments(&r)
	if err != nil {
		return r, err
	}
	// The new log may go over the quota, since what is there cannot be shipped without it.
	for range 2 {
		seg, err := createSegment(s.disk.dir, s.disk.name, s.disk.size)
		if err != nil {
			return r, err
		}
		s.disk.name++
		s.disk.spare = append(s.disk.spare, seg)
	}
	s.disk.begin()
	for _, f := range found {
		one, err := s.adopt(f)
		if err != nil {
			return r, fmt.Errorf("session %s: %w", f.id, err)
		}
		r.Sessions = append(r.Sessions, one)
	}
	slices.SortFunc(r.Sessions, func(a, b Recovered) int { return cmp.Compare(a.ID, b.ID) })
	return r, nil
}

// openSegments opens the files in the order of the log and deletes those that were
// never used.
func (s *Spool) openSegments(r *Recovery) error {
	files, err := os.ReadDir(s.disk.dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		name, ok := segmentNumber(f.Name())
		if !ok {
			continue
		}
		s.disk.name = max(s.disk.name, name+1)
		seg, err := openSegment(s.disk.dir, name)
		if errors.Is(err, errNoSegment) {
			r.Damage = fmt.Sprintf("%s: %s", f.Name(), err)
			if err := s.setAside(seg, r); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		if seg.place == 0 {
			if err := seg.close(true); err != nil {
				return err
			}
			continue
		}
		s.disk.segments = append(s.disk.segments, seg)
	}
	slices.SortFunc(s.disk.segments, func(a, b *segment) int { return cmp.Compare(a.place, b.place) })
	return nil
}

// remains is what the log says of one session.
type remains struct {
	session
	chunks []remainingChunk
	sealed []byte
	sealAt *segment
}

type remainingChunk struct {
	index   uint32
	extents []extent
}

// readSegments reads the log up to the first damage, and closes it there for good.
func (s *Spool) readSegments(r *Recovery) (map[uint64]*remains, error) {
	found := map[uint64]*remains{}
	for i, seg := range s.disk.segments {
		if i > 0 && seg.place != s.disk.place+1 {
			r.Damage = fmt.Sprintf("segment %d follows segment %d", seg.place, s.disk.place)
			return found, s.setAsideFrom(i, r)
		}
		s.disk.place = seg.place
		var failed error
		rolled, damage := seg.each(func(e entry) {
			s.nextRef = max(s.nextRef, e.ref+1)
			if err := take(found, seg, e); err != nil && failed == nil {
				failed = err
			}
		})
		if failed != nil {
			return nil, fmt.Errorf("%s: %w", seg.file.Name(), failed)
		}
		if rolled {
			continue
		}
		last := i == len(s.disk.segments)-1
		if damage == nil && !last {
			damage = errors.New("its end is missing")
		}
		if damage != nil {
			r.Damage = fmt.Sprintf("%s: %s", filepath.Base(seg.file.Name()), damage)
		}
		if err := s.closeSegment(seg); err != nil {
			return nil, err
		}
		if !last {
			return found, s.setAsideFrom(i+1, r)
		}
	}
	return found, nil
}

// closeSegment writes the entry that ends a segment behind its last good one, so that
// the next start finds no damage there.
func (s *Spool) closeSegment(seg *segment) error {
	end := segment{mem: make([]byte, rollRoom)}
	end.add(entryRoll, 0, nil)
	f, err := os.OpenFile(seg.file.Name(), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(end.mem, int64(seg.used))
	return errors.Join(err, f.Sync(), f.Close())
}

// setAsideFrom renames the segments from i on, which stand behind damage and so cannot
// be trusted to be whole. Nobody was ever told that what they hold is on the disk.
func (s *Spool) setAsideFrom(i int, r *Recovery) error {
	for _, seg := range s.disk.segments[i:] {
		if err := s.setAside(seg, r); err != nil {
			return err
		}
	}
	s.disk.segments = s.disk.segments[:i]
	return nil
}

func (s *Spool) setAside(seg *segment, r *Recovery) error {
	name := seg.file.Name()
	if err := errors.Join(seg.close(false), os.Rename(name, name+lostSuffix), syncDir(s.disk.dir)); err != nil {
		return err
	}
	r.Lost = append(r.Lost, filepath.Base(name)+lostSuffix)
	return nil
}

func take(found map[uint64]*remains, seg *segment, e entry) error {
	f := found[e.ref]
	if f == nil {
		f = &remains{session: session{ref: e.ref}}
		found[e.ref] = f
	}
	switch e.kind {
	case entryFrames:
		f.uncut = append(f.uncut, extent{seg, int32(e.offset), int32(len(e.payload))})
	case entryCut:
		if len(e.payload) != 4 {
			return errors.New("a cut entry has not 4 bytes")
		}
		f.chunks = append(f.chunks, remainingChunk{binary.LittleEndian.Uint32(e.payload), f.uncut})
		f.uncut = nil
	case entryState:
		f.stateSeg = seg
		return f.parseState(e.payload)
	case entryEnd:
		how, err := parseEnding(e.payload)
		f.ended, f.ending = true, how
		return err
	case entrySeal:
		f.sealed, f.sealAt = e.payload, seg
	case entryDone:
		delete(found, e.ref)
	default:
		return fmt.Errorf("an entry of kind %d is not known", e.kind)
	}
	return nil
}

// adopt takes over what is left of one session and ends it; s.mu is held.
func (s *Spool) adopt(f *remains) (Recovered, error) {
	ses := &session{id: f.id, ref: f.ref, stored: f.stored, stateSeg: f.stateSeg, ended: f.ended, ending: f.ending}
	if ses.id == "" {
		return Recovered{}, errors.New("its state is missing")
	}
	now := time.Now()
	span := ses.stored.span
	intact := func(extents []extent) (size int, err error) {
		for _, x := range extents {
			if span, err = span.Next(x.seg.mem[x.off : x.off+x.len]); err != nil {
				return 0, err
			}
			x.seg.live += int(x.len)
			size += int(x.len)
		}
		s.unacked += int64(size)
		return size, nil
	}
	for _, c := range f.chunks {
		if c.index < ses.stored.next {
			continue // stored; its first frames may be gone already
		}
		if want := ses.stored.next + uint32(len(ses.chunks)); c.index != want {
			return Recovered{}, fmt.Errorf("chunk %d stands where chunk %d must", c.index, want)
		}
		size, err := intact(c.extents)
		if err != nil {
			return Recovered{}, err
		}
		ses.chunks = append(ses.chunks, &chunk{extents: c.extents, size: size, since: now})
	}
	size, err := intact(f.uncut)
	if err != nil {
		return Recovered{}, err
	}
	ses.uncut, ses.size, ses.since = f.uncut, size, now
	if f.sealed != nil {
		f.sealAt.live += len(f.sealed)
		next := ses.stored.next + uint32(len(ses.chunks))
		ses.chunks = append(ses.chunks, &chunk{seal: slices.Clone(f.sealed), sealSeg: f.sealAt, since: now, built: true,
			after: mark{next: next + 1, previous: sealHash(f.sealed), span: span}})
	}
	s.sessions[ses.id] = ses
	switch {
	case !ses.ended:
		err = s.endLocked(ses, ending{truncated: true, reason: nodeStopped})
	case len(ses.uncut) > 0:
		err = s.cut(ses)
	}
	s.ship(ses)
	return Recovered{ID: ses.id, Last: span.Last, Truncated: ses.ending.truncated}, err
}

// sealHash is the hash at the end of a chunk.
func sealHash(data []byte) record.Hash {
	var h record.Hash
	copy(h[:], data[max(0, len(data)-len(h)):])
	return h
}
