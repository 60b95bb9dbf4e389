package mcp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// maxTalks is how many sessions of the protocol are open at once; the one that was
	// used least lately is given up for another.
	maxTalks = 64
	// maxShown is how much of what a server says of changed things people are shown at
	// once, in bytes; maxTexts of how many things that is kept.
	maxShown = 8 << 10
	maxTexts = 128
	// freshFor is for how long what was learnt of a server is not asked for again.
	freshFor = 5 * time.Second
)

// A Memory is where what servers say of themselves is kept for all nodes: it notes what is
// told and returns all that is known. It adds the grant, the resource and the path.
type Memory func(told *nodev1.PinServerRequest) (*nodev1.ServerPins, error)

// A Server is what this process knows of one server under one grant: which sessions are
// open, and what it says of itself, as far as the Memory has told. It is safe for
// concurrent use.
type Server struct {
	mu    sync.Mutex
	talks []*Talk            // those with a name; the one that was used last comes last
	pins  *nodev1.ServerPins // what was learnt last, never changed; nil where nothing was
	asked time.Time          // when that was
	texts map[thing]text     // of what is not as it must be, as this process has heard it
	ids   atomic.Int64       // the last that a request was given
}

// id is one that the server was never asked by.
func (s *Server) id() ID { return ID(strconv.FormatInt(s.ids.Add(1), 10)) }

type thing struct{ list, name string }

// A text is what a server says of a thing now; without the text where that is too long.
type text struct{ hash, text string }

// newServer knows nothing yet.
func newServer() *Server { return &Server{texts: map[thing]text{}} }

// Talk is the session of the protocol with a name; without one it is a new one, which the
// server may give a name. It is nil where the server gave nobody of this grant the name:
// it could be somebody else's.
func (s *Server) Talk(name string) *Talk {
	if name == "" {
		return newTalk(s)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.talks, func(t *Talk) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	t := s.talks[i]
	s.talks = append(slices.Delete(s.talks, i, i+1), t)
	return t
}

// Name remembers a talk by the name that the server has given it.
func (s *Server) Name(t *Talk, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" || len(name) > maxName || t.name != "" || slices.ContainsFunc(s.talks, func(t *Talk) bool { return t.name == name }) {
		return
	}
	if len(s.talks) == maxTalks {
		s.talks = slices.Delete(s.talks, 0, 1)
	}
	t.name = name
	s.talks = append(s.talks, t)
}

// End forgets a talk that is over.
func (s *Server) End(t *Talk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.talks = slices.DeleteFunc(s.talks, func(have *Talk) bool { return have == t })
}

// errForgotten refuses what rests on what nobody remembers.
var errForgotten = &postern.Refusal{Code: postern.CodeUnavailable, Reason: "what the server said of itself before cannot be looked up", Hint: "try again; if it stays, tell the operators"}

