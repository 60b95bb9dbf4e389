package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
)

// The verbs of rights over HTTP beside the methods.
const (
	verbCall      = "call" // of gRPC
	verbWebSocket = "websocket"
)

// messageVerbs are those of MCP, with the method of the plainest message of each.
var messageVerbs = map[string]struct {
	kind   mcp.Kind
	method string
}{"tool": {mcp.Tool, "tools/call"}, "resource": {mcp.Resource, "resources/read"}, "prompt": {mcp.Prompt, "prompts/get"}}

// requestRights are what a permit for requests allows.
func requestRights(p *permit, add func(verb, on, mask string)) {
	r, mask := p.request, contentText(p.content)
	switch {
	case len(r.grpc) > 0:
		for _, call := range r.grpc {
			add(verbCall, call, mask)
		}
		return
	case r.websocket:
		add(verbWebSocket, r.path, "")
		return
	}
	if p.mcp != nil { // what is masked are messages
		rule := &p.mcp.rule
		for verb, names := range map[string][]string{"tool": rule.Tools, "resource": rule.Resources, "prompt": rule.Prompts} {
			for _, name := range names {
				add(verb, r.path+" "+name, mask)
			}
		}
		mask = ""
	}
	for _, m := range r.methods {
		add(strings.ToLower(m), r.path, mask)
	}
}

// requestTerms adds what else must be so for a request or message.
func (p *permit) requestTerms(verb string, add func(is bool, format string, args ...any)) {
	for _, name := range slices.Sorted(maps.Keys(p.request.headers)) {
		add(true, "with the header %s: %s", name, p.request.headers[name])
	}
	if p.mcp == nil {
		return
	}
	_, message := messageVerbs[verb]
	add(!message, "each message is judged by itself")
	add(message && p.mcp.when != nil, "when %s", conditionText(p.mcp.when))
	if verb == "tool" && p.mcp.review != nil {
		add(true, "%s may let one that has changed through", p.mcp.review.Rule)
	}
}

// carries reports whether what is done only carries messages, of which each is judged.
func (p *permit) carries(verb string) bool {
	_, message := messageVerbs[verb]
	return p != nil && p.mcp != nil && !message
}

// always reports whether what fits the permit is allowed by it whatever else there is, so
// that no permit after it is asked.
func (p *permit) always() bool {
	return p == nil || p.when == nil && (p.request == nil || len(p.request.headers) == 0) && (p.mcp == nil || p.mcp.when == nil)
}

// contentText is what is masked in bodies, so that a change of it shows.
func contentText(rule *postern.ContentRule) string {
	if rule == nil {
		return ""
	}
	var out []string
	for _, f := range rule.Fields {
		out = append(out, f.Path+": "+maskText(f.Mask))
	}
	for _, d := range rule.Detect {
		out = append(out, "what looks like "+d.Kind+": "+maskText(d.Mask))
	}
	return strings.Join(out, ", ")
}

// coversRequest reports whether a right is to a request or message.
func (r *Right) coversRequest(t *Target) bool {
	p := r.permit
	if r.Verb != t.Verb || t.request == nil || !p.request.fits(t.request) || p.request.parameter(t.request) != "" {
		return false
	}
	if t.call == nil {
		return true
	}
	pattern := strings.TrimPrefix(r.On, p.request.path+" ")
	return p.mcp != nil && p.mcp.names(t.call) && like(pattern, t.call.Name)
}

// web reads a target of a service: a method and a path with what is asked, call and
// package.Service/Method, websocket and a path, or of a server of MCP tool, resource or
// prompt and a name, after the server's path where the resource has more than one.
func (t *Target) web(s *Snapshot) error {
	if verb, is := messageVerbs[t.Verb]; is {
		return t.message(s, verb.kind, verb.method)
	}
	f := &http.Facts{Method: strings.ToUpper(t.Verb)}
	switch t.Verb {
	case verbCall:
		if service, method, ok := strings.Cut(t.On, "/"); !ok || service == "" || method == "" || strings.Contains(method, "/") {
			return fmt.Errorf("%q must be package.Service/Method", t.On)
		}
		f.Method, f.ContentType, f.Path = "POST", "application/grpc", "/"+t.On
		t.request = f
		return nil
	case verbWebSocket:
		f.Method, f.Upgrade = "GET", verbWebSocket
	default:
		if !headerName(f.Method) {
			return fmt.Errorf("verb %q is neither a method nor call, websocket, tool, resource or prompt", t.Verb)
		}
	}
	target, err := http.ParseTarget(t.On)
	if err != nil {
		return fmt.Errorf("%q must be a path, with a query or without: %w", t.On, err)
	}
	f.Path, f.Query = target.Path, target.Query
	t.On, t.request = target.String(), f
	return nil
}

func (t *Target) message(s *Snapshot, kind mcp.Kind, method string) error {
	path, name, ok := strings.Cut(t.On, " ")
	if !strings.HasPrefix(path, "/") {
		servers := s.servers(t.Resource)
		if len(servers) != 1 {
			return fmt.Errorf("say which server is meant: %s RESOURCE:/PATH NAME; tasks name these paths of %s: %s", t.Verb, t.Resource, some(servers))
		}
		path, name, ok = servers[0], t.On, t.On != ""
	}
	target, err := http.ParseTarget(path)
	if err != nil || !ok || name == "" {
		return fmt.Errorf("%q must be a name, or the path of a server and a name", t.On)
	}
	t.request = &http.Facts{Method: "POST", Path: target.Path, ContentType: "application/json"}
	t.call = &mcp.Facts{Kind: kind, Method: method, Name: name, Request: t.request}
	t.On = target.String() + " " + name
	return nil
}

// servers are the paths of a resource that tasks name as servers of MCP.
func (s *Snapshot) servers(r postern.ResourceName) []string {
	paths := map[string]bool{}
	for _, t := range s.tasks {
		if t.reach[r] == nil {
			continue
		}
		for _, p := range t.requests {
			if p.mcp != nil {
				paths[p.request.path] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(paths))
}
