package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
)

const mcpWorld = `
kind: Resource
metadata: {name: tickets}
spec: {protocol: http, endpoint: {host: tickets.internal, port: 8080, http: {auth: {scheme: none}}}}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}]}
---
kind: Mask
metadata: {name: hidden}
spec: {method: redact, value: "***"}
---
kind: Task
metadata: {name: helpdesk}
spec:
  purpose: let an agent help with tickets
  resources: {names: [tickets]}
  permit:
    - {path: /health, methods: [GET]}
    - path: /mcp
      methods: [POST, GET, DELETE]
      detect: {email: hidden}
      mcp: {tools: [search, "get_*"], resources: ["docs://*"], prompts: [triage], pins: {search: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}, review: leads}
    - path: /mcp
      methods: [POST]
      approval: {scope: statement, rule: leads}
      mcp: {tools: [refund], when: 'call.arguments.amount <= 100 && subject.id == "alice"'}
  duration: 1h
`

func TestMCP(t *testing.T) {
	s, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(mcpWorld)))
	if len(rejected) > 0 {
		t.Fatalf("%+v", rejected)
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	decide := func(f Facts) postern.Decision {
		return s.Decide(Query{
			Grant:    &postern.Grant{ID: "g", Subject: postern.Subject{Name: "alice"}, Task: "helpdesk", Start: now, End: now.Add(time.Hour)},
			Resource: "tickets", Facts: f, Request: Request{Time: now},
		})
	}
	post := &http.Facts{Method: "POST", Path: "/mcp", ContentType: "application/json"}
	// The request that carries messages is allowed, and has each of them judged.
	d := decide(post)
	if d.Verdict != postern.VerdictAllow || len(d.Obligations) != 2 || d.Obligations[0].Content == nil || d.Obligations[1].MCP == nil || !slices.Equal(d.Obligations[1].MCP.Tools, []string{"search", "get_*", "refund"}) || d.Obligations[1].MCP.Pins["search"] == "" {
		t.Fatalf("%+v", d)
	}
	if d := decide(&http.Facts{Method: "GET", Path: "/health"}); d.Verdict != postern.VerdictAllow || len(d.Obligations) != 0 {
		t.Errorf("%+v", d)
	}
	message := func(text string) *mcp.Facts {
		m, _, err := mcp.Parse([]byte(`{"jsonrpc":"2.0",` + text + `}`))
		if err != nil {
			t.Fatal(err)
		}
		return m[0].Facts(post)
	}
	call := func(tool, args string) *mcp.Facts {
		return message(`"id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":` + args + `}`)
	}
	changed := call("search", "{}")
	changed.Changed = "it was a and is b"
	changedRefund := call("refund", `{"amount":5}`)
	changedRefund.Changed = "it was a and is b"
	begun, templates, triage := message(`"id":1,"method":"initialize","params":{}`), message(`"id":1,"method":"resources/templates/list"`), message(`"id":1,"method":"prompts/get","params":{"name":"triage"}`)
	begun.Changed, templates.Changed, triage.Changed = "it was a and is b", "it was a and is b", "it was a and is b"
	elsewhere := call("search", "{}")
	elsewhere.Request = &http.Facts{Method: "POST", Path: "/other"}
	for _, c := range []struct {
		facts *mcp.Facts
		want  string
	}{
		{message(`"id":1,"method":"initialize","params":{}`), "allow"},
		{message(`"id":1,"method":"tools/list"`), "allow lists"},
		{message(`"method":"notifications/initialized"`), "allow"},
		{message(`"id":1,"result":{}`), "allow"},
		{message(`"id":1,"method":"tools/other"`), "deny could not be understood"},
		{call("search", `{"q":"x"}`), "allow masked"},
		{call("get_ticket", `{}`), "allow masked"},
		{call("delete_ticket", `{}`), `deny does not allow the tool "delete_ticket"`},
		{call("SEARCH", `{}`), `deny does not allow the tool "SEARCH"`},
		{call("refund", `{"amount":5}`), "hold leads"},
		{call("refund", `{"amount":100}`), "hold leads"},
		{call("refund", `{"amount":100.5}`), "deny here and now"},
		{call("refund", `{"amount":"5"}`), "deny here and now"},
		{call("refund", `{"amount":99999999999999999999}`), "deny here and now"},
		{call("refund", `{}`), "deny here and now"},
		{changed, "hold leads"},
		{changedRefund, "deny held back"},
		{begun, "hold leads"}, // the first permit for it has a review
		{templates, "hold leads"},
		{triage, "hold leads"},
		{message(`"id":1,"method":"resources/read","params":{"uri":"docs://a/b"}`), "allow masked"},
		{message(`"id":1,"method":"resources/read","params":{"uri":"docs://a/../b"}`), "deny does not allow"},
		{message(`"id":1,"method":"resources/read","params":{"uri":"docs://a/%2e%2e/b"}`), "deny does not allow"},
		{message(`"id":1,"method":"resources/read","params":{"uri":"docs://a/.\t./b"}`), "deny does not allow"}, // as the parsers of browsers and Node read ..
		{message(`"id":1,"method":"resources/read","params":{"uri":"docs://a/b "}`), "deny does not allow"},
		{message(`"id":1,"method":"resources/read","params":{"uri":"file:///etc/passwd"}`), "deny does not allow"},
		{message(`"id":1,"method":"prompts/get","params":{"name":"triage"}`), "allow masked"},
		{message(`"id":1,"method":"prompts/get","params":{"name":"search"}`), "deny does not allow"},
		{elsewhere, "deny does not allow"},
		{&mcp.Facts{Kind: mcp.Tool, Method: "tools/call", Name: "search"}, "deny could not be understood"},
		{nil, "deny could not be understood"},
		{&mcp.Facts{Request: post}, "deny does not allow"},
	} {
		d := decide(c.facts)
		got := d.Verdict.String() + " " + d.Reason
		for _, o := range d.Obligations {
			if o.Content != nil {
				got += "masked"
			}
			if o.MCP != nil {
				got += "lists"
			}
		}
		if d.Approval != nil {
			got += d.Approval.Rule
		}
		verdict, rest, _ := strings.Cut(c.want, " ")
		if d.Verdict.String() != verdict || !strings.Contains(got, rest) {
			t.Errorf("%+v: %s, want %s", c.facts, got, c.want)
		}
		if c.facts != nil && c.facts.Kind == mcp.Tool && d.Verdict == postern.VerdictAllow && d.Deps.Cacheable() {
			t.Errorf("%+v: the verdict is kept for other arguments", c.facts)
		}
	}
}