// tell has the memory note something, and learns all that is known. Nothing is asked where
// that is fresh and the something not new; where the memory cannot be reached, what was
// learnt last stands for what is not new.
func (s *Server) tell(m Memory, r *nodev1.PinServerRequest) (*nodev1.ServerPins, error) {
	s.mu.Lock()
	last, asked := s.pins, s.asked
	s.mu.Unlock()
	known := false
	if last != nil {
		news, err := Note(proto.CloneOf(last), r, time.Now())
		known = err == nil && !news
		if known && time.Since(asked) < freshFor {
			return last, nil
		}
	}
	if m == nil {
		return nil, errForgotten
	}
	pins, err := m(r)
	switch {
	case err != nil && known && postern.AsRefusal(err).Code == postern.CodeUnavailable:
		return last, nil
	case err != nil:
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pins, s.asked = pins, time.Now()
	return pins, nil
}

func policyPin(rule *postern.MCPRule, list, name string) string {
	if rule == nil || list != Tools {
		return ""
	}
	return rule.Pins[name]
}

// about are the things that a message is about: what is not as it must be, of these, is not
// given to a model before somebody has looked at it. What uses a server is about all of its
// tools: one that has changed holds the server, not itself alone, for nobody knows what
// else has.
func about(f *Facts, pins *nodev1.ServerPins, rule *postern.MCPRule) (out []thing) {
	named := func(list string) {
		for _, pin := range listOf(pins, list).GetPins() {
			if name := pin.GetName(); rule.Names(list, name) && (f.Kind != Tool || list != Tools || name != f.Name) {
				out = append(out, thing{list, name})
			}
		}
	}
	switch {
	case f.Unknown != "":
	case f.Kind == Tool:
		out = append(out, thing{Tools, f.Name})
		named(Tools)
	case f.Kind == Prompt:
		out = append(out, thing{Prompts, f.Name})
		named(Tools)
	case f.Kind == Resource:
		named(Tools)
	case introduces(f.Method):
		out = append(out, thing{Instructions, Introduction})
	case f.Method == "resources/templates/list": // nobody calls one of them by its name
		named(Templates)
	}
	return out
}

// pinned reports whether a message may be about something that is pinned.
func pinned(f *Facts) bool {
	return f.Unknown == "" && (f.Kind == Tool || f.Kind == Prompt || f.Kind == Resource || introduces(f.Method) || f.Method == "resources/templates/list")
}

// Changed says how what a message is about differs from what it must be, and what the
// server says of it now, whole and each thing in a line, with one that says so where that
// was not heard here or is too long; both are empty where it does not differ.
func (s *Server) Changed(m Memory, f *Facts, rule *postern.MCPRule) (how, now string, err error) {
	if !pinned(f) {
		return "", "", nil
	}
	pins, err := s.tell(m, &nodev1.PinServerRequest{})
	if err != nil {
		return "", "", err
	}
	how, now = s.changed(pins, f, rule)
	return how, now, nil
}

func (s *Server) changed(pins *nodev1.ServerPins, f *Facts, rule *postern.MCPRule) (how, now string) {
	var hows, texts []string
	room, whole := maxShown, true
	for _, of := range about(f, pins, rule) {
		h := differs(pins, of.list, of.name, policyPin(rule, of.list, of.name))
		if h == "" {
			continue
		}
		hows = append(hows, told(of, h))
		s.mu.Lock()
		t := s.texts[of]
		s.mu.Unlock()
		switch {
		case t.text != "" && strings.HasSuffix(h, t.hash) && len(t.text) <= room:
			texts, room = append(texts, t.text), room-len(t.text)
		case pinOf(pins, of.list, of.name) != nil:
			whole = false
		}
	}
	if !whole {
		texts = append(texts, unshown)
	}
	return strings.Join(hows, between), strings.Join(texts, "\n")
}

// Accept takes what a message is about as it is now, for people have looked at it: at what
// Changed said. The hold is the one by which they did.
func (s *Server) Accept(m Memory, f *Facts, how string, rule *postern.MCPRule, hold string) error {
	s.mu.Lock()
	pins := s.pins
	s.mu.Unlock()
	if is, _ := s.changed(pins, f, rule); is != how {
		return nil // it has changed once more since
	}
	things := about(f, pins, rule)
	for _, list := range []string{Tools, Prompts, Templates, Instructions} {
		r := &nodev1.PinServerRequest{List: list, Hold: hold}
		for _, of := range things {
			policy := policyPin(rule, list, of.name)
			if pin := pinOf(pins, list, of.name); of.list == list && pin != nil && differs(pins, list, of.name, policy) != "" {
				r.Accepted = append(r.Accepted, &nodev1.Pin{Name: of.name, Now: pin.GetNow(), Policy: policy})
			}
		}
		if len(r.GetAccepted()) == 0 {
			continue
		}
		if _, err := s.tell(m, r); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range things {
		delete(s.texts, of) // should it change so again, that is told again
	}
	return nil
}

// heard notes what a server says of things that are not as they must be, and tells those of
// which that was not heard here before.
func (s *Server) heard(what thing, how, hash string, said []byte) (news []Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.texts[what].hash == hash {
		return nil
	}
	if len(s.texts) >= maxTexts {
		clear(s.texts)
	}
	t := text{hash: hash}
	if len(said) <= maxShown {
		t.text = string(said)
	}
	s.texts[what] = t
	return []Change{{called(what.list, what.name), how}}
}

// A Change is a thing that is not what it must be, and how.
type Change struct{ What, How string }

func (c Change) String() string {
	return fmt.Sprintf("%s has changed, and is held back: %s", c.What, c.How)
}
