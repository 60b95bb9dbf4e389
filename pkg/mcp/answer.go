package mcp

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/posterngate/postern/pkg/content"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// notices are what a server may say by itself.
var notices = map[string]bool{
	"notifications/progress": true, "notifications/message": true, "notifications/cancelled": true, "notifications/tools/list_changed": true,
	"notifications/resources/list_changed": true, "notifications/resources/updated": true, "notifications/prompts/list_changed": true,
}

// Show is what of a message from the server the client may see; nil where it is nothing:
// answers that nobody waits for, and what a server must not ask. Masks are those of what
// the server says by itself; what it says of itself is held against the memory. An error
// says that the message cannot be shown as it should be.
func (t *Talk) Show(m *Message, masks *content.Rule, memory Memory) (shown *Message, changed []Change, err error) {
	switch {
	case m.Response() && m.ID == "": // the server could not read what it was sent
		shown, err = maskError(m, masks)
		return shown, nil, err
	case m.Response():
		w, ok := t.answered(m.ID)
		if !ok {
			return nil, nil, nil
		}
		own := *m
		own.ID = w.id
		shown, changed, err = t.shown(&own, w.Terms, memory)
		if err != nil {
			return Refusal(own.ID, &postern.Refusal{Reason: "the answer cannot be shown: " + err.Error(), Hint: "ask for less, or in another form"}), nil, nil
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
	params, err := maskSaid(m.Params, masks)
	if err != nil {
		return nil, nil, err
	}
	return &Message{Method: m.Method, Params: params}, nil, nil
}

// shown is an answer on its terms, and the things of which it says something new.
func (t *Talk) shown(m *Message, terms Terms, memory Memory) (*Message, []Change, error) {
	if m.Error != nil {
		out, err := maskError(m, terms.Masks)
		return out, nil, err
	}
	if kind, says := m.Result["resultType"]; says && kind != "complete" {
		return nil, nil, errors.New("the server asks the client for something instead, or answers later, which it is not let")
	}
	result, changed, err := t.server.listed(m.Result, terms, memory)
	if introduces(terms.Method) {
		result, changed, err = t.server.introduced(m.Result, memory)
	}
	if err != nil {
		return nil, nil, err
	}
	if result, err = maskResult(result, terms.Masks); err != nil {
		return nil, nil, err
	}
	if _, says := result["cacheScope"]; says { // it is for one subject, under one task
		result = maps.Clone(result)
		result["cacheScope"] = "private"
	}
	return &Message{ID: m.ID, Result: result}, changed, nil
}

func maskError(m *Message, masks *content.Rule) (*Message, error) {
	all, err := maskSaid(map[string]any{"message": m.Error.Message, "data": m.Error.Data}, masks)
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
	"tools/list": {Tools, "name"}, "resources/list": {"resources", "uri"}, "resources/templates/list": {Templates, "uriTemplate"}, "prompts/list": {Prompts, "name"},
}

// listed leaves out of a list what the rule does not name, and what is not what it must be;
// changed are those of which nobody was told yet.
func (s *Server) listed(result map[string]any, t Terms, memory Memory) (out map[string]any, changed []Change, err error) {
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
	pinned := of.list != "resources"
	more, _ := result["nextCursor"].(string)
	r := &nodev1.PinServerRequest{List: of.list, Whole: more == ""}
	var items []map[string]any
	var texts [][]byte
	for _, v := range all {
		item, ok := v.(map[string]any)
		if !ok {
			continue
		}
		name, ok := item[of.name].(string)
		if !ok || name == "" || len(name) > maxName {
			continue
		}
		sum, text, err := hash(item)
		if err != nil {
			return nil, nil, err
		}
		items, texts, r.Said = append(items, item), append(texts, text), append(r.Said, &nodev1.Pin{Name: name, Now: sum})
	}
	var pins *nodev1.ServerPins
	if pinned {
		if pins, err = s.tell(memory, r); err != nil {
			return nil, nil, err
		}
	}
	kept := []any{}
	for i, said := range r.GetSaid() {
		if !t.List.Names(of.list, said.GetName()) {
			continue
		}
		if pinned {
			ok, news := s.shows(pins, of.list, said, texts[i], policyPin(t.List, of.list, said.GetName()))
			if changed = append(changed, news...); !ok {
				continue
			}
		}
		item := items[i]
		if of.list == Tools && !t.Masks.Empty() { // what is masked need not be of its form, and clients hold it against that
			item = maps.Clone(item)
			delete(item, "outputSchema")
		}
		kept = append(kept, item)
	}
	out = maps.Clone(result)
	out[of.list] = kept
	return out, changed, nil
}

// shows reports whether a model may be told of a thing as the server says it now, and what
// of it nobody was told yet.
func (s *Server) shows(pins *nodev1.ServerPins, list string, said *nodev1.Pin, text []byte, policy string) (bool, []Change) {
	pin, is := pinOf(pins, list, said.GetName()), written(said.GetNow())
	switch {
	case pin == nil: // more than is remembered
		return false, nil
	case want(pin, policy) == is:
		return true, nil
	}
	how := differs(pins, list, said.GetName(), policy)
	if how == "" {
		how = "it is told in two ways" // in one list, or by two nodes at once
	}
	return false, s.heard(thing{list, said.GetName()}, how, is, text)
}

// capabilities are what of a server's a client may be told, for it may use no other.
var capabilities = map[string]bool{"tools": true, "resources": true, "prompts": true, "logging": true, "completions": true}

// introduced is what a server says of itself. Its instructions to the model are pinned as a
// tool is, and left out where they have changed.
func (s *Server) introduced(result map[string]any, memory Memory) (out map[string]any, changed []Change, err error) {
	out = maps.Clone(result)
	if can, ok := result["capabilities"].(map[string]any); ok {
		can = maps.Clone(can)
		maps.DeleteFunc(can, func(name string, _ any) bool { return !capabilities[name] })
		out["capabilities"] = can
	}
	if versions, ok := result["supportedVersions"].([]any); ok {
		out["supportedVersions"] = slices.DeleteFunc(slices.Clone(versions), func(v any) bool {
			s, _ := v.(string)
			return s == "" || s > newest
		})
	}
	r := &nodev1.PinServerRequest{List: Instructions, Whole: true}
	var text []byte
	if told, has := result["instructions"]; has {
		var sum []byte
		if sum, text, err = hash(map[string]any{"instructions": told}); err != nil {
			return nil, nil, err
		}
		r.Said = []*nodev1.Pin{{Name: Introduction, Now: sum}}
	}
	pins, err := s.tell(memory, r)
	if err != nil || len(r.GetSaid()) == 0 {
		return out, nil, err
	}
	shown, changed := s.shows(pins, Instructions, r.GetSaid()[0], text, "")
	if !shown {
		delete(out, "instructions")
	}
	return out, changed, nil
}
