package mcp

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/posterngate/postern/pkg/content"
)

// notices are what a server may say by itself.
var notices = map[string]bool{
	"notifications/progress": true, "notifications/message": true, "notifications/cancelled": true, "notifications/tools/list_changed": true,
	"notifications/resources/list_changed": true, "notifications/resources/updated": true, "notifications/prompts/list_changed": true,
}

// Show is what of a message from the server the client may see; nil where it is nothing:
// answers that nobody waits for, and what a server must not ask. Masks are those of what
// the server says by itself. An error says that the message cannot be shown as it should
// be; the request is answered with an error then.
func (s *Server) Show(m *Message, masks *content.Rule) (*Message, error) {
	switch {
	case m.Response():
		t, ok := s.answered(m.ID)
		if !ok {
			return nil, nil
		}
		out, err := s.shown(m, t)
		if err != nil {
			return Refusal(m.ID, CodeRefused, "the answer cannot be shown: "+err.Error()), nil
		}
		return out, nil
	case m.Request():
		if m.Method != "ping" || !s.asks(m.ID) {
			return nil, nil
		}
		return &Message{ID: m.ID, Method: m.Method}, nil
	case !notices[m.Method]:
		return nil, nil
	}
	params, err := masked(m.Params, masks)
	if err != nil {
		return nil, err
	}
	return &Message{Method: m.Method, Params: params}, nil
}

// shown is an answer on its terms.
func (s *Server) shown(m *Message, t Terms) (*Message, error) {
	if m.Error != nil {
		e := *m.Error
		all, err := masked(map[string]any{"message": e.Message, "data": e.Data}, t.Masks)
		if err != nil {
			return nil, err
		}
		e.Message, _ = all["message"].(string)
		e.Data = all["data"]
		return &Message{ID: m.ID, Error: &e}, nil
	}
	result, err := s.listed(m.Result, t)
	if err != nil {
		return nil, err
	}
	if result, err = masked(result, t.Masks); err != nil {
		return nil, err
	}
	return &Message{ID: m.ID, Result: result}, nil
}

// lists are the members of results that name what there is: by the method, the member of
// the list and that of the name.
var lists = map[string]struct{ list, name string }{
	"tools/list": {"tools", "name"}, "resources/list": {"resources", "uri"}, "resources/templates/list": {"resourceTemplates", "uriTemplate"}, "prompts/list": {"prompts", "name"},
}

// listed leaves out of a list what the rule does not name, and tools that have changed.
func (s *Server) listed(result map[string]any, t Terms) (map[string]any, error) {
	of, is := lists[t.Method]
	if !is {
		return result, nil
	}
	if t.List == nil {
		return nil, fmt.Errorf("nothing says what may be listed")
	}
	all, ok := result[of.list].([]any)
	if !ok {
		return nil, fmt.Errorf("it lists no %s", of.list)
	}
	kept := []any{}
	for _, v := range all {
		item, ok := v.(map[string]any)
		if !ok {
			continue
		}
		name, ok := item[of.name].(string)
		if !ok || !t.List.Names(of.list, name) {
			continue
		}
		if of.list == "tools" {
			hash, err := Hash(item)
			if err != nil {
				return nil, err
			}
			if !s.pinned(name, hash, t.List.Pins) {
				continue
			}
		}
		kept = append(kept, item)
	}
	out := map[string]any{}
	for name, v := range result {
		out[name] = v
	}
	out[of.list] = kept
	return out, nil
}

// masked is an object with its masks; their paths begin in it.
func masked(o map[string]any, masks *content.Rule) (map[string]any, error) {
	if o == nil || masks == nil || masks.Empty() {
		return o, nil
	}
	text, err := encode(o)
	if err != nil {
		return nil, err
	}
	j := masks.NewJSON(false)
	out, err := j.Append(nil, text)
	if err == nil {
		out, err = j.Close(out)
	}
	if err != nil {
		return nil, err
	}
	// Names in which something was masked may have become the same: the last stays.
	d := json.NewDecoder(strings.NewReader(string(out)))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("read what was masked: %w", err)
	}
	return v, nil
}

// Forwarded is a message as it is sent on. What a client says that it can do for the
// server is left out, for the server is not let ask for it.
func Forwarded(m *Message) *Message {
	if m.Method != "initialize" {
		return m
	}
	out := *m
	out.Params = map[string]any{}
	for name, v := range m.Params {
		out.Params[name] = v
	}
	out.Params["capabilities"] = map[string]any{}
	return &out
}
