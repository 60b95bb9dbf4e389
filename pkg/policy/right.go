package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/ssh"
)

// A Right is one thing that a task allows at a resource, and on what terms.
type Right struct {
	// Verb is what is done: select, insert, update, delete or truncate; a DDL command in
	// lower case; call; a verb of ssh, or guard; a method of HTTP in lower case, websocket,
	// or tool, resource or prompt of MCP; or anything.
	Verb string
	// On is what it is done to: schema.table, a schema, or a function; of SSH a command, a
	// pattern of paths, or host:port; of HTTP a pattern of paths, or package.Service/Method,
	// of MCP the server's path and a pattern of names. Empty is the resource itself.
	On     string
	Column string // of On; empty where the verb has none
	Rule   string
	Mask   string   // how the column is shown; empty for as it is
	Terms  []string // what else must be so, for people; none is at once
	permit *permit  // nil for call
}

// Anything is the verb of a permit without restriction.
const Anything = "anything"

// Rights lists all that a task allows at a resource, in order of its permits and of what
// they list; false where the task does not reach it. Two permits may allow the same thing
// on other terms. What every task allows, catalogues and settings, is not among them.
func (s *Snapshot) Rights(name postern.TaskName, r postern.ResourceName) ([]Right, bool) {
	t := s.tasks[name]
	if t == nil || t.reach[r] == nil {
		return nil, false
	}
	return s.rights(t), true
}

func (s *Snapshot) rights(t *task) []Right {
	var out []Right
	for _, p := range t.list() {
		out = append(out, s.rightsOf(t, p)...)
	}
	if t.builtin && t.protocol == postern.Postgres {
		out = append(out, Right{Verb: "call", On: "built-in functions without side effects", Rule: t.rules.functions})
	}
	for _, f := range slices.SortedFunc(maps.Keys(t.functions), func(a, b sql.Name) int { return strings.Compare(a.String(), b.String()) }) {
		out = append(out, Right{Verb: "call", On: f.String(), Rule: t.rules.functions, Terms: s.terms(t, nil, "")})
	}
	return out
}

// list is every permit of the task, in order.
func (t *task) list() []*permit {
	if t.unrestricted != nil {
		return []*permit{t.unrestricted}
	}
	var out []*permit
	for _, permits := range t.tables {
		out = append(out, permits.all()...)
	}
	out = slices.Concat(out, t.commands, t.channels, t.requests)
	slices.SortFunc(out, func(a, b *permit) int { return a.index - b.index })
	return out
}

func (s *Snapshot) rightsOf(t *task, p *permit) (out []Right) {
	add := func(verb, on, column string) {
		r := Right{Verb: verb, On: on, Column: column, Rule: p.rule, Terms: s.terms(t, p, verb), permit: p}
		if m := p.masks[column]; m != nil && verb == string(sql.Select) {
			r.Mask = maskText(m)
		}
		out = append(out, r)
	}
	each := func(verb, on string, columns []string) {
		for _, c := range columns {
			add(verb, on, c)
		}
	}
	switch {
	case p == t.unrestricted:
		add(Anything, "", "")
	case p.channel != nil:
		ch := p.channel
		for _, v := range ch.verbs {
			switch {
			case v == ssh.Exec:
				_, what := ch.summary("exec")
				add("exec", what, "")
			case v == ssh.Shell && ch.guard:
				add("guard", "", "")
			case v == ssh.Shell:
				add("shell", "", "")
			default:
				for _, on := range append(slices.Clone(ch.paths), slices.Sorted(maps.Keys(ch.destinations))...) {
					add(string(v), on, "")
				}
			}
		}
	case p.request != nil:
		requestRights(p, func(verb, on, mask string) {
			add(verb, on, "")
			out[len(out)-1].Mask = mask
		})
	case len(p.commands) > 0:
		for _, c := range p.commands {
			for _, schema := range slices.Sorted(maps.Keys(p.schemas)) {
				add(strings.ToLower(c), schema, "")
			}
		}
	default:
		for _, v := range p.verbs {
			switch sql.Verb(v) {
			case sql.Select:
				each(v, p.table.String(), p.order)
			case sql.Insert, sql.Update:
				each(v, p.table.String(), slices.Sorted(maps.Keys(p.writeColumns)))
			default:
				add(v, p.table.String(), "")
			}
		}
	}
	return out
}

