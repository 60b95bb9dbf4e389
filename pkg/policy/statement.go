package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// statement judges one statement of a text and gathers what comes with it. It is false
// once the decision is a denial.
func (j *judge) statement(st *sql.Statement) bool {
	t := j.task
	uses := len(st.Tables) > 0 || len(st.Functions) > 0 || len(st.Settings) > 0
	switch st.Verb {
	case sql.Transaction:
		if !uses {
			return true // whatever the conditions say: a transaction can always be ended
		}
	case sql.Set, sql.Show:
		if no := t.setting(st, j.resource); no != nil && !hole.Is("policy-settings") {
			j.deny(no)
			return false
		}
	case sql.Select, sql.Insert, sql.Update, sql.Delete, sql.Truncate:
		if st.Effect == postern.EffectUnknown {
			j.deny(&refusal{rule: t.rules.facts, reason: "it could not be told what this statement does, and so it is not allowed"})
			return false
		}
	case sql.Prepare, sql.Execute, sql.Deallocate, sql.Declare, sql.Fetch, sql.Close:
	case sql.Define:
		if !j.define(st) {
			return false
		}
	default:
		if st.Verb == sql.Listen && (st.Command == "UNLISTEN" || hole.Is("policy-listen")) {
			break // pools send it; nobody listens
		}
		j.deny(&refusal{rule: t.rules.permit, reason: fmt.Sprintf("%s does not allow %s", t.title, command(st)), detail: t.allowed, hint: HintTasks})
		return false
	}
	for i := range st.Settings {
		if no := t.settingUse(&st.Settings[i], j.resource); no != nil && !hole.Is("policy-setting-calls") {
			j.deny(no)
			return false
		}
	}
	if no := j.unmet(t.when, st, t.rules.when); no != nil {
		j.deny(no)
		return false
	}
	named := false // whether it calls a function that is allowed by name alone
	var refused *sql.Function
	for i := range st.Functions {
		f := &st.Functions[i]
		ok, byName := t.calls(f)
		if !ok && j.blank(st, f) {
			continue
		}
		if !ok && (refused == nil || refused.Blank && !f.Blank) { // without that one a size would be NULL
			refused = f
		}
		named = named || byName
	}
	if refused != nil {
		j.deny(&refusal{rule: t.rules.functions, reason: fmt.Sprintf("%s does not allow function %s", t.title, refused), detail: t.functionsAllowed(), hint: HintTasks})
		return false
	}
	touches := named || st.Verb == sql.Define
	for i := range st.Tables {
		table := &st.Tables[i]
		touches = touches || t.permits(table) != nil
		if !j.table(st, table) {
			return false
		}
	}
	return j.people(st, touches)
}

// people asks for the approvals of grant and task, which concern what touches the
// resource's own data.
func (j *judge) people(st *sql.Statement, touches bool) bool {
	t, g := j.task, j.query.Grant
	if touches && (!j.asked(g.Approval, st, t.rules.approval) || !j.asked(t.approval, st, t.rules.approval)) {
		return false
	}
	if j.passesBy(st, touches) && !hole.Is("policy-held-by-name") {
		j.deny(&refusal{
			rule:   t.rules.permit,
			reason: fmt.Sprintf("%s checks each execution, and so does not allow %s", t.title, command(st)),
			hint:   "send the statement itself, or prepare it by the protocol, as drivers do",
		})
		return false
	}
	return true
}

// passesBy reports whether a statement would let another run without what is checked at
// each execution. Names of SQL and of the protocol are one set, so that EXECUTE and FETCH
// may name what the protocol has made.
func (j *judge) passesBy(st *sql.Statement, touches bool) bool {
	a := j.query.Grant.Approval
	held := j.task.held || a != nil && a.Scope == postern.ScopeStatement
	switch st.Verb {
	case sql.Execute:
		return held || j.task.each
	case sql.Prepare:
		return touches && (held || j.task.each)
	case sql.Fetch:
		return held
	case sql.Declare:
		return touches && held
	}
	return false
}

// calls reports whether a function may be called, and whether only because the task
// names it.
func (t *task) calls(f *sql.Function) (ok, byName bool) {
	name := sql.Name{Schema: f.Schema, Name: f.Name}
	if t.builtin && (f.Pure || toolFunction(name)) {
		return true, false
	}
	return t.functions[name] || hole.Is("policy-functions"), true
}

// blank adds the duty to have a function say nothing, where that does: tools ask for sizes
// when they list tables, and fail as a whole where those are refused.
func (j *judge) blank(st *sql.Statement, f *sql.Function) bool {
	if !f.Blank || !j.task.builtin || st.Verb != sql.Select || st.Effect != postern.EffectRead || j.resource.level < postern.LevelSource {
		return false
	}
	if !slices.ContainsFunc(j.d.Obligations, func(o postern.Obligation) bool { return o.Blank == f.Name }) {
		j.d.Obligations = append(j.d.Obligations, postern.Obligation{Blank: f.Name})
	}
	return true
}

func (t *task) functionsAllowed() string {
	names := make([]string, 0, len(t.functions)+1)
	for n := range t.functions {
		names = append(names, n.String())
	}
	slices.Sort(names)
	if t.builtin {
		names = slices.Insert(names, 0, "built-in functions without side effects")
	}
	if len(names) == 0 {
		names = append(names, "none")
	}
	return "allowed: " + some(names)
}

// define judges a DDL command by the permits that name it.
func (j *judge) define(st *sql.Statement) bool {
	t := j.task
	no := &refusal{rule: t.rules.permit, reason: fmt.Sprintf("%s does not allow %s", t.title, command(st)), detail: t.allowed, hint: HintTasks}
	for _, p := range t.commands {
		if !p.names(st.Command) {
			continue
		}
		if schema, ok := p.within(st); !ok {
			no.rule = p.rule
			no.reason = fmt.Sprintf("%s does not allow %s in schema %s", t.title, command(st), schema)
			continue
		}
		if unmet := j.unmet(p.when, st, p.ruleWhen); unmet != nil {
			no = unmet
			continue
		}
		j.by(p)
		return j.asked(p.approval, st, p.ruleApproval)
	}
	j.deny(no)
	return false
}

// names reports whether the permit names the command. SELECT INTO is an old spelling of
// CREATE TABLE AS, and COMMENT is one command whatever it is on.
func (p *permit) names(command string) bool {
	switch {
	case strings.HasPrefix(command, "COMMENT ON "):
		command = "COMMENT"
	case command == "ALTER COLUMN": // RENAME COLUMN
		command = "ALTER TABLE"
	case command == "SELECT INTO":
		command = "CREATE TABLE AS"
	}
	return slices.Contains(p.commands, command)
}

// within reports whether all that a command changes lies in the permit's schemas, and
// else which schema does not. A command that names no schema is within none.
func (p *permit) within(st *sql.Statement) (outside string, ok bool) {
	if len(st.Schemas) == 0 {
		return "(unknown)", false
	}
	for _, s := range st.Schemas {
		if !p.schemas[s] {
			return s, false
		}
	}
	for i := range st.Tables {
		if t := &st.Tables[i]; defined(t) && !p.schemas[t.Schema] {
			return t.Schema, false
		}
	}
	return "", true
}

// defined reports whether a DDL command changes the table itself, beside what it reads
// or writes in it.
func defined(t *sql.Table) bool { return len(t.Verbs) == 0 || t.Has(sql.Define) }

// by notes the first permit that spoke, for the record.
func (j *judge) by(p *permit) {
	if j.d.Rule == "" {
		j.d.Rule = p.rule
	}
}
