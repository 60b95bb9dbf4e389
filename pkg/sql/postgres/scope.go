package postgres

import (
	"slices"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/sql"
)

// use is how the current statement uses one relation of the catalogue.
type use struct {
	rel         *sql.Relation
	verbs       map[sql.Verb]bool
	read        map[string]sql.ColumnRole // "*" stands for the whole row
	write       map[string]bool
	targetReads map[string]bool
	noWhere     bool
	target      bool
	wholeTarget bool // its whole stored row is read, other than by RETURNING *
}

// origin is a column of the catalogue that a value comes from.
type origin struct {
	use    *use
	column string // "*" is the whole row
	// star is true while the column was reached by * alone: it stands for whatever is
	// permitted, and nobody has named it.
	star bool
	// target is true where the stored value of a relation that is being changed is meant.
	target bool
}

// lineage is where a value comes from.
type lineage struct {
	from     []origin
	computed bool // more than the bare column
}

// and merges what an expression is made of.
func (l lineage) and(m lineage) lineage { return union(l, m) }

// union merges lineages. It does not change them.
func union(parts ...lineage) lineage {
	out := lineage{computed: true}
	var seen map[origin]bool // once there are many
	for _, p := range parts {
		if len(out.from) == 0 {
			out.from = slices.Clip(p.from)
			continue
		}
		for _, o := range p.from {
			if seen == nil && len(out.from) > 32 {
				seen = make(map[origin]bool, 2*len(out.from))
				for _, x := range out.from {
					seen[x] = true
				}
			}
			if seen == nil && slices.Contains(out.from, o) || seen[o] {
				continue
			}
			out.from = append(out.from, o)
			if seen != nil {
				seen[o] = true
			}
		}
	}
	return out
}

// named is the lineage once somebody named the column.
func (l lineage) named() lineage {
	if !slices.ContainsFunc(l.from, func(o origin) bool { return o.star && o.column != "*" }) {
		return l
	}
	out := lineage{from: slices.Clone(l.from), computed: l.computed}
	for i := range out.from {
		if out.from[i].column != "*" {
			out.from[i].star = false
		}
	}
	return out
}

// column is one column of an item or of a result.
type column struct {
	name string
	lin  lineage
	// star names the relation that a * stands for, in a result whose columns are
	// whatever is permitted.
	star *use
}

// item is one entry of FROM, as names see it.
type item struct {
	name    string // the alias, or the relation's name
	schema  string // of a relation without an alias
	columns []column
	// open is set where there may be more columns than are known, as in the result of a
	// function; they come from this.
	open *lineage
	// whole is true where names may be qualified by the item's, and bare where its
	// columns may be named without. A join takes bare from its sides.
	whole, bare bool
	uses        []*use     // of the relations directly in it
	ref         *reference // where the item is a relation
	target      bool
	derived     bool // a sub-select
}

func (i *item) find(name string) (lin lineage, n int) {
	for _, c := range i.columns {
		if c.name == name {
			lin = c.lin
			n++
		}
	}
	return lin, n
}

// column is like find, and knows the columns, too, that every table has and no * shows.
func (i *item) column(name string) (lin lineage, n int) {
	lin, n = i.find(name)
	if n == 0 && i.ref != nil && systemColumns[name] && i.ref.use.rel.Kind != sql.KindView {
		return lineage{from: []origin{{use: i.ref.use, column: name, target: i.target}}}, 1
	}
	return lin, n
}

// row is the lineage of the item's whole row.
func (i *item) row() lineage {
	lin := lineage{computed: true}
	if i.ref != nil {
		lin.from = []origin{{use: i.ref.use, column: "*", star: true, target: i.target}}
		return lin
	}
	return result{i.columns, i.open}.all()
}

// byPosition notes relations whose * is used by the positions of its columns.
func (a *analyzer) byPosition(columns []column) {
	for _, c := range columns {
		if c.star != nil && !slices.Contains(a.positional, c.star) {
			a.positional = append(a.positional, c.star)
		}
	}
}

// scope is what names can see at one level of a statement.
type scope struct {
	parent *scope
	// hidden is true where the items of parent, though not of its parents, are out of
	// sight: a sub-select in FROM that is not LATERAL.
	hidden bool
	items  []*item
	ctes   []*cte
}

// cte is a common table expression.
type cte struct {
	name    string
	columns []column
	open    *lineage
}

// levels calls f with the items of each level that names can see, from the inside out,
// until f returns true.
func (s *scope) levels(f func([]*item) bool) {
	for skip := false; s != nil; s = s.parent {
		if !skip && f(s.items) {
			return
		}
		skip = s.hidden
	}
}

// cte finds a common table expression by name.
func (s *scope) cte(name string) *cte {
	for ; s != nil; s = s.parent {
		for i := len(s.ctes) - 1; i >= 0; i-- {
			if s.ctes[i].name == name {
				return s.ctes[i]
			}
		}
	}
	return nil
}

// bareColumn resolves a name without a qualifier. Where a level has an item with unknown
// columns the name may be one of those or one further out, so both count.
func (a *analyzer) bareColumn(s *scope, name string) (lineage, bool) {
	var lin lineage
	found, maybe := false, false
	s.levels(func(items []*item) bool {
		n := 0
		for _, it := range items {
			a.spend(1)
			if !it.bare {
				continue
			}
			a.spend(len(it.columns))
			if l, k := it.column(name); k > 0 {
				n += k
				if maybe {
					l = lin.and(l)
				}
				lin = l
			}
		}
		if n > 1 {
			a.giveUp("column %s is ambiguous", name)
		}
		if n > 0 {
			found = true
			return true
		}
		for _, it := range items {
			if it.bare && it.open != nil {
				lin = lin.and(*it.open)
				maybe = true
			}
		}
		return false
	})
	if found && !maybe {
		return lin.named(), true
	}
	// Not a column, or only perhaps one: it may be the whole row of an item.
	if it := a.item(s, "", name); it != nil {
		row := it.row()
		if hole.Is("analyse-whole-row") {
			row = lineage{computed: true}
		}
		if found || maybe {
			row = lin.and(row)
		}
		return row.named(), true
	}
	return lin.named(), found || maybe
}

// item finds the item that a qualifier means, or nil.
func (a *analyzer) item(s *scope, schema, name string) *item {
	var found *item
	s.levels(func(items []*item) bool {
		a.spend(len(items))
		for _, it := range items {
			if !it.whole || it.name != name || schema != "" && it.schema != schema {
				continue
			}
			if found != nil {
				a.giveUp("%s is ambiguous: two entries of FROM have that name", name)
				return true
			}
			found = it
		}
		return found != nil
	})
	return found
}

// mark records that something that comes from lin is used in a role.
func (a *analyzer) mark(lin lineage, role sql.ColumnRole) {
	if lin.computed && role == sql.RoleOutput && !hole.Is("analyse-computed-role") {
		role = sql.RoleComputed
	}
	a.spend(len(lin.from))
	for _, o := range lin.from {
		name := o.column
		if o.star {
			name = "*"
		}
		o.use.read[name] |= role
		if o.target {
			o.use.targetReads[name] = true
			o.use.wholeTarget = o.use.wholeTarget || o.column == "*"
		}
	}
}
