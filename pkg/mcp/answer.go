package mcp

import (
	"fmt"
	"maps"

	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/postern"
)

// notices are what a server may say by itself.
var notices = map[string]bool{
	"notifications/progress": true, "notifications/message": true, "notifications/cancelled": true, "notifications/tools/list_changed": true,
	"notifications/resources/list_changed": true, "notifications/resources/updated": true, "notifications/prompts/list_changed": true,
}

// Show is what of a message from the server the client may see; nil where it is nothing:
// answers that nobody waits for, and what a server must not ask. Masks are those of what
// the server says by itself. An error says that the message cannot be shown as it should
// be.
func (t *Talk) Show(m *Message, masks *content.Rule) (shown *Message, changed []string, err error) {
	switch {
	case m.Response() && m.ID == "": // the server could not read what it was sent
		shown, err = maskError(m, masks)
		return shown, nil, err
	case m.Response():
		terms, ok := t.answered(m.ID)
		if !ok {
			return nil, nil, nil
		}
		shown, changed, err = t.shown(m, terms)
		if err != nil {
			return Refusal(m.ID, &postern.Refusal{Reason: "the answer cannot be shown: " + err.Error(), Hint: "ask for less, or in another form"}), nil, nil
		}
		return shown, changed, nil
	case m.Request():
		if m.Method != "ping" || !t.asks(m.ID) {
			return nil, nil, nil
		}
		return &Message{ID: m.ID, Method: m.Method}, nil, nil
	case !notices[m.Method]:
		return nil, nil, nil
	}
	params, err := maskObject(m.Params, masks)
	if err != nil {
		return nil, nil, err
	}
	return &Message{Method: m.Method, Params: params}, nil, nil
}

// shown is an answer on its terms, and the tools of which it says something new.
func (t *Talk) shown(m *Message, terms Terms) (*Message, []string, error) {
	if m.Error != nil {
		out, err := maskError(m, terms.Masks)
		return out, nil, err
	}
	result, changed, err := t.server.listed(m.Result, terms)
	if terms.Method == "initialize" {
		result, changed, err = t.server.introduced(m.Result)
	}
	if err != nil {
		return nil, nil, err
	}
	if result, err = maskResult(result, terms.Masks); err != nil {
		return nil, nil, err
	}
	return &Message{ID: m.ID, Result: result}, changed, nil
}

func maskError(m *Message, masks *content.Rule) (*Message, error) {
	all, err := maskObject(map[string]any{"message": m.Error.Message, "data": m.Error.Data}, masks)
	if err != nil {
		return nil, err
	}
	e := &Error{Code: m.Error.Code, Data: all["data"]}
	e.Message, _ = all["message"].(string)
	return &Message{ID: m.ID, Error: e}, nil
}

// lists are the members of results that name what there is: by the method, the member of
// the list and that of the name.
var lists = map[string]struct{ list, name string }{
	"tools/list": {"tools", "name"}, "resources/list": {"resources", "uri"}, "resources/templates/list": {"resourceTemplates", "uriTemplate"}, "prompts/list": {"prompts", "name"},
}

// listed leaves out of a list what the rule does not name, and tools that are not what
// they must be; changed are those of which nobody was told yet.
func (s *Server) listed(result map[string]any, t Terms) (out map[string]any, changed []string, err error) {
	of, is := lists[t.Method]
	if !is {
		return result, nil, nil
	}
	if t.List == nil {
		return nil, nil, fmt.Errorf("nothing says what may be listed")
	}
	all, ok := result[of.list].([]any)
	if !ok {
		return nil, nil, fmt.Errorf("it lists no %s", of.list)
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
			hash, text, err := hashed(item)
			if err != nil {
				return nil, nil, err
			}
			shown, news := s.seen(name, t.List.Pins[name], hash, text)
			if news {
				changed = append(changed, name)
			}
			if !shown {
				continue
			}
		}
		kept = append(kept, item)
	}
	out = maps.Clone(result)
	out[of.list] = kept
	return out, changed, nil
}

// capabilities are what of a server's a client may be told, for it may use no other.
var capabilities = map[string]bool{"tools": true, "resources": true, "prompts": true, "logging": true, "completions": true}

// Introduction is the name under which it is told that a server's instructions to the
// model have changed. They are pinned as a tool is, and left out then: nobody calls them,
// so that nobody can be asked.
const Introduction = "(the server's instructions)"

// introduced is what a server says of itself.
func (s *Server) introduced(result map[string]any) (out map[string]any, changed []string, err error) {
	out = maps.Clone(result)
	if can, ok := result["capabilities"].(map[string]any); ok {
		can = maps.Clone(can)
		maps.DeleteFunc(can, func(name string, _ any) bool { return !capabilities[name] })
		out["capabilities"] = can
	}
	said, has := result["instructions"]
	if !has {
		return out, nil, nil
	}
	hash, text, err := hashed(map[string]any{"instructions": said})
	if err != nil {
		return nil, nil, err
	}
	shown, news := s.seen(Introduction, "", hash, text)
	if !shown {
		delete(out, "instructions")
	}
	if news {
		changed = []string{Introduction}
	}
	return out, changed, nil
}

// Forwarded is a message as it is sent on. What a client says that it can do for the
// server is left out, for the server is not let ask for it.
func Forwarded(m *Message) *Message {
	if m.Method != "initialize" {
		return m
	}
	out := *m
	if out.Params = maps.Clone(m.Params); out.Params == nil {
		out.Params = map[string]any{}
	}
	out.Params["capabilities"] = map[string]any{}
	return &out
}