func TestMCPIsChecked(t *testing.T) {
	const good = `mcp: {tools: [refund], when: 'call.arguments.amount <= 100 && subject.id == "alice"'}`
	for bad, want := range map[string]string{
		`mcp: {}`:                      "must name tools, resources or prompts",
		`mcp: {tools: [""]}`:           "must be a name",
		`mcp: {tools: [a, a]}`:         "stands twice",
		`mcp: {tools: [a], when: 'x'}`: "undeclared reference",
		`mcp: {tools: [a], pins: {b: "sha256:0000000000000000000000000000000000000000000000000000000000000000"}}`: "would never be used",
		`mcp: {tools: [a], pins: {a: x}}`:                        "64 hexadecimal digits",
		`mcp: {tools: [a], review: nobody}`:                      "approvalrule",
		good + "\n      mask: {/structuredContent/mail: hidden}": "begin in what a tool returns: /mail",
		good + "\n      query: [x]":                              "without query",
		good + "\n      headers: {\"a b\": x}":                   "name of a header",
		"channel: exec\n      " + good:                           "just one of",
	} {
		world := strings.Replace(mcpWorld, good, bad, 1)
		if _, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(world))); len(rejected) != 1 || !strings.Contains(rejected[0].Reason, want) {
			t.Errorf("%s: %+v, want %s", bad, rejected, want)
		}
	}
	world := strings.Replace(mcpWorld, "methods: [POST]", "methods: [POST, PUT]", 1)
	if _, rejected := Compile(postern.Version{Epoch: "e", Revision: 1}, parse(t, []byte(world))); len(rejected) != 1 || !strings.Contains(rejected[0].Reason, "POST carries") {
		t.Errorf("%+v", rejected)
	}
	if got := Referrers("approvalrule", "leads", parse(t, []byte(mcpWorld))); len(got) != 1 {
		t.Error(got)
	}
}
