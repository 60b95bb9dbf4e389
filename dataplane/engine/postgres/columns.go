package postgres

import (
	"bytes"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// checkColumns compares what the target says of a result with what was judged, as a
// second look: a column that comes straight from a table must be one that the statement
// was judged to use and that the task neither masks nor withholds.
func (t targetCore) checkColumns(st *statement, body []byte) *postern.Refusal {
	if st.desc != nil && bytes.Equal(st.desc, body) {
		return nil
	}
	st.desc, st.columns = nil, nil
	var cols []engine.ResultColumn
	stray := ""
	err := eachColumn(body, func(col column) bool {
		cols = append(cols, engine.ResultColumn{Name: string(col.name), Type: col.typ, Binary: col.format == 1})
		if col.table != 0 && !t.terms.Own {
			stray = t.stray(st, col)
		}
		return stray == ""
	})
	if err != nil {
		return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the resource described the result in a way that cannot be read", Cause: err}
	}
	if stray != "" {
		t.log.Warn("result stopped", "column", stray)
		t.ddl()
		return &postern.Refusal{
			Rule: st.adm.Decision.Rule, Reason: "the result has the column " + stray + ", which is not what was allowed",
			Hint: "try again: the resource's tables may have changed a moment ago",
		}
	}
	markMasked(st, cols)
	st.columns = cols
	if len(body) <= maxKeptDescription {
		st.desc = bytes.Clone(body)
	}
	return nil
}

// maxKeptDescription is the longest RowDescription that is kept to recognise the next.
const maxKeptDescription = 8 << 10

// stray names a column that must not be in the result, or is empty.
func (t targetCore) stray(st *statement, col column) string {
	rel := st.catalog.byOID[col.table]
	if rel == nil {
		return "of an unknown table"
	}
	if !st.uses(rel.Schema, rel.Name.Name) {
		return rel.String()
	}
	rule := st.rule(rel.Schema, rel.Name.Name)
	if rule == nil {
		return ""
	}
	for i := range rel.Columns {
		if rel.Columns[i].Attnum != col.attnum {
			continue
		}
		for _, allowed := range rule.Columns {
			if allowed.Name == rel.Columns[i].Name && allowed.Mask == nil {
				return ""
			}
		}
		return rel.String() + "." + rel.Columns[i].Name
	}
	return rel.String()
}

// markMasked says for the record which columns hold masked values.
func markMasked(st *statement, cols []engine.ResultColumn) {
	if !st.masked || len(st.facts.Statements) != 1 {
		return
	}
	outputs := st.facts.Statements[0].Outputs
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
