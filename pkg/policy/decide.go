package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/ssh"
)

// DecideConnect judges one connection: locks, the grant, the task's reach, conditions
// that read no statement, and whether people must say yes before the session begins.
func (s *Snapshot) DecideConnect(q Query) postern.Decision {
	j := judge{snapshot: s, query: q}
	j.d.Version = s.version
	if !j.standing() {
		return j.d
	}
	t := j.task
	j.d.Effect = postern.EffectNone
	if j.overLimits() {
		return j.d
	}
	if t.when != nil && !t.when.readsOf("statement.") && !t.when.readsOf("grant.") && !t.when.readsOf("http.") {
		if no := j.unmet(t.when, nil, t.rules.when); no != nil {
			return j.deny(no)
		}
	}
	j.d.Rule = string(t.name)
	j.d.Level = j.resource.level
	if t.unrestricted != nil {
		j.d.Level = postern.LevelNone
	}
	for _, a := range [...]*postern.Approval{q.Grant.Approval, t.approval} {
		if a != nil && a.Scope == postern.ScopeSession && !j.ask(a, t.rules.approval) {
			return j.d
		}
	}
	return j.settle()
}

// Decide judges one statement, or one SQL text: every statement of that must be permitted,
// or none is. The
// end of the grant and the limits are checked here too, but an Allow may be kept: a
// session ends with its grant, and budgets are counted at each execution. A verdict is
// kept for one grant and resource, never for another.
func (s *Snapshot) Decide(q Query) postern.Decision {
	j := judge{snapshot: s, query: q}
	j.d.Version, j.d.Effect = s.version, postern.EffectUnknown
	if q.Facts != nil {
		j.d.Effect = q.Facts.Effect()
	}
	if !j.standing() {
		return j.d
	}
	if j.d.Effect != postern.EffectNone && j.overLimits() {
		return j.d
	}
	t := j.task
	j.d.Level = j.resource.level
	if t.unrestricted != nil {
		j.d.Level = postern.LevelNone
		return j.everything()
	}
	switch f := q.Facts.(type) {
	case *sql.Facts:
		return j.sql(f)
	case *ssh.Facts:
		return j.ssh(f)
	case *http.Facts:
		return j.http(f)
	case *mcp.Facts:
		return j.mcp(f)
	}
	return j.unclear("")
}

// sql judges the statements of one text.
func (j *judge) sql(f *sql.Facts) postern.Decision {
	switch {
	case f == nil:
		return j.unclear("")
	case f.Undefined != nil:
		return j.undefined(f)
	case !f.Complete:
		return j.unclear(f.Incomplete)
	}
	for i := range f.Statements {
		if !j.statement(&f.Statements[i]) {
			return j.d
		}
	}
	return j.settle()
}

// unclear denies what was not understood.
func (j *judge) unclear(what string) postern.Decision { return j.deny(j.notUnderstood(what)) }

func (j *judge) notUnderstood(what string) *refusal {
	return &refusal{
		rule: j.task.rules.facts, reason: "this statement could not be understood, and so it is not allowed", detail: what,
		hint: "check its names, write it more simply, or ask for a task that allows it",
	}
}

// judge is the work of one decision. It stays on the stack, and so holds the query by
// value.
type judge struct {
	snapshot *Snapshot
	query    Query
	task     *task
	resource *resource
	filtered []filtered
	request  *http.Facts // of a task for http
	call     *mcp.Facts  // nil where there is none
	d        postern.Decision
}

// A refusal is a no in the making. A nil *refusal is no objection.
type refusal struct{ rule, reason, detail, hint string }

// HintTasks is the hint of a denial that another task may not give.
const HintTasks = "ask for a task that may: postern tasks"

// deny makes the decision a denial. What it read stays, for a denial is kept for no
// longer than an Allow.
func (j *judge) deny(no *refusal) postern.Decision {
	j.d = postern.Decision{
		Rule: no.rule, Reason: no.reason, Detail: no.detail, Hint: no.hint,
		Missing: j.d.Missing, Effect: j.d.Effect, Level: j.d.Level, Deps: j.d.Deps, Version: j.d.Version,
	}
	return j.d
}

