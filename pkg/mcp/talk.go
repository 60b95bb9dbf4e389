package mcp

import (
	"fmt"
	"sync"

	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/postern"
)

// maxOpen is how many requests of one session may wait for answers at once, each way.
const maxOpen = 1024

// A Talk is one session of the protocol: which requests wait for an answer, and on what
// terms it is shown. It is safe for concurrent use.
type Talk struct {
	server *Server
	name   string // as the server names it; guarded by the server

	mu    sync.Mutex
	open  map[ID]Terms
	asked map[ID]bool // pings of the server
}

func newTalk(s *Server) *Talk {
	return &Talk{server: s, open: map[ID]Terms{}, asked: map[ID]bool{}}
}

// Terms say what of an answer may be shown. Nil masks show all.
type Terms struct {
	Method string
	List   *postern.MCPRule // what a list may name
	Masks  *content.Rule    // of the result
}

// Ask notes a request that is about to be sent on, on what terms its answer may be shown.
// An error refuses it: its id is in use, or it answers nothing that was asked.
func (t *Talk) Ask(m *Message, terms Terms) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !m.Request() {
		if m.Response() {
			if !t.asked[m.ID] {
				return fmt.Errorf("nothing was asked as %s", m.ID)
			}
			delete(t.asked, m.ID)
		}
		return nil
	}
	if _, taken := t.open[m.ID]; taken {
		return fmt.Errorf("the id %s is in use", m.ID)
	}
	if len(t.open) >= maxOpen {
		return fmt.Errorf("%d requests wait for answers", maxOpen)
	}
	terms.Method = m.Method
	t.open[m.ID] = terms
	return nil
}

// Forget gives up a request: an answer to it is not shown any more.
func (t *Talk) Forget(id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, id)
}

// answered takes the terms of a request that is answered.
func (t *Talk) answered(id ID) (Terms, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	terms, ok := t.open[id]
	delete(t.open, id)
	return terms, ok
}

func (t *Talk) asks(id ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.asked) >= maxOpen {
		return false
	}
	t.asked[id] = true
	return true
}
