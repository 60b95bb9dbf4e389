package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

const shopWorld = mcpWorld + `
---
kind: Task
metadata: {name: site}
spec:
  purpose: what a site is asked for
  resources: {names: [tickets]}
  permit:
    - {path: /api/orders, methods: [GET, HEAD], query: [page], mask: {/email: hidden}}
    - {path: /api/orders/*, methods: [PATCH], headers: {X-Env: "prod*"}}
    - {path: /api/orders/*, methods: [PATCH], approval: {scope: statement, rule: leads}}
    - {path: /live, methods: [GET], websocket: true}
    - {grpc: ["shop.Orders/*"]}
    - {path: /tools, methods: [POST], mcp: {tools: ["*"], when: 'call.name != "drop"'}}
    - {path: /tools, methods: [POST], mcp: {tools: ["get_*"]}}
  duration: 1h
---
kind: Binding
metadata: {name: site}
spec: {subjects: [{group: ops}], tasks: [site, helpdesk]}
`

func TestWhoCanOverHTTP(t *testing.T) {
	s := compiled(t, parse(t, []byte(shopWorld)))
	asked := 0
	for object, want := range map[string][]string{
		"get tickets:/api/orders":             {`site/permit[0] masked by /email: hidden (shown as "***")`},
		"GET tickets:/api/orders?page=2":      {"site/permit[0]"},
		"get tickets:/api/orders?fields=x":    nil,
		"head tickets:/api/orders":            {"site/permit[0]"},
		"get tickets:/api/orders/1":           nil,
		"patch tickets:/api/orders/1":         {"site/permit[1] with the header x-env: prod*", "site/permit[2] 1 of leads must approve each statement"},
		"delete tickets:/api/orders/1":        nil,
		"websocket tickets:/live":             {"site/permit[3]"},
		"get tickets:/live":                   nil,
		"call tickets:shop.Orders/Get":        {"site/permit[4]"},
		"call tickets:shop.Admin/Get":         nil,
		"post tickets:/mcp":                   {"helpdesk/permit[1] each message is judged by itself"},
		"get tickets:/health":                 {"helpdesk/permit[0]"},
		"tool tickets:/mcp search":            {"helpdesk/permit[1] leads may let one that has changed through; masked by what looks like email"},
		"tool tickets:/mcp refund":            {`helpdesk/permit[2] when call.arguments.amount <= 100 && subject.id == "alice"; 1 of leads must approve each statement`},
		"tool tickets:/mcp drop":              nil,
		"tool tickets:/tools drop":            {`site/permit[5] when call.name != "drop"`},
		"tool tickets:/tools get_x":           {`site/permit[5] when`, "site/permit[6]"},
		"resource tickets:/mcp docs://a/b":    {"helpdesk/permit[1]"},
		"resource tickets:/mcp docs://a/../b": nil,
		"prompt tickets:/mcp triage":          {"helpdesk/permit[1]"},
		"prompt tickets:/mcp search":          nil,
		"tool tickets:/api/orders search":     nil,
	} {
		verb, on, _ := strings.Cut(object, " ")
		x := target(t, s, verb, on)
		all, _ := s.WhoCan(x, noon)
		var got []string
		for _, a := range all {
			got = append(got, a.Right.Rule+" "+a.Right.text(nil))
		}
		ok := len(got) == len(want)
		for i := range want {
			parts := strings.SplitN(want[i], " ", 2)
			ok = ok && strings.HasPrefix(got[i], parts[0]) && (len(parts) == 1 || strings.Contains(got[i], parts[1]))
		}
		if !ok {
			t.Errorf("%s:\n got %q\nwant %q", object, got, want)
		}
		// What is listed is what is decided.
		for _, name := range []postern.TaskName{"site", "helpdesk"} {
			asked++
			d := s.Decide(Query{Grant: &postern.Grant{ID: "g", Subject: postern.Subject{Name: "a", Groups: []string{"ops"}}, Task: name, End: noon.Add(time.Hour)}, Resource: "tickets", Facts: x.Facts(), Request: Request{Time: noon}})
			listed := slices.ContainsFunc(all, func(a Access) bool { return a.Task == name })
			terms := slices.ContainsFunc(all, func(a Access) bool {
				return a.Task == name && slices.ContainsFunc(a.Right.Terms, func(s string) bool { return strings.HasPrefix(s, "when ") || strings.HasPrefix(s, "with the header") })
			})
			if can := d.Verdict != postern.VerdictDeny; can && !listed || listed && !can && !terms {
				t.Errorf("%s by %s is listed: %t, and decided: %s %s", x, name, listed, d.Verdict, d.Reason)
			}
		}
	}
	for bad, why := range map[string]string{
		"get tickets:api": "must be a path", "get tickets:/a/../b": "must be a path", "get tickets": "must be a path", "call tickets:x": "package.Service/Method", "do it tickets:/x": "", "a:b tickets:/x": "neither a method",
		"tool tickets:search": "say which server is meant", "tool tickets:/mcp": "must be a name", "tool tickets:": "say which",
	} {
		verb, on, _ := strings.Cut(bad, " ")
		if x, err := s.Target(verb, on); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s is %v, %v", bad, x, err)
		}
	}
	one := compiled(t, parse(t, []byte(mcpWorld)))
	if x := target(t, one, "tool", "tickets:search"); x.String() != "tool tickets:/mcp search" {
		t.Errorf("the only server is not meant: %s", x)
	}
	if asked == 0 {
		t.Fatal("nothing was asked")
	}
}

// TestCompareOverHTTP: a change of what requests are allowed is told.
func TestCompareOverHTTP(t *testing.T) {
	before := compiled(t, parse(t, []byte(shopWorld)))
	after := compiled(t, parse(t, []byte(strings.NewReplacer("query: [page], mask: {/email: hidden}", "query: [page]", `tools: [search, "get_*"]`, `tools: [search, "drop_*"]`, "methods: [PATCH], headers", "methods: [PUT], headers").Replace(shopWorld))))
	var got []string
	for _, c := range Compare(before, after, noon) {
		got = append(got, fmt.Sprintf("%s %s %s", c.Effect, c.Verb, c.On))
	}
	for _, want := range []string{"changed get /api/orders", "allowed tool /mcp drop_*", "denied tool /mcp get_*", "allowed put /api/orders/*", "changed patch /api/orders/*"} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
}