// settle ends a judgement without objections.
func (j *judge) settle() postern.Decision {
	j.d.Verdict = postern.VerdictAllow
	if j.d.Approval != nil {
		j.d.Verdict = postern.VerdictHold
		j.d.Reason = fmt.Sprintf("%s asks people to approve this %s", j.task.title, j.d.Approval.Scope)
		j.d.Detail = "approval rule: " + j.d.Approval.Rule
	}
	if j.d.Rule == "" {
		j.d.Rule = j.task.rules.permit
	}
	return j.d
}

// standing checks what stands before any permit: locks, the grant, the task, its reach.
func (j *judge) standing() bool {
	g, now := j.query.Grant, j.query.Request.Time
	if g == nil || g.ID == "" || g.Subject.Name == "" {
		j.deny(&refusal{rule: GrantPrefix + "missing", reason: "there is no grant", hint: "see what you may do with: postern tasks"})
		return false
	}
	if l, _ := j.snapshot.locked(&g.Subject, g.ID, j.query.Resource, j.query.Node, now); l != nil {
		reason, name, _ := j.snapshot.LockedFor(&g.Subject, g.ID, j.query.Resource, j.query.Node, now)
		j.d.Deps.Time = l.GetSpec().GetExpires() != nil
		j.deny(&refusal{rule: LockPrefix + name, reason: reason, hint: "ask the operators of this gateway"})
		return false
	}
	switch {
	case now.IsZero() || !now.Before(g.End):
		j.d.Deps.Time = true
		j.deny(&refusal{rule: GrantPrefix + "over", reason: fmt.Sprintf("the grant for task %q is over", g.Task), hint: fmt.Sprintf("take it again, or: postern request %s --reason \"...\"", g.Task)})
		return false
	case !g.MinVersion.IsZero() && !j.snapshot.version.Covers(g.MinVersion) && !j.query.Covered.Covers(g.MinVersion) && !hole.Is("grant-version"):
		j.deny(&refusal{rule: GrantPrefix + "version", reason: "this node has not yet applied the policy that the grant needs", hint: "try again in a moment"})
		return false
	}
	j.task = j.snapshot.tasks[g.Task]
	if j.task == nil {
		j.deny(&refusal{rule: string(g.Task), reason: fmt.Sprintf("task %q is not served here", g.Task), hint: "see what you may do with: postern tasks"})
		return false
	}
	if j.resource = j.task.reach[j.query.Resource]; j.resource == nil {
		r := j.task.outOfReach(j.query.Resource)
		j.deny(&refusal{rule: r.Rule, reason: r.Reason, detail: r.Detail, hint: r.Hint})
		return false
	}
	return true
}

// overLimits denies where a limit is used up. Only such a denial depends on counters.
func (j *judge) overLimits() bool {
	t, u := j.task, &j.query.Usage
	for _, l := range [...]struct {
		what        string
		used, limit int64
	}{
		{"rows", u.Rows, t.terms.Rows}, {"bytes", u.Bytes, t.terms.Bytes}, {"statements", u.Statements, t.terms.Statements},
	} {
		if l.limit >= 0 && l.used >= l.limit {
			per := "session"
			if t.terms.PerGrant {
				per = "grant"
			}
			j.d.Deps.Usage = true
			j.deny(&refusal{
				rule:   t.rules.limits,
				reason: fmt.Sprintf("the limit of %d %s of %s is reached", l.limit, l.what, t.title),
				detail: fmt.Sprintf("used in this %s: %d %s", per, l.used, l.what),
				hint:   "open a new " + per + " when you may, or ask for a task with a higher limit",
			})
			return true
		}
	}
	return false
}

// everything judges a task that permits all: conditions and people still count. People
// are asked whatever verbs they were to be asked for, for here a statement may do
// anything and need not say so.
func (j *judge) everything() postern.Decision {
	facts, _ := j.query.Facts.(*sql.Facts)
	j.d.Rule = j.task.unrestricted.rule
	if facts == nil || !facts.Complete {
		if !j.anything(nil) { // conditions on the statement find none, and so deny
			return j.d
		}
		return j.settle()
	}
	for i := range facts.Statements {
		if st := &facts.Statements[i]; st.Verb != sql.Transaction && !j.anything(st) {
			return j.d
		}
	}
	return j.settle()
}

