package mcp

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"

	"github.com/posterngate/postern/pkg/postern"
)

// Limits of what is remembered of one server.
const (
	// maxTools is how many tools are pinned; more are not shown.
	maxTools = 1024
	// maxTalks is how many sessions of the protocol are open at once; the one that was
	// used least lately is given up for another.
	maxTalks = 64
	// maxShown is how much of what a server says of a changed tool people are shown, in
	// bytes.
	maxShown = 4 << 10
)

// A Server is what is remembered of one server, as one grant has seen it: what its tools
// were, and what is open. It is safe for concurrent use.
type Server struct {
	mu    sync.Mutex
	tools map[string]*tool
	talks []*Talk // those with a name; the one that was used last comes last
}

// A tool is what is known of one.
type tool struct {
	first    string // its hash, as first seen or as accepted since
	accepted bool
	pin      string // what policy pinned when it was accepted
	now      string // its hash, as last seen
	told     bool   // that it has changed, since it was accepted
	text     string // what the server says of it now, where that is not what it was
}

// NewServer remembers nothing yet.
func NewServer() *Server { return &Server{tools: map[string]*tool{}} }

// Hash is how a tool is pinned: of all that a server says of it.
func Hash(tool map[string]any) (string, error) {
	hash, _, err := hashed(tool)
	return hash, err
}

func hashed(tool map[string]any) (hash string, text []byte, err error) {
	text, err = encode(tool)
	if err != nil {
		return "", nil, err
	}
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:]), text, nil
}

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

// want is the hash that a tool must have: what people have accepted, as long as policy
// pins what it did then; else what policy pins, or what was seen first.
func (t *tool) want(pin string) string {
	if pin != "" && !(t.accepted && t.pin == pin) {
		return pin
	}
	return t.first
}

func pinOf(rule *postern.MCPRule, tool string) string {
	if rule == nil {
		return ""
	}
	return rule.Pins[tool]
}

// Changed says how a tool differs from what it must be, and what the server says of it
// now; both are empty where it does not. A tool that policy pins and that was not seen
// yet is not known to be so.
func (s *Server) Changed(name string, rule *postern.MCPRule) (how, text string) {
	pin := pinOf(rule, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tools[name]
	switch {
	case t == nil && pin == "":
		return "", ""
	case t == nil:
		return "it must be " + pin + ", and the server was not asked yet: list the tools first", ""
	case t.now != t.want(pin):
		return "it was " + t.want(pin) + " and is " + t.now, t.text
	}
	return "", ""
}

// Accept takes a tool as it is now, for people have looked at it: at what Changed said.
func (s *Server) Accept(name, how string, rule *postern.MCPRule) {
	if is, _ := s.Changed(name, rule); is != how {
		return // it has changed once more since
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tools[name]; t != nil {
		t.first, t.accepted, t.pin, t.text, t.told = t.now, true, pinOf(rule, name), "", false
	}
}

// seen notes what a server says of a tool, and reports whether it may be shown. News is
// true where it may not and nobody was told of that yet.
func (s *Server) seen(name, pin, hash string, text []byte) (shown, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tools[name]
	if t == nil {
		if len(s.tools) >= maxTools || len(name) > maxName {
			return false, false
		}
		t = &tool{first: hash}
		s.tools[name] = t
	}
	t.now, t.text = hash, ""
	if hash == t.want(pin) {
		return true, false
	}
	t.text = string(text[:min(len(text), maxShown)])
	news, t.told = !t.told, true
	return false, news
}
