package store

import (
	"iter"
	"slices"
	"strings"
)

// chunkEntries is how many entries a chunk holds before it is split.
const chunkEntries = 256

// sorted is an immutable list of the entries of one kind in order of name, in chunks,
// so that a change copies one chunk and not all. Every chunk has at least one entry.
type sorted struct {
	chunks [][]Entry
	n      int
}

func newSorted(entries []Entry) *sorted {
	s := &sorted{n: len(entries)}
	for c := range slices.Chunk(slices.Clone(entries), chunkEntries) {
		s.chunks = append(s.chunks, c)
	}
	return s
}

// chunk is the place of the only chunk that can hold the name.
func (s *sorted) chunk(name string) int {
	i, found := slices.BinarySearchFunc(s.chunks, name, func(c []Entry, name string) int { return strings.Compare(c[0].Name, name) })
	if found || i == 0 {
		return i
	}
	return i - 1
}

func find(c []Entry, name string) (int, bool) {
	return slices.BinarySearchFunc(c, name, func(e Entry, name string) int { return strings.Compare(e.Name, name) })
}

func (s *sorted) get(name string) (Entry, bool) {
	if s == nil || len(s.chunks) == 0 {
		return Entry{}, false
	}
	c := s.chunks[s.chunk(name)]
	if i, ok := find(c, name); ok {
		return c[i], true
	}
	return Entry{}, false
}

func (s *sorted) all() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		if s == nil {
			return
		}
		for _, c := range s.chunks {
			for _, e := range c {
				if !yield(e) {
					return
				}
			}
		}
	}
}

// with is s after the event.
func (s *sorted) with(ev Event) *sorted {
	if s == nil || len(s.chunks) == 0 {
		if ev.Deleted {
			return s
		}
		return newSorted([]Entry{ev.Entry})
	}
	at := s.chunk(ev.Name)
	c := s.chunks[at]
	i, found := find(c, ev.Name)
	next := &sorted{n: s.n}
	var repl [][]Entry
	switch {
	case ev.Deleted && !found:
		return s
	case ev.Deleted:
		next.n--
		if c = slices.Delete(slices.Clone(c), i, i+1); len(c) > 0 {
			repl = [][]Entry{c}
		}
	case found:
		c = slices.Clone(c)
		c[i] = ev.Entry
		repl = [][]Entry{c}
	default:
		next.n++
		c = slices.Insert(slices.Clone(c), i, ev.Entry)
		repl = [][]Entry{c}
		if half := len(c) / 2; len(c) > chunkEntries {
			repl = [][]Entry{c[:half:half], c[half:]}
		}
	}
	next.chunks = slices.Concat(s.chunks[:at], repl, s.chunks[at+1:])
	return next
}
