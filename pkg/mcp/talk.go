package mcp

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"sync"

	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/postern"
)

// maxOpen is how many requests of one session may wait for answers at once, each way.
const maxOpen = 1024

// A Talk is one session of the protocol: which requests wait for an answer, and on what
// terms it is shown. Servers know requests by ids that they never see twice, and not by
// those that clients give: what a client gives up is forgotten, and its id may come again,
// while an answer to it that comes after all is nobody's. It is safe for concurrent use.
type Talk struct {
	server *Server
	name   string // as the server names it; guarded by the server

	mu    sync.Mutex
	open  map[ID]waiting // by the server's id
	ids   map[ID]ID      // of those the server's, by the client's
	asked map[ID]bool    // pings of the server
}

// waiting is a request that waits for its answer.
type waiting struct {
	id ID // the client's
	Terms
}

func newTalk(s *Server) *Talk {
	return &Talk{server: s, open: map[ID]waiting{}, ids: map[ID]ID{}, asked: map[ID]bool{}}
}

// Terms say what of an answer may be shown. Nil masks show all.
type Terms struct {
	Method string
	List   *postern.MCPRule // what a list may name
	Masks  *content.Rule    // of the result
}

// cancelled gives up a request that the client names in it.
const cancelled = "notifications/cancelled"

// nobody is an id that servers know nothing by.
const nobody = ID("0")

// Ask notes a message that is about to be sent on, and returns it as the server gets it; of a
// request, on what terms its answer may be shown. An error refuses it: its id is in use, or it
// answers nothing that was asked.
func (t *Talk) Ask(m *Message, terms Terms) (*Message, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := forwarded(m)
	switch {
	case m.Response():
		if !t.asked[m.ID] {
			return nil, fmt.Errorf("nothing was asked as %s", m.ID)
		}
		delete(t.asked, m.ID)
	case m.Method == cancelled && m.Params["requestId"] != nil:
		id, err := parseID(m.Params["requestId"])
		if err != nil {
			return nil, err
		}
		out.Params = maps.Clone(out.Params)
		out.Params["requestId"] = json.RawMessage(cmp.Or(t.forget(id), nobody))
	case m.Request():
		if _, taken := t.ids[m.ID]; taken {
			return nil, fmt.Errorf("the id %s is in use", m.ID)
		}
		if len(t.open) >= maxOpen {
			return nil, fmt.Errorf("%d requests wait for answers", maxOpen)
		}
		terms.Method = m.Method
		out.ID = t.server.id()
		t.open[out.ID], t.ids[m.ID] = waiting{m.ID, terms}, out.ID
	}
	return &out, nil
}

// Forget gives up a request: an answer to it is not shown any more.
func (t *Talk) Forget(id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.forget(id)
}

// forget returns the server's id of what it gives up.
func (t *Talk) forget(id ID) ID {
	is := t.ids[id]
	delete(t.ids, id)
	delete(t.open, is)
	return is
}

// answered takes the request that is answered.
func (t *Talk) answered(id ID) (waiting, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w, ok := t.open[id]
	if ok {
		t.forget(w.id)
	}
	return w, ok
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