// anything judges one statement, or what was not understood, of such a task.
func (j *judge) anything(st *sql.Statement) bool {
	t, p := j.task, j.task.unrestricted
	no := j.unmet(t.when, st, t.rules.when)
	if no == nil {
		no = j.unmet(p.when, st, p.ruleWhen)
	}
	if no != nil {
		j.deny(no)
		return false
	}
	for _, a := range [...]*postern.Approval{j.query.Grant.Approval, t.approval, p.approval} {
		if a != nil && a.Scope != postern.ScopeGrant && a.Scope != postern.ScopeSession && !j.ask(a, p.ruleApproval) {
			return false
		}
	}
	return true
}

// unmet evaluates a condition; a nil one is met. Where a fact is missing it is asked for.
func (j *judge) unmet(c *condition, st *sql.Statement, rule string) *refusal {
	if c == nil {
		return nil
	}
	j.d.Deps.Time = j.d.Deps.Time || c.deps.Time
	j.d.Deps.Usage = j.d.Deps.Usage || c.deps.Usage
	j.d.Deps.Literals = j.d.Deps.Literals || c.deps.Literals
	no := &refusal{rule: rule, reason: j.task.title + " does not allow this here and now", detail: "only when " + c.source}
	if c.reads[estimatedRows] && j.query.EstimatedRows == nil {
		if !slices.Contains(j.d.Missing, postern.FactEstimatedRows) {
			j.d.Missing = append(j.d.Missing, postern.FactEstimatedRows)
		}
		no.reason = j.task.title + " needs an estimate of the rows first"
		return no
	}
	j.d.Deps.Beside = j.d.Deps.Beside || c.deps.Beside
	if unread := j.unread(c, no); unread != nil {
		return unread
	}
	q, usage := &j.query, j.query.Usage // a copy, so that the query stays on the stack
	ok, err := c.holds(&variables{subject: &q.Grant.Subject, request: q.Request, task: j.task, statement: st, http: j.request, call: j.call, usage: &usage, estimate: q.EstimatedRows})
	if err != nil {
		no.detail += "; it could not be evaluated: " + err.Error()
	}
	if ok {
		return nil
	}
	return no
}

// asked puts a statement to people where the requirement says so.
func (j *judge) asked(a *postern.Approval, st *sql.Statement, rule string) bool {
	if a == nil || hole.Is("policy-approval") || a.Scope == postern.ScopeGrant || a.Scope == postern.ScopeSession {
		return true
	}
	if len(a.Verbs) > 0 && !concerns(a.Verbs, st) {
		return true
	}
	return j.ask(a, rule)
}

// concerns reports whether the statement has one of the verbs.
func concerns(verbs []string, st *sql.Statement) bool {
	for _, v := range verbs {
		if string(st.Verb) == v {
			return true
		}
		for i := range st.Tables {
			if st.Tables[i].Has(sql.Verb(v)) {
				return true
			}
		}
	}
	return false
}

// ask adds people to the decision. A hold asks one rule: where two are asked for,
// neither may be left out, and so the answer is no.
func (j *judge) ask(a *postern.Approval, rule string) bool {
	switch {
	case a.Rule == "" || (a.Scope != postern.ScopeStatement && a.Scope != postern.ScopeSession):
		j.deny(&refusal{rule: rule, reason: "the approval that this needs is not one that can be given"})
		return false
	case j.d.Approval != nil && j.d.Approval.Rule != a.Rule:
		j.deny(&refusal{
			rule: rule, reason: fmt.Sprintf("this needs the approval of both %s and %s, which cannot be asked for at once", j.d.Approval.Rule, a.Rule),
			hint: "send the statements one by one",
		})
		return false
	case j.d.Approval == nil:
		j.d.Approval, j.d.Rule = a, rule
	}
	return true
}

// command is what a person calls the statement.
func command(st *sql.Statement) string {
	if st.Command != "" {
		return st.Command
	}
	if st.Verb != sql.Other {
		return strings.ToUpper(string(st.Verb))
	}
	return "this kind of statement"
}
