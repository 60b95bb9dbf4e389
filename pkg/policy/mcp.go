package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
)

// mcpPermit is what a permit allows of an MCP server.
type mcpPermit struct {
	rule     postern.MCPRule
	when     *condition
	ruleWhen string
	review   *postern.Approval // nil refuses what uses a server that has changed
	ruleMCP  string
}

var pin = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

func (c *checker) mcpPermit(at string, p *typesv1.Permit, out *permit) {
	m := p.GetMcp()
	if m == nil {
		return
	}
	at += ".mcp"
	o := &mcpPermit{
		rule:     postern.MCPRule{Tools: slices.Clone(m.GetTools()), Resources: slices.Clone(m.GetResources()), Prompts: slices.Clone(m.GetPrompts()), Pins: maps.Clone(m.GetPins())},
		when:     c.condition(at+".when", m.GetWhen(), onCall),
		ruleWhen: out.rule + "/mcp/when", ruleMCP: out.rule + "/mcp",
	}
	out.mcp = o
	for field, names := range map[string][]string{"tools": m.GetTools(), "resources": m.GetResources(), "prompts": m.GetPrompts()} {
		for i, name := range names {
			if err := checkText(name, MaxText); err != nil || name == "" {
				c.fail(fmt.Sprintf("%s.%s[%d]", at, field, i), "must be a name, in which * stands for any characters")
			}
		}
		c.unique(at+"."+field, names)
	}
	if len(m.GetTools())+len(m.GetResources())+len(m.GetPrompts()) == 0 {
		c.fail(at, "must name tools, resources or prompts")
	}
	if !slices.Contains(p.GetMethods(), "POST") || slices.ContainsFunc(p.GetMethods(), func(m string) bool { return m != "POST" && m != "GET" && m != "DELETE" }) {
		c.fail(at, "goes with the methods POST, GET and DELETE, of which POST carries the messages")
	}
	for _, where := range slices.Sorted(maps.Keys(p.GetMask())) {
		if strings.HasPrefix(where, "/structuredContent/") {
			c.fail(at+".mask."+where, "paths begin in what a tool returns: %s", strings.TrimPrefix(where, "/structuredContent"))
		}
	}
	if p.GetWebsocket() || len(p.GetQuery()) > 0 || p.GetPath() == "" {
		c.fail(at, "goes with a path, and without query and websocket")
	}
	for _, tool := range slices.Sorted(maps.Keys(m.GetPins())) {
		if !o.rule.Names("tools", tool) {
			c.fail(at+".pins", "no tool %q is allowed, so that its pin would never be used", tool)
		}
		if !pin.MatchString(m.GetPins()[tool]) {
			c.fail(at+".pins", "the pin of %q must be sha256: and 64 hexadecimal digits", tool)
		}
	}
	if r := m.GetReview(); r != "" {
		o.review = &postern.Approval{Scope: postern.ScopeStatement, Rule: r}
		c.oneQuestion(at+".review", out.approval, o.review)
	}
}

// Reviews are the rules by which people may let be what has changed of a server of MCP at
// a path, under a task.
func (s *Snapshot) Reviews(t postern.TaskName, path string) (rules []string) {
	c, ok := s.tasks[t]
	if !ok {
		return nil
	}
	for _, p := range c.requests {
		if p.mcp != nil && p.mcp.review != nil && p.request.fits(&http.Facts{Method: "POST", Path: path}) {
			rules = append(rules, p.mcp.review.Rule)
		}
	}
	return rules
}

// listed are the names in a list that a kind of message is about.
var listed = map[mcp.Kind]string{mcp.Tool: "tools", mcp.Resource: "resources", mcp.Prompt: "prompts"}

// messages adds the duty to have each message judged that a request carries, with what
// all permits for it allow together. What a server says without being asked has the masks
// of all of them.
func (j *judge) messages(f *http.Facts) {
	all := &postern.MCPRule{Pins: map[string]string{}}
	for _, p := range j.task.requests {
		if p.mcp == nil || !p.request.fits(f) || p.request.objection(f) != "" {
			continue
		}
		j.contentMasks(p.content)
		all.Tools = append(all.Tools, p.mcp.rule.Tools...)
		all.Resources = append(all.Resources, p.mcp.rule.Resources...)
		all.Prompts = append(all.Prompts, p.mcp.rule.Prompts...)
		for tool, hash := range p.mcp.rule.Pins {
			if all.Pins[tool] == "" {
				all.Pins[tool] = hash
			}
		}
	}
	j.d.Obligations = append(j.d.Obligations, postern.Obligation{MCP: all})
}

