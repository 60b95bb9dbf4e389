package postgres

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// checkColumns compares what the target says of a result with what was judged, as a
// second look: a column that comes straight from a table must be one that the statement
// was judged to use and that the task neither masks nor withholds. At level result,
// where masked ones do come, it plans how their values are changed.
func (t targetCore) checkColumns(st *statement, cat *catalog, body []byte) *postern.Refusal {
	if st.desc != nil && bytes.Equal(st.desc, body) {
		return nil
	}
	st.desc, st.columns, st.plan = nil, nil, nil
	var cols []engine.ResultColumn
	stray, p := "", &plan{}
	err := eachColumn(body, func(col column) bool {
		cols = append(cols, engine.ResultColumn{Name: string(col.name), Type: col.typ, Binary: col.format == 1})
		from := origin{}
		if col.table != 0 && !t.terms.Own {
			from, stray = t.stray(st, cat, col)
		}
		if stray == "" && st.masking != nil && !p.add(st.masking, from, col.typ) {
			stray = printable(string(col.name))
		}
		return stray == ""
	})
	if stray == "" && st.masking != nil && p.columns != len(st.masking.outputs) {
		stray = "number " + strconv.Itoa(p.columns+1)
	}
	if err != nil {
		return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the resource described the result in a way that cannot be read", Cause: err}
	}
	if stray != "" {
		t.log.Warn("result stopped", "column", stray)
		t.ddl(true)
		return &postern.Refusal{
			Rule: st.adm.Decision.Rule, Reason: "the column " + stray + " of the result is not what was allowed",
			Hint: "try again: the resource's tables may have changed a moment ago",
		}
	}
	if st.masking != nil {
		st.plan = p
		for _, c := range p.cells {
			cols[c.at].Masked = true
		}
	} else {
		markMasked(st, cols)
	}
	st.columns = cols
	if len(body) <= maxKeptDescription {
		st.desc = bytes.Clone(body)
	}
	if l := st.like; l != nil { // the next of this shape need not be looked at again
		l.desc, l.columns, l.plan = st.desc, st.columns, st.plan
	}
	return nil
}

// maxKeptDescription is the longest RowDescription that is kept to recognise the next.
const maxKeptDescription = 8 << 10

// stray names a column that must not be in the result, or is empty; from is where it
// comes from.
func (t targetCore) stray(st *statement, cat *catalog, col column) (from origin, stray string) {
	rel := cat.byOID[col.table]
	if rel == nil {
		return from, "of an unknown table"
	}
	if rule := st.viewed(rel.Name); rule != nil {
		return from, outsideView(rule, rel, col)
	}
	from.schema, from.table = rel.Schema, rel.Name.Name
	if !st.uses(rel.Schema, rel.Name.Name) {
		return from, rel.String()
	}
	if i := slices.IndexFunc(rel.Columns, func(c sql.Column) bool { return c.Attnum == col.attnum }); i >= 0 {
		from.column = rel.Columns[i].Name
	}
	rule := st.rule(rel.Schema, rel.Name.Name)
	if rule == nil {
		return from, ""
	}
	for _, allowed := range rule.Columns {
		if allowed.Name == from.column && (allowed.Mask == nil || st.masking.changes(from)) {
			return from, ""
		}
	}
	if rule.Every && !slices.ContainsFunc(rule.Columns, func(c postern.ColumnRule) bool { return c.Name == from.column }) {
		return from, ""
	}
	return from, strings.TrimSuffix(rel.String()+"."+from.column, ".")
}

// outsideView names a column of a task's view that the task does not show, or is empty.
// Number 0 is the whole row.
func outsideView(rule *postern.TableRule, view *sql.Relation, col column) string {
	shown := func(c sql.Column) bool {
		return slices.ContainsFunc(rule.Columns, func(p postern.ColumnRule) bool { return p.Name == c.Name })
	}
	if col.attnum == 0 && !slices.ContainsFunc(view.Columns, func(c sql.Column) bool { return !shown(c) }) {
		return ""
	}
	for _, c := range view.Columns {
		if c.Attnum == col.attnum && shown(c) {
			return ""
		}
	}
	return view.String()
}

// markMasked says for the record which columns hold masked values.
func markMasked(st *statement, cols []engine.ResultColumn) {
	if !st.masked || len(st.facts.Statements) != 1 {
		return
	}
	outputs := slices.DeleteFunc(slices.Clone(st.facts.Statements[0].Outputs), func(o sql.Output) bool {
		rule := st.rule(o.Schema, o.Table)
		return o.Star && rule != nil && !rule.Every && !slices.ContainsFunc(rule.Columns, func(c postern.ColumnRule) bool { return c.Name == o.Column })
	})
	if len(outputs) != len(cols) {
		return
	}
	for i, o := range outputs {
		if rule := st.rule(o.Schema, o.Table); rule != nil {
			for _, c := range rule.Columns {
				if c.Name == o.Column && c.Mask != nil {
					cols[i].Masked = true
				}
			}
		}
	}
}
