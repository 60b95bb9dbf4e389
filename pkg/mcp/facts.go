package mcp

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/posterngate/postern/pkg/content"
	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// A Kind is what a message is about.
type Kind string

// The kinds. The zero Kind is allowed by nothing.
const (
	Life     Kind = "session"  // the session itself: initialize, ping and the like
	Tool     Kind = "tool"     // calls a tool
	Resource Kind = "resource" // reads a resource
	Prompt   Kind = "prompt"   // gets a prompt
	List     Kind = "list"     // lists tools, resources or prompts
)

// Facts are what one message of a client asks. They are not changed once they are made.
type Facts struct {
	Kind   Kind
	Method string
	// Request is the request that carries it.
	Request *http.Facts
	// Name is the tool or prompt, or the URI of the resource.
	Name string
	// Arguments are those of a call; nil where there are none.
	Arguments map[string]any
	// Beside is what else the message says, without the name and where progress is told.
	Beside map[string]any
	// Changed says what of the server is not what it was when it was pinned, and how, where
	// the message may not go on before somebody has looked at that; Now is what the server
	// says of it (Server.Changed).
	Changed, Now string
	// Unknown says what was not understood; nothing is allowed then.
	Unknown string
}

// Effect is the worst that the message may do. Of tools nobody knows.
func (f *Facts) Effect() postern.Effect {
	if f == nil || f.Unknown != "" {
		return postern.EffectUnknown
	}
	switch f.Kind {
	case Life:
		return postern.EffectNone
	case List, Resource, Prompt:
		return postern.EffectRead
	case Tool:
		return postern.EffectWrite
	}
	return postern.EffectUnknown
}

// methods are all that a client may send.
var methods = map[string]struct {
	kind    Kind
	name    string // of the parameter that names what it is about
	request bool
}{
	"initialize":                       {Life, "", true},
	"server/discover":                  {Life, "", true},
	"ping":                             {Life, "", true},
	"logging/setLevel":                 {Life, "", true},
	"notifications/initialized":        {Life, "", false},
	"notifications/cancelled":          {Life, "", false},
	"notifications/progress":           {Life, "", false},
	"notifications/roots/list_changed": {Life, "", false},
	"tools/list":                       {List, "", true},
	"resources/list":                   {List, "", true},
	"resources/templates/list":         {List, "", true},
	"prompts/list":                     {List, "", true},
	"tools/call":                       {Tool, "name", true},
	"prompts/get":                      {Prompt, "name", true},
	"resources/read":                   {Resource, "uri", true},
	"resources/subscribe":              {Resource, "uri", true},
	"resources/unsubscribe":            {Resource, "uri", true},
	"completion/complete":              {"", "ref", true},
}

// members are the parameters of what people are asked about and conditions read: there is
// no other, which they would not see.
var members = map[string][]string{
	"tools/call":     {"name", "arguments", "_meta"},
	"prompts/get":    {"name", "arguments", "_meta"},
	"resources/read": {"uri", "_meta"},
}

// maxName is the longest name of a tool or prompt, and URI.
const maxName = 2048

// Facts are what the message asks, which a request carries.
func (m *Message) Facts(r *http.Facts) *Facts {
	f := &Facts{Method: m.Method, Request: r}
	if m.Response() {
		f.Kind, f.Method = Life, "response"
		return f
	}
	method, known := methods[m.Method]
	switch {
	case !known:
		f.Unknown = fmt.Sprintf("the method %q is not known", m.Method)
		return f
	case method.request != (m.ID != ""):
		f.Unknown = fmt.Sprintf("the method %q has an id where it must not, or none where it must", m.Method)
		return f
	}
	f.Kind = method.kind
	params, field := m.Params, method.name
	for name := range params {
		if allowed := members[m.Method]; allowed != nil && !slices.Contains(allowed, name) {
			f.Unknown = fmt.Sprintf("%s has a parameter %q, which is not known", m.Method, name)
			return f
		}
	}
	if field == "ref" {
		params, _ = m.Params["ref"].(map[string]any)
		switch params["type"] {
		case "ref/prompt":
			f.Kind, field = Prompt, "name"
		case "ref/resource":
			f.Kind, field = Resource, "uri"
		}
	}
	if field != "" {
		name, ok := params[field].(string)
		if !ok || name == "" || len(name) > maxName {
			f.Unknown = fmt.Sprintf("%s names nothing", m.Method)
		}
		f.Name = name
	}
	f.Beside = beside(m.Params, method.name)
	if f.Kind != Tool && f.Kind != Prompt {
		return f
	}
	if v, has := params["arguments"]; has {
		args, ok := v.(map[string]any)
		if !ok {
			f.Unknown = fmt.Sprintf("the arguments of %s are no object", m.Method)
		}
		f.Arguments = args
	}
	return f
}

// Text is the message as people read it, such as "tools/call search at /mcp". Two that
// differ in what they are about have two texts.
func (f *Facts) Text() string {
	text := f.Method
	if f.Name != "" {
		name := f.Name
		if strings.ContainsFunc(name, func(r rune) bool { return r == '"' || r == ' ' || !strconv.IsPrint(r) }) {
			name = strconv.Quote(name)
		}
		text += " " + name
	}
	if f.Request != nil {
		text += " at " + f.Request.Path
	}
	return text
}

// introduces reports whether a server is asked by a method what it is.
func introduces(method string) bool { return method == "initialize" || method == "server/discover" }

// beside are the parameters but the name, the arguments, where progress is told, which is
// another one each time, and who the client is.
func beside(params map[string]any, name string) map[string]any {
	out := maps.Clone(params)
	delete(out, "arguments")
	if name != "ref" {
		delete(out, name)
	}
	if meta, ok := out["_meta"].(map[string]any); ok {
		meta = maps.Clone(meta)
		for _, name := range []string{"progressToken", versionKey, clientKey, capabilitiesKey} {
			delete(meta, name)
		}
		if len(meta) == 0 {
			delete(out, "_meta")
		} else {
			out["_meta"] = meta
		}
	}
	return out
}

// Asked is what people are asked about beside the text, each as JSON in its one form: the
// arguments, what is said beside them, and of what has changed what it is now. Where nobody
// is asked it is recorded with masks, whose paths begin in the arguments; nil masks nothing.
func (f *Facts) Asked(masks *content.Rule) ([][]byte, error) {
	var out [][]byte
	for _, o := range []map[string]any{f.Arguments, f.Beside} {
		if len(o) == 0 {
			continue
		}
		o, err := maskObject(o, masks)
		if err != nil {
			return nil, err
		}
		text, err := encode(o)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	if f.Changed != "" {
		out = append(out, []byte(strings.TrimSpace(f.Changed+"\n"+f.Now)))
	}
	return out, nil
}

// Values are the arguments as conditions read them: numbers as int64, or float64 where
// they have a fraction or exponent. False where one is not exact as either.
func (f *Facts) Values() (map[string]any, bool) {
	v, ok := plain(f.Arguments)
	o, _ := v.(map[string]any)
	return o, ok
}

func plain(v any) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, v := range v {
			p, ok := plain(v)
			if !ok {
				return nil, false
			}
			out[name] = p
		}
		return out, true
	case []any:
		out := make([]any, len(v))
		for i, v := range v {
			p, ok := plain(v)
			if !ok {
				return nil, false
			}
			out[i] = p
		}
		return out, true
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			n, err := v.Float64()
			return n, err == nil
		}
		n, err := v.Int64()
		return n, err == nil
	}
	return v, true
}
