package spool

import (
	"cmp"
	"errors"
	"fmt"
	"math"
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
	// Lost tells what was lost to the damage: files that stood behind it and were put
	// aside, and sessions of which that had what is needed to make sense of the rest.
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
	endLost     = "its end could not be recorded"
	lostSuffix  = ".lost"
)

// recover reads the log of an earlier process, ends what lived, and begins a new one.
func (s *Spool) recover() (Recovery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting.which, s.cuts.which, s.ready.which = 0, 1, 2
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
		if f.id == "" && r.Damage != "" {
			r.Lost = append(r.Lost, fmt.Sprintf("a session with %d records, whose name stood behind the damage", len(f.uncut)+len(f.cuts)))
			if _, _, err := s.put(entryDone, f.ref, nil, true); err != nil {
				return r, err
			}
			continue
		}
		one, err := s.adopt(f, &r)
		if err != nil {
			return r, fmt.Errorf("session %s: %w", f.id, err)
		}
		r.Sessions = append(r.Sessions, one)
	}
	for id, ses := range s.sessions {
		if of, raw := record.RawOf(id); raw && s.sessions[of] != nil && s.sessions[of].stored.next == 0 {
			ses.of = s.sessions[of]
		}
		s.age(ses)
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
	behind := uint64(math.MaxUint64) // this place nothing is trusted
	for _, f := range files {
		name, ok := segmentNumber(f.Name())
		if !ok {
			continue
		}
		s.disk.name = max(s.disk.name, name+1)
		seg, err := openSegment(s.disk.dir, name)
		if errors.Is(err, errNoSegment) {
			r.Damage = fmt.Sprintf("%s: %s", f.Name(), err)
			behind = min(behind, seg.place)
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
	if i := slices.IndexFunc(s.disk.segments, func(seg *segment) bool { return seg.place > behind }); i >= 0 {
		return s.setAsideFrom(i, r)
	}
	return nil
}

// remains is what the log says of one session.
type remains struct {
	session
	parts []extent // of the chunk that is cut next
	cuts  []remainingChunk
	seal  []extent
}

type remainingChunk struct {
	index       uint32
	runs, parts []extent
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
		if last && damage == nil && seg.blank() {
			// Nothing was written to it. A process that is started again and again would leave
			// one of these each time.
			s.disk.place--
			s.disk.segments = s.disk.segments[:i]
			return found, errors.Join(seg.close(true), syncDir(s.disk.dir))
		}
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
	at := extent{seg, int32(e.offset), int32(len(e.payload))}
	switch e.kind {
	case entryFrames, entryRun:
		if len(e.payload) <= runHead+bareSeal || at.frames() <= 0 || at.frames() > maxEntry {
			return errors.New("the entry of a run has no valid length")
		}
		f.uncut = append(f.uncut, at)
	case entryPart:
		f.parts = append(f.parts, at)
	case entryCut:
		c, err := parseCutting(e.payload)
		if err != nil {
			return err
		}
		n := 0
		for n < len(f.uncut) && record.RunNumber(f.uncut[n].run()) <= c.through {
			n++
		}
		one := remainingChunk{index: c.index, runs: f.uncut[:n:n]}
		if c.whole {
			one = remainingChunk{index: c.index, parts: f.parts}
		}
		f.cuts, f.uncut, f.parts = append(f.cuts, one), f.uncut[n:], nil
	case entryState:
		f.stateSeg = seg
		return f.parseState(e.payload)
	case entryEnd:
		how, err := parseEnding(e.payload)
		f.ended, f.ending = true, how
		return err
	case entrySeal:
		f.seal = []extent{at}
	case entryDone:
		delete(found, e.ref)
	default:
		return fmt.Errorf("an entry of kind %d is not known", e.kind)
	}
	return nil
}

// adopt takes over what is left of one session and ends it; s.mu is held.
func (s *Spool) adopt(f *remains, r *Recovery) (Recovered, error) {
	ses := &session{id: f.id, ref: f.ref, wrapped: f.wrapped, stored: f.stored, stateSeg: f.stateSeg, ended: f.ended, told: f.ended, ending: f.ending}
	if ses.id == "" {
		return Recovered{}, errors.New("its state is missing")
	}
	now := time.Now()
	for _, c := range f.cuts {
		if c.index < ses.stored.next {
			continue // stored; its first runs may be gone already
		}
		if want := ses.stored.next + uint32(len(ses.chunks)); c.index != want {
			return Recovered{}, fmt.Errorf("chunk %d stands where chunk %d must", c.index, want)
		}
		ses.chunks = append(ses.chunks, &chunk{runs: c.runs, parts: c.parts, since: now, logged: true})
	}
	for rest := f.uncut; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && size < chunkBytes && (n == 0 || !rest[n].first()) {
			size += rest[n].frames()
			n++
		}
		ses.chunks = append(ses.chunks, &chunk{runs: rest[:n:n], since: now})
		rest = rest[n:]
	}
	if f.seal != nil {
		ses.chunks = append(ses.chunks, &chunk{parts: f.seal, since: now, logged: true, seal: true})
	}
	err := s.keepIntact(ses, r)
	if err != nil {
		return Recovered{}, err
	}
	s.sessions[ses.id] = ses
	if !ses.ended {
		err = s.endLocked(ses, ending{truncated: true, reason: nodeStopped})
	}
	s.cuts.push(ses)
	wake(s.wakeSeal)
	return Recovered{ID: ses.id, Last: ses.last, Truncated: ses.ending.truncated}, err
}

// keepIntact counts what the chunks of a session hold, and cuts them off where events are
// missing: a damaged segment held what had been moved from an older one.
func (s *Spool) keepIntact(ses *session, r *Recovery) error {
	span := ses.stored.span
	for i, c := range ses.chunks {
		next := span
		switch {
		case c.seal:
		case len(c.parts) > 0:
			after, err := ses.settle(mark{}, c)
			if err != nil {
				return err
			}
			next = after.span
		default:
			next = spanOf(next, c.runs)
		}
		if c.seal && span.Last != ses.ending.last || !c.seal && next.First != span.Follower() {
			ses.chunks = ses.chunks[:i]
			break
		}
		span = next
		for _, x := range slices.Concat(c.runs, c.parts) {
			x.seg.live += int(x.len)
			c.size += int(x.len)
		}
		s.unacked += int64(c.size)
	}
	if ses.last = span.Last; ses.ended && ses.last != ses.ending.last {
		r.Lost = append(r.Lost, fmt.Sprintf("session %s: the events from %d on", ses.id, span.Follower()))
		ses.ended, ses.told = false, false
	}
	return nil
}

// spanOf is the span of runs that follow before; zero where they do not.
func spanOf(before record.Span, runs []extent) record.Span {
	span := record.Span{First: before.Follower(), Last: before.Last, Open: before.Open}
	for _, x := range runs {
		one := x.span()
		if one.First != span.Follower() {
			return record.Span{}
		}
		span.Last, span.Open = one.Last, one.Open
	}
	return span
}