// terms says on what terms a task allows what a permit does.
func (s *Snapshot) terms(t *task, p *permit, verb string) []string {
	var out []string
	add := func(is bool, format string, args ...any) {
		if is {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	ask := func(a *postern.Approval) {
		if asksFor(a, p, verb) {
			add(true, "%s", s.ApprovalText(a))
		}
	}
	if p != nil {
		changes := verb == string(sql.Update) || verb == string(sql.Delete)
		add(p.rows != nil && verb != string(sql.Insert), "rows where %s", rowsText(p))
		add(p.requireWhere && changes, "with a WHERE clause")
		add(p.maxAffected > 0 && (changes || verb == string(sql.Insert)), "at most %d rows changed", p.maxAffected)
	}
	add(t.when != nil, "when %s", conditionText(t.when))
	ask(t.approval)
	if p != nil {
		add(p.when != nil, "when %s", conditionText(p.when))
		if p.request != nil {
			p.requestTerms(verb, add)
		}
		ask(p.approval)
	}
	return out
}

// ConnectTerms says who must say yes before a session of the task begins, and to what else
// under a grant that asks for a, or nil; none is nobody.
func (s *Snapshot) ConnectTerms(name postern.TaskName, a *postern.Approval) []string {
	asked := []*postern.Approval{a}
	if t := s.tasks[name]; t != nil {
		asked = append(asked, t.approval)
	}
	var out []string
	for i, a := range asked {
		if a != nil && (i == 0 || a.Scope != postern.ScopeStatement) {
			out = append(out, s.ApprovalText(a))
		}
	}
	return out
}

// asksFor reports whether an approval is asked for what is done.
func asksFor(a *postern.Approval, p *permit, verb string) bool {
	switch {
	case p != nil && len(p.commands) > 0:
		verb = string(sql.Define)
	case p.carries(verb) && a != nil && a.Scope == postern.ScopeStatement:
		return false // people are asked for each message
	}
	return a != nil && (len(a.Verbs) == 0 || verb == Anything || slices.Contains(a.Verbs, verb))
}

func conditionText(c *condition) string {
	if c == nil {
		return ""
	}
	return c.source
}

func rowsText(p *permit) string {
	if p.rows == nil {
		return ""
	}
	return p.rows.source
}

// ApprovalText says who must say yes and to what, such as "1 of leads approves each
// statement".
func (s *Snapshot) ApprovalText(a *postern.Approval) string {
	who := a.Rule
	if rule, ok := s.rules[a.Rule]; ok {
		who = ruleText(rule.GetSpec())
	}
	what := "each " + string(a.Scope)
	if a.Scope == postern.ScopeGrant {
		what = "the grant"
	}
	return who + " must approve " + what
}

// ruleText says who must say yes by a rule.
func ruleText(rule *typesv1.ApprovalRuleSpec) string {
	var groups []string
	for _, q := range rule.GetAll() {
		groups = append(groups, fmt.Sprintf("%d of %s", q.GetAtLeast(), q.GetGroup()))
	}
	who := strings.Join(groups, " and ")
	if rule.GetDistinct() && len(groups) > 1 {
		who += ", all of them others,"
	}
	if further, after := Escalation(rule); further != "" {
		who += fmt.Sprintf(", or after %s %s in their place,", after, further)
	}
	return who
}

// maskText is a mask with what it does, so that a change of either shows.
func maskText(m *postern.MaskRule) string {
	switch m.Method {
	case postern.MaskRedact:
		return fmt.Sprintf("%s (shown as %q)", m.Name, m.Value)
	case postern.MaskPartial:
		return fmt.Sprintf("%s (keeps %d first, %d last)", m.Name, m.KeepFirst, m.KeepLast)
	case postern.MaskNull:
		return m.Name + " (shown as NULL)"
	case postern.MaskToken:
	}
	return fmt.Sprintf("%s (%s)", m.Name, m.Method)
}

// covers reports whether the right is to what a target asks for.
func (r *Right) covers(t *Target) bool {
	p := r.permit
	if r.Verb == Anything {
		return true
	}
	if p != nil && p.request != nil {
		return r.coversRequest(t)
	}
	if p != nil && p.channel != nil {
		switch ch := p.channel; t.Verb {
		case "exec":
			if r.Verb != "exec" {
				return false
			}
			_, ok := ch.runs(t.argv())
			return ok
		case "shell":
			return r.Verb == "shell" || r.Verb == "guard"
		case "read", "write", "delete":
			return r.Verb == t.Verb && ch.reaches(t.On) && (&channel{paths: []string{r.On}}).reaches(t.On)
		}
	}
	return r.Verb == t.Verb && r.On == t.On && (t.Column == "" || r.Column == t.Column)
}