// mcp judges one message that a request carries.
func (j *judge) mcp(f *mcp.Facts) postern.Decision {
	t := j.task
	switch {
	case f == nil || f.Request == nil:
		return j.unclear("")
	case f.Unknown != "":
		return j.unclear(f.Unknown)
	}
	j.request, j.call = f.Request, f
	if no := j.unmet(t.when, nil, t.rules.when); no != nil {
		return j.deny(no)
	}
	what := f.Method
	if f.Name != "" {
		what = fmt.Sprintf("the %s %q", f.Kind, f.Name)
	}
	no := &refusal{rule: t.rules.permit, reason: fmt.Sprintf("%s does not allow %s", t.title, what), detail: j.offered(f), hint: HintTasks}
	for _, p := range t.requests {
		if p.mcp == nil || !p.request.fits(f.Request) || !p.mcp.names(f) {
			continue
		}
		if len(p.request.headers) > 0 {
			j.d.Deps.Beside = true
		}
		if not := p.request.objection(f.Request); not != "" {
			no = &refusal{rule: p.rule, reason: fmt.Sprintf("%s does not allow %s", t.title, not), detail: t.allowed, hint: HintTasks}
			continue
		}
		unmet := j.unmet(p.when, nil, p.ruleWhen)
		if unmet == nil && listed[f.Kind] != "" {
			unmet = j.unmet(p.mcp.when, nil, p.mcp.ruleWhen)
		}
		if unmet != nil {
			if len(j.d.Missing) > 0 {
				return j.deny(unmet) // for now: it is judged again once it is known
			}
			no = unmet
			continue
		}
		j.by(p)
		if !j.messageOf(p, f) {
			return j.d
		}
		return j.settle()
	}
	return j.deny(no)
}

// offered says what of a kind the task names.
func (j *judge) offered(f *mcp.Facts) string {
	list := listed[f.Kind]
	if list == "" {
		return j.task.allowed
	}
	var names []string
	for _, p := range j.task.requests {
		if p.mcp == nil || !p.request.fits(f.Request) {
			continue
		}
		names = append(names, map[string][]string{"tools": p.mcp.rule.Tools, "resources": p.mcp.rule.Resources, "prompts": p.mcp.rule.Prompts}[list]...)
	}
	if len(names) == 0 {
		return "allowed: no " + list
	}
	return "allowed: the " + list + " " + some(names)
}

// messageOf adds what a permit asks for a message that it allows. It is false once the
// decision is a denial.
func (j *judge) messageOf(p *permit, f *mcp.Facts) bool {
	j.contentMasks(p.content)
	asks := listed[f.Kind] != ""
	if f.Kind == mcp.List {
		j.messages(f.Request)
	}
	if asks || f.Changed != "" {
		j.d.Deps.Beside = true // arguments, and whether something has changed
	}
	switch {
	case f.Changed == "":
	case p.mcp.review != nil:
		if !j.ask(p.mcp.review, p.mcp.ruleMCP) {
			return false
		}
	case asks: // of the rest, what has changed is left out of the answer
		j.deny(&refusal{
			rule: p.mcp.ruleMCP, reason: "the server is not known to be what was pinned, and is held back until somebody has looked at it", detail: f.Changed,
			hint: "ask the owner of the task, who may change its pins",
		})
		return false
	}
	if !asks {
		return true
	}
	for _, a := range [...]*postern.Approval{j.query.Grant.Approval, j.task.approval, p.approval} {
		if a != nil && a.Scope == postern.ScopeStatement && !j.ask(a, p.ruleApproval) {
			return false
		}
	}
	return true
}

// names reports whether the permit is for what a message is about.
func (m *mcpPermit) names(f *mcp.Facts) bool {
	list := listed[f.Kind]
	if list == "" {
		return f.Kind == mcp.Life || f.Kind == mcp.List
	}
	if f.Kind == mcp.Resource && unclearURI(f.Name) {
		return slices.Contains(m.rule.Resources, f.Name) // just this one
	}
	return m.rule.Names(list, f.Name)
}

// unclearURI reports whether servers may differ in what a URI names, so that no pattern
// stands for it.
func unclearURI(uri string) bool {
	lower := strings.ToLower(uri)
	blank := func(r rune) bool { return r <= ' ' || r == 0x7f } // which many take out before they read the rest
	return climbs(uri) || strings.ContainsFunc(uri, blank) || slices.ContainsFunc([]string{"%2e", "%2f", "%5c", "%25", "%00", "\\", "..;"}, func(s string) bool { return strings.Contains(lower, s) })
}
