package mcp

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/postern"
)

// maxOpen is how many requests may wait for answers at once, and how many tools are pinned.
const maxOpen = 1024

// A Server is what is remembered of one server, as one grant has seen it: what its tools
// were, and which requests wait for an answer. It is safe for concurrent use.
type Server struct {
	mu      sync.Mutex
	pins    map[string]string // hashes of tools, as first seen
	changed map[string]string // hashes of tools that are no longer what they were
	open    map[ID]Terms
	asked   map[ID]bool // pings of the server
}

// Terms say what of an answer may be shown. Nil parts show all.
type Terms struct {
	Method string
	List   *postern.MCPRule // what a list may name
	Masks  *content.Rule    // of the result
}

// NewServer remembers nothing yet.
func NewServer() *Server {
	return &Server{pins: map[string]string{}, changed: map[string]string{}, open: map[ID]Terms{}, asked: map[ID]bool{}}
}

// Hash is how a tool is pinned: of all that a server says of it.
func Hash(tool map[string]any) (string, error) {
	b, err := encode(tool)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// Ask notes a request that is about to be sent on, on what terms its answer may be shown.
// An error refuses it: its id is in use.
func (s *Server) Ask(m *Message, t Terms) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !m.Request() {
		if m.Response() {
			if !s.asked[m.ID] {
				return fmt.Errorf("nothing was asked as %s", m.ID)
			}
			delete(s.asked, m.ID)
		}
		return nil
	}
	if _, taken := s.open[m.ID]; taken {
		return fmt.Errorf("the id %s is in use", m.ID)
	}
	if len(s.open) >= maxOpen {
		return fmt.Errorf("%d requests wait for answers", maxOpen)
	}
	t.Method = m.Method
	s.open[m.ID] = t
	return nil
}

// Forget gives up a request: an answer to it is not shown any more.
func (s *Server) Forget(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, id)
}

// Changed says how a tool differs from what it was when it was pinned; empty where it
// does not.
func (s *Server) Changed(tool string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hash := s.changed[tool]; hash != "" {
		return "it was " + s.pins[tool] + " and is " + hash
	}
	return ""
}

// Accept pins a tool as it is now, for people have looked at it.
func (s *Server) Accept(tool string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hash := s.changed[tool]; hash != "" {
		s.pins[tool] = hash
		delete(s.changed, tool)
	}
}

// pinned reports whether a tool is what it was, and pins it where it was never seen. What
// policy pins wins over what was seen first.
func (s *Server) pinned(name, hash string, pins map[string]string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, known := s.pins[name]
	if pin := pins[name]; pin != "" && !known {
		was, known = pin, true
		s.pins[name] = pin
	}
	switch {
	case !known && len(s.pins) < maxOpen:
		s.pins[name] = hash
		return true
	case known && was == hash:
		delete(s.changed, name)
		return true
	case known:
		s.changed[name] = hash
	}
	return false
}

// answered takes the terms of a request that is answered.
func (s *Server) answered(id ID) (Terms, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.open[id]
	delete(s.open, id)
	return t, ok
}

func (s *Server) asks(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) >= maxOpen {
		return false
	}
	s.asked[id] = true
	return true
}
