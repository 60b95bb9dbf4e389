package policy

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// http judges one request.
func (j *judge) http(f *http.Facts) postern.Decision {
	t := j.task
	switch {
	case f == nil:
		return j.unclear("")
	case f.Unknown != "":
		return j.unclear(f.Unknown)
	}
	what := f.Method + " " + f.Path
	if f.Upgrade != "" {
		what = f.Upgrade + " at " + f.Path
	}
	j.request = f
	if no := j.unmet(t.when, nil, t.rules.when); no != nil {
		return j.deny(no)
	}
	no := &refusal{rule: t.rules.permit, reason: fmt.Sprintf("%s does not allow %s", t.title, what), detail: t.allowed, hint: HintTasks}
	for _, p := range t.requests {
		if !p.request.fits(f) {
			continue
		}
		if len(p.request.headers) > 0 {
			j.d.Deps.Beside = true
		}
		if not := cmp.Or(p.request.objection(f), t.beyond(p, f)); not != "" {
			no = &refusal{rule: p.rule, reason: fmt.Sprintf("%s does not allow %s", t.title, not), detail: t.allowed, hint: HintTasks}
			continue
		}
		if unmet := j.unmet(p.when, nil, p.ruleWhen); unmet != nil {
			if len(j.d.Missing) > 0 {
				return j.deny(unmet) // for now: it is judged again once it is known
			}
			no = unmet
			continue
		}
		j.by(p)
		if f.Upgrade != "" {
			j.d.Level = postern.LevelNone // what is said in it nobody judges
		}
		if p.mcp != nil { // what is allowed and asked is so of each message
			j.messages(f)
			return j.settle()
		}
		j.contentMasks(p.content)
		for _, a := range [...]*postern.Approval{j.query.Grant.Approval, t.approval, p.approval} {
			if a != nil && a.Scope == postern.ScopeStatement && !j.ask(a, p.ruleApproval) {
				return j.d
			}
		}
		return j.settle()
	}
	return j.deny(no)
}

// beyond says that a request which p allows copies or moves to where p does not allow the same,
// or nothing. What is at the destination is judged by the same permit or not at all, and by a
// condition on paths not at all: it reads one of them.
func (t *task) beyond(p *permit, f *http.Facts) string {
	if _, named := p.request.headers["destination"]; named || f.Destination == "" {
		return ""
	}
	at := *f
	at.Path = f.Destination
	first := slices.IndexFunc(t.requests, func(q *permit) bool { return q.request.fits(&at) })
	onPath := func(c *condition) bool { return c != nil && c.reads["http.path"] }
	if first < 0 || t.requests[first] != p || onPath(p.when) || onPath(t.when) {
		return fmt.Sprintf("%s to %s with what is at %s", f.Method, f.Destination, f.Path)
	}
	return ""
}

// unread says what of a request's body must be known before a condition is asked, or what
// speaks against asking it: a name that differs from one that the condition reads in its
// case alone, which loose servers take for it.
func (j *judge) unread(c *condition, no *refusal) *refusal {
	if !c.reads[requestBody] {
		return nil
	}
	j.d.Deps.Beside = true
	f := j.request
	if f == nil {
		return no
	}
	if f.Body == nil {
		if !slices.Contains(j.d.Missing, postern.FactBody) {
			j.d.Missing = append(j.d.Missing, postern.FactBody)
		}
		no.reason = j.task.title + " needs to see the body first"
		return no
	}
	for name := range f.Body.Names {
		if exact, read := c.names[http.Fold(name)]; read && exact != name {
			no.detail += fmt.Sprintf("; the body says %q where the rule reads %q", name, exact)
			return no
		}
	}
	return nil
}
