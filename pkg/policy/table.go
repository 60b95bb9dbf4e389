package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// table judges how a statement uses one relation: for each verb the first permit, in
// the task's order, that admits it.
func (j *judge) table(st *sql.Statement, t *sql.Table) bool {
	permits := j.task.permits(t)
	if permits == nil && systemSchema(t.Schema) {
		if no := j.task.systemTable(t, j.resource.level); no != nil {
			j.deny(no)
			return false
		}
		if isSettings(t) {
			return j.settingsTable(t)
		}
		return j.toolTable(t)
	}
	if len(t.Verbs) == 0 && st.Verb != sql.Define {
		j.deny(j.forbidden(t, "this use"))
		return false
	}
	for _, v := range t.Verbs {
		if v == sql.Define && st.Verb == sql.Define {
			continue // define has judged the command and its schemas
		}
		if !j.verb(st, t, v, permits) {
			return false
		}
	}
	return true
}

func (j *judge) forbidden(t *sql.Table, verb string) *refusal {
	return &refusal{
		rule: j.task.rules.permit, reason: fmt.Sprintf("%s does not allow %s on %s", j.task.title, verb, t),
		detail: j.task.allowed, hint: HintTasks,
	}
}

func (j *judge) verb(st *sql.Statement, t *sql.Table, v sql.Verb, permits *tablePermits) bool {
	i := verbIndex(v)
	if permits == nil || i < 0 || len(permits[i]) == 0 {
		j.deny(j.forbidden(t, strings.ToUpper(string(v))))
		return false
	}
	var first *refusal
	for _, p := range permits[i] {
		no := j.admits(p, st, t, v)
		if no == nil {
			return j.use(p, st, t, v)
		}
		if first == nil {
			first = no
		}
		if len(j.d.Missing) > 0 {
			break // it cannot be told yet whether this permit admits
		}
	}
	j.deny(first)
	return false
}

// admits returns what a permit has against the use of its table with the verb.
func (j *judge) admits(p *permit, st *sql.Statement, t *sql.Table, v sql.Verb) *refusal {
	var no *refusal
	if v == sql.Select {
		no = j.reads(p, t)
	} else {
		no = j.changes(p, t, v)
	}
	if no == nil && v != sql.Select && p.maxAffected > 0 && st.Within {
		no = &refusal{
			rule:   p.rule,
			reason: fmt.Sprintf("%s counts the rows of %s that are changed, which cannot be told of a change in WITH", j.task.title, t),
			hint:   "send the changes one by one",
		}
	}
	if no != nil {
		return no
	}
	return j.unmet(p.when, st, p.ruleWhen)
}

// reads judges reading: every column must be listed. At level result a value is changed
// on its way back, and a token at every level, so that such a column may only be a bare projection; whether * stands
// for columns that are all listed is known to whoever has the catalogue.
func (j *judge) reads(p *permit, t *sql.Table) *refusal {
	if no := j.listed(p, t, t.Read); no != nil {
		return no
	}
	if t.AllColumns {
		switch {
		case len(p.order) == 0:
			return j.forbidden(t, "SELECT *")
		case t.Target:
			return j.named(p, t)
		}
	}
	if p.tokens && t.AllColumns && t.Roles["*"] != sql.RoleOutput {
		return &refusal{
			rule: p.rule, reason: fmt.Sprintf("%s shows tokens in %s, so that its whole row can only be selected", j.task.title, t),
			detail: p.readable(t), hint: "name the columns",
		}
	}
	if j.resource.level == postern.LevelResult || p.tokens {
		for _, column := range t.Read {
			later := p.masks[column] != nil && j.resource.level == postern.LevelResult || p.masks[column].Token()
			if !hole.Is("policy-result-use") && later && t.Roles[column] != sql.RoleOutput {
				return &refusal{
					rule:   p.rule,
					reason: fmt.Sprintf("%s lets masked column %s.%s be shown, and not be used otherwise", j.task.title, t, column),
					hint:   "select the column as it is, outside of expressions, conditions and ordering",
				}
			}
		}
	}
	return nil
}

// changes judges a change: what is written must be listed as such, and what is read of
// the changed table itself is stored values, which must be listed and not masked.
func (j *judge) changes(p *permit, t *sql.Table, v sql.Verb) *refusal {
	if t.AllColumns && !j.writtenOut(p, t) {
		return j.named(p, t)
	}
	own := [2][]string{t.TargetReads}
	if !t.Has(sql.Select) {
		own[1] = t.Read // nothing else reads it
	}
	for _, columns := range own {
		if no := j.listed(p, t, columns); no != nil {
			return no
		}
		for _, column := range columns {
			if j.masked(p, t, column) && !hole.Is("rewrite-target") {
				return &refusal{
					rule:   p.rule,
					reason: fmt.Sprintf("%s does not allow reading masked column %s.%s in the table that is changed", j.task.title, t, column),
					hint:   "choose the rows by columns that are not masked",
				}
			}
		}
	}
	if v == sql.Insert || v == sql.Update {
		for _, column := range t.Write {
			if !p.writeColumns[column] && !hole.Is("policy-write-columns") {
				return &refusal{
					rule:   p.rule,
					reason: fmt.Sprintf("%s does not allow writing column %s.%s", j.task.title, t, column),
					detail: fmt.Sprintf("columns of %s that may be written: %s", t, some(slices.Sorted(maps.Keys(p.writeColumns)))),
				}
			}
		}
	}
	if p.requireWhere && t.NoWhere && !hole.Is("policy-require-where") {
		return &refusal{
			rule:   p.rule,
			reason: fmt.Sprintf("%s does not allow %s on %s without a WHERE clause", j.task.title, strings.ToUpper(string(v)), t),
			hint:   "say which rows",
		}
	}
	return nil
}

