package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// undefined denies a text that names what does not exist.
func (j *judge) undefined(f *sql.Facts) postern.Decision {
	no := &refusal{rule: j.task.rules.undefined, reason: f.Incomplete}
	switch u := f.Undefined; {
	case u.Kind == postern.UndefinedColumn:
		if other := j.undefinedColumn(f, no); other != nil {
			return j.deny(other)
		}
	case u.Kind == postern.UndefinedRelation && u.Name != "":
		no.detail, no.hint = j.task.allowed, j.task.nearestTable(u.Name)
	}
	j.deny(no)
	j.d.Undefined, j.d.Position = f.Undefined.Kind, f.Undefined.Position
	return j.d
}

// undefinedColumn completes the refusal because of a column that does not exist, or gives
// another. It is told only where the task allows what is done with each table that was named
// before: of another the refusal is that of a column that is there.
func (j *judge) undefinedColumn(f *sql.Facts, no *refusal) *refusal {
	var columns []string
	near := nearest{to: f.Undefined.Name}
	for i := range f.Undefined.Tables {
		t := &f.Undefined.Tables[i]
		permits := j.task.permits(t)
		if permits == nil && systemSchema(t.Schema) {
			if no := j.task.systemTable(t, j.resource.level); no != nil {
				return no
			}
			continue
		}
		if len(t.Verbs) == 0 { // what would be done with it was to come
			return j.notUnderstood(f.Incomplete)
		}
		if v := permits.lacks(t.Verbs); v != "" {
			return j.forbidden(t, strings.ToUpper(string(v)))
		}
		names := permits.columns(t.Verbs)
		columns = append(columns, fmt.Sprintf("columns of %s: %s", t, some(names)))
		for _, name := range names {
			if near.than(name) {
				no.hint = fmt.Sprintf("perhaps column %s of %s is meant", name, t)
			}
		}
	}
	no.detail = strings.Join(columns, "; ")
	return nil
}

// nearestTable is a hint at the table of the task whose name is near; empty where none is.
func (t *task) nearestTable(name string) (hint string) {
	near := nearest{to: name}
	for _, table := range slices.SortedFunc(maps.Keys(t.tables), func(a, b sql.Name) int { return strings.Compare(a.String(), b.String()) }) {
		if near.than(table.Name) {
			hint = fmt.Sprintf("perhaps table %s is meant", table)
		}
	}
	return hint
}

// lacks is the first of the verbs that no permit allows; empty where there is none.
func (tp *tablePermits) lacks(verbs []sql.Verb) sql.Verb {
	for _, v := range verbs {
		if i := verbIndex(v); tp == nil || i < 0 || len(tp[i]) == 0 {
			return v
		}
	}
	return ""
}

// columns lists what may be read or written with the verbs, each of which has a permit.
func (tp *tablePermits) columns(verbs []sql.Verb) []string {
	var names []string
	for _, v := range verbs {
		for _, one := range tp[verbIndex(v)] {
			for _, name := range slices.Concat(one.order, slices.Sorted(maps.Keys(one.writeColumns))) {
				if !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// nearest looks among names for the one that a mistyped one may have been meant to be.
type nearest struct {
	to    string
	found bool
	edits int
}

// than reports whether name is near enough, and nearer than those before.
func (n *nearest) than(name string) bool {
	e := edits(n.to, name)
	if e > maxEdits || e > len(name)/2 || n.found && e >= n.edits {
		return false
	}
	n.found, n.edits = true, e
	return true
}

// maxEdits is how much a name may differ from one that is near it.
const maxEdits = 3

// edits counts the bytes that are added, left out or changed between two names; more than
// maxEdits are not counted to the end.
func edits(a, b string) int {
	if n := len(a) - len(b); max(n, -n) > maxEdits {
		return maxEdits + 1
	}
	row := make([]int, len(b)+1)
	for i := range row {
		row[i] = i
	}
	for i := range len(a) {
		left, corner := i+1, i
		for k := range len(b) {
			n := min(left, row[k+1]) + 1
			if a[i] == b[k] {
				n = min(n, corner)
			} else {
				n = min(n, corner+1)
			}
			row[k], left, corner = left, n, row[k+1]
		}
		row[len(b)] = left
	}
	return row[len(b)]
}
