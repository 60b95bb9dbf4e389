package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// undefined denies a text that names a column that does not exist. It says so only where the
// task allows what is done with each table that was named before: of another it says what it
// says of a column that is there.
func (j *judge) undefined(f *sql.Facts) postern.Decision {
	no := &refusal{rule: j.task.rules.undefined, reason: f.Incomplete}
	var columns []string
	nearest := maxEdits + 1
	for i := range f.Undefined.Tables {
		t := &f.Undefined.Tables[i]
		permits := j.task.permits(t)
		if permits == nil && systemSchema(t.Schema) {
			if no := j.task.systemTable(t, j.resource.level); no != nil {
				return j.deny(no)
			}
			continue
		}
		if len(t.Verbs) == 0 { // what would be done with it was to come
			return j.unclear(f.Incomplete)
		}
		if v := permits.lacks(t.Verbs); v != "" {
			return j.deny(j.forbidden(t, strings.ToUpper(string(v))))
		}
		names := permits.columns(t.Verbs)
		columns = append(columns, fmt.Sprintf("columns of %s: %s", t, some(names)))
		for _, name := range names {
			if n := edits(f.Undefined.Column, name); n < nearest && n <= len(name)/2 {
				nearest, no.hint = n, fmt.Sprintf("perhaps column %s of %s is meant", name, t)
			}
		}
	}
	no.detail = strings.Join(columns, "; ")
	j.deny(no)
	j.d.Position = f.Undefined.Position
	return j.d
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
