package postgres

import (
	"maps"
	"strings"
	"sync"
)

// maxShelved bounds the shapes that are kept for sessions to come.
const maxShelved = 4096

// A shelf has the shapes that sessions have had judged and left, for the next session that
// is like them: the same grant's, with the same resource and names. One session has them at
// a time. It is safe for concurrent use; the zero value is empty.
type shelf struct {
	mu   sync.Mutex
	left map[string][]map[string]*shaped
	n    int // shapes in all
}

// shelfKey is what sessions must have in common for what one has had judged to hold for the
// other, while policy and catalogue stay: these are looked at when a shape is used.
func (c *conn) shelfKey() string {
	t := c.terms
	return strings.Join([]string{string(t.Grant), string(t.Task), catalogKey(t), t.Level.String(), c.names.key()}, "\x00")
}

// take gives what was left last, or nil.
func (s *shelf) take(key string) map[string]*shaped {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.left[key]
	if len(all) == 0 {
		return nil
	}
	last := all[len(all)-1]
	if all[len(all)-1] = nil; len(all) == 1 {
		delete(s.left, key)
	} else {
		s.left[key] = all[:len(all)-1]
	}
	s.n -= len(last)
	return last
}

// put leaves shapes. Where there are too many, all that were left before go.
func (s *shelf) put(key string, shapes map[string]*shaped) {
	if len(shapes) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == nil || s.n+len(shapes) > maxShelved {
		s.left, s.n = map[string][]map[string]*shaped{}, 0
	}
	s.left[key] = append(s.left[key], shapes)
	s.n += len(shapes)
}

// clear forgets all that was left.
func (s *shelf) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left, s.n = nil, 0
}

// shelve leaves what the session has had judged to the next one; what was noted of results
// is not handed on. What was judged with keys of masks goes with them, and what was judged against a catalogue that
// has changed, which nobody else could use. The session is over.
func (c *conn) shelve() {
	if cat := c.slot.catalog.Load(); len(c.tokens) == 0 {
		maps.DeleteFunc(c.shapes, func(_ string, s *shaped) bool { return s.st.catalog != cat.mark })
		for _, s := range c.shapes {
			s.st.desc, s.st.columns, s.st.plan, s.st.asked = nil, nil, nil, 0
		}
		c.e.shelf.put(c.shelfKey(), c.shapes)
	}
	c.shapes = map[string]*shaped{}
}