// writtenOut reports whether RETURNING * may stand for the columns of the permit: the
// rewriter writes them out, and refuses any other use of the whole row. None may be
// masked, for what is returned are stored values.
func (j *judge) writtenOut(p *permit, t *sql.Table) bool {
	return len(p.order) > 0 && !t.Has(sql.Select) && j.resource.level >= postern.LevelSource &&
		!slices.ContainsFunc(p.order, func(column string) bool { return j.masked(p, t, column) })
}

// masked reports whether the permit, or any that lets the table be read, masks the
// column.
func (j *judge) masked(p *permit, t *sql.Table, column string) bool {
	if p.masks[column] != nil {
		return true
	}
	for _, other := range j.task.permits(t)[verbIndex(sql.Select)] {
		if other.masks[column] != nil {
			return true
		}
	}
	return false
}

// listed refuses a column that may not be read.
func (j *judge) listed(p *permit, t *sql.Table, columns []string) *refusal {
	for _, column := range columns {
		if column == "*" && t.AllColumns {
			continue // judged as such
		}
		if !p.columns[column] && !hole.Is("policy-columns") {
			return &refusal{
				rule:   p.rule,
				reason: fmt.Sprintf("%s does not allow reading column %s.%s", j.task.title, t, column),
				detail: p.readable(t),
			}
		}
	}
	return nil
}

// named asks for columns by name where * cannot be answered.
func (j *judge) named(p *permit, t *sql.Table) *refusal {
	return &refusal{
		rule:   p.rule,
		reason: fmt.Sprintf("%s does not allow * or the whole row of %s, which is changed", j.task.title, t),
		detail: p.readable(t), hint: "name the columns",
	}
}

func (p *permit) readable(t *sql.Table) string {
	if len(p.order) == 0 {
		return fmt.Sprintf("columns of %s that may be read: none", t)
	}
	return fmt.Sprintf("columns of %s: %s", t, some(p.order))
}

// use adds what comes with an admitted use.
func (j *judge) use(p *permit, st *sql.Statement, t *sql.Table, v sql.Verb) bool {
	j.by(p)
	// At level native the table itself cannot be read.
	through := v == sql.Select && (len(p.masks) > 0 || j.wall().shows(p) != nil)
	if t.AllColumns || p.rows != nil || through {
		view, no := j.view(p, t)
		if no != nil {
			j.deny(no)
			return false
		}
		if !j.see(view, p.rule, t) {
			return false
		}
	}
	if p.maxAffected > 0 && v != sql.Select {
		j.bound(p.maxAffected)
	}
	if p.approval != nil && len(p.approval.Verbs) > 0 && !slices.Contains(p.approval.Verbs, string(v)) {
		return true
	}
	return j.asked(p.approval, st, p.ruleApproval)
}

// view is how a permit shows its table to the subject.
func (j *judge) view(p *permit, t *sql.Table) ([]postern.Obligation, *refusal) {
	plain := p.view
	if shown := j.wall().shows(p); shown != nil {
		plain = shown
	}
	if p.rows == nil {
		return plain, nil
	}
	if j.resource.level < postern.LevelSource {
		return nil, &refusal{
			rule:   p.ruleRows,
			reason: fmt.Sprintf("%s filters the rows of %s, which cannot be done at level result", j.task.title, t),
			hint:   "ask the operators of this gateway for level source",
		}
	}
	for i := range j.filtered {
		if j.filtered[i].permit == p {
			return j.filtered[i].view, nil
		}
	}
	filter, err := p.rows.SQL(&j.query.Grant.Subject)
	if err != nil {
		return nil, &refusal{
			rule:   p.ruleRows,
			reason: fmt.Sprintf("%s cannot tell which rows of %s you may see", j.task.title, t),
			detail: fmt.Sprintf("rows where %s; %s", p.rows.source, err),
			hint:   "your login lacks what the filter reads: ask the operators of this gateway",
		}
	}
	view := []postern.Obligation{{Table: narrowed(*plain[0].Table, filter)}}
	j.filtered = append(j.filtered, filtered{p, view})
	return view, nil
}

// filtered is a view that was made for one query.
type filtered struct {
	permit *permit // nil for a catalogue of the system
	view   []postern.Obligation
}

// see adds the duty to show the table as view says, which holds that alone. One text sees
// a table in one way: the duty goes by the table's name.
func (j *judge) see(view []postern.Obligation, rule string, t *sql.Table) bool {
	mine := view[0].Table
	for _, o := range j.d.Obligations {
		if o.Table == nil || o.Table.Schema != mine.Schema || o.Table.Table != mine.Table {
			continue
		}
		if o.Table == mine {
			return true
		}
		j.deny(&refusal{
			rule:   rule,
			reason: fmt.Sprintf("%s shows %s in more than one way, which one text cannot mix", j.task.title, t),
			hint:   "send the statements one by one",
		})
		return false
	}
	if j.d.Obligations == nil {
		j.d.Obligations = view // shared and full, so that another append copies it
		return true
	}
	j.d.Obligations = append(j.d.Obligations, view[0])
	return true
}

// bound adds the most rows that the text may change; the smallest bound holds.
func (j *judge) bound(most int64) {
	for i := range j.d.Obligations {
		if o := &j.d.Obligations[i]; o.MaxAffected > 0 {
			o.MaxAffected = min(o.MaxAffected, most)
			return
		}
	}
	j.d.Obligations = append(j.d.Obligations, postern.Obligation{MaxAffected: most})
}
