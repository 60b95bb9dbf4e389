package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/sql"
)

// reference is one place of a statement that names a relation of the catalogue.
type reference struct {
	rv      *pg.RangeVar
	holder  *pg.Node // that can be replaced by a sub-select; nil for targets
	use     *use
	target  bool
	sampled bool // under TABLESAMPLE
	locked  bool // FOR UPDATE and alike
	copied  *pg.CopyStmt
}

// from visits one entry of FROM and adds its items to s.
func (a *analyzer) from(n *pg.Node, s *scope) {
	if a.problem != "" {
		return
	}
	switch v := n.GetNode().(type) {
	case *pg.Node_RangeVar:
		a.table(v.RangeVar, n, s)
	case *pg.Node_JoinExpr:
		a.join(v.JoinExpr, s)
	case *pg.Node_RangeSubselect:
		a.derived(v.RangeSubselect, s)
	case *pg.Node_RangeFunction:
		if !a.allSettings(v.RangeFunction, n, s) {
			a.fromFunction(v.RangeFunction, s)
		}
	case *pg.Node_RangeTableFunc:
		a.xmlTable(v.RangeTableFunc, s)
	case *pg.Node_JsonTable:
		a.jsonTable(v.JsonTable, s)
	case *pg.Node_RangeTableSample:
		a.saw(1)
		t := v.RangeTableSample
		a.from(t.Relation, s)
		if it := s.items[max(len(s.items)-1, 0):]; len(it) == 1 && it[0].ref != nil {
			it[0].ref.sampled = true
		}
		a.strings(t.Method)
		a.computed(s, sql.RolePredicate, t.Args...)
		a.computed(s, sql.RolePredicate, t.Repeatable)
	default:
		a.giveUp("%s in FROM is not understood", describe(n))
	}
}

// alias visits an alias and renames the item's columns by it.
func (a *analyzer) alias(al *pg.Alias, it *item) {
	if al == nil {
		return
	}
	a.saw(1)
	it.name, it.schema = al.Aliasname, ""
	if len(al.Colnames) == 0 {
		return
	}
	if it.ref == nil {
		a.byPosition(it.columns)
	}
	it.columns = slices.Clone(it.columns)
	for i, name := range a.strings(al.Colnames) {
		switch {
		case i < len(it.columns):
			it.columns[i].name = name
		case it.open != nil:
			it.columns = append(it.columns, column{name: name, lin: *it.open})
		default:
			a.giveUp("alias %s has more columns than what it names", al.Aliasname)
			return
		}
	}
}

func (a *analyzer) table(rv *pg.RangeVar, holder *pg.Node, s *scope) {
	a.saw(1)
	it := &item{name: rv.Relname, whole: true, bare: true}
	if rv.Schemaname == "" && rv.Catalogname == "" {
		if c := s.cte(rv.Relname); c != nil {
			it.columns, it.open = c.columns, c.open
			a.alias(rv.Alias, it)
			s.items = append(s.items, it)
			return
		}
	}
	rel := a.relation(rv)
	if rel == nil {
		return
	}
	u := a.use(rel)
	u.verbs[sql.Select] = true
	a.base(it, rel, u, rv, false)
	it.ref.holder = holder
	s.items = append(s.items, it)
}

// base makes an item of a relation of the catalogue.
func (a *analyzer) base(it *item, rel *sql.Relation, u *use, rv *pg.RangeVar, target bool) {
	it.schema, it.target = rel.Schema, target
	it.uses = []*use{u}
	it.ref = &reference{rv: rv, use: u, target: target}
	if a.references = append(a.references, it.ref); len(a.references) > maxReferences {
		a.giveUp("it names relations more than %d times", maxReferences)
	}
	it.columns = make([]column, len(rel.Columns))
	from := make([]origin, len(rel.Columns))
	for i := range rel.Columns {
		name := rel.Columns[i].Name
		from[i] = origin{use: u, column: name, star: true, target: target}
		it.columns[i] = column{name: name, lin: lineage{from: from[i : i+1 : i+1]}, star: u}
	}
	a.alias(rv.Alias, it)
}

// xmlTable visits XMLTABLE, whose rows and columns depend on all that stands in it.
func (a *analyzer) xmlTable(t *pg.RangeTableFunc, s *scope) {
	const role = sql.RolePredicate | sql.RoleComputed
	a.saw(1)
	lin := a.computed(s, role, t.Docexpr, t.Rowexpr)
	for _, n := range t.Namespaces {
		ns := n.GetResTarget()
		if ns == nil {
			a.giveUp("%s as a namespace of XMLTABLE is not understood", describe(n))
			return
		}
		a.saw(1)
		lin = lin.and(a.expr(ns.Val, s, role))
	}
	it := &item{whole: true, bare: true}
	for _, n := range t.Columns {
		c := n.GetRangeTableFuncCol()
		if a.spend(1); c == nil {
			a.giveUp("%s as a column of XMLTABLE is not understood", describe(n))
			return
		}
		a.saw(1)
		if c.TypeName != nil { // none FOR ORDINALITY
			a.typeName(c.TypeName)
		}
		lin = lin.and(a.computed(s, role, c.Colexpr, c.Coldefexpr))
		it.columns = append(it.columns, column{name: c.Colname})
	}
	for i := range it.columns {
		it.columns[i].lin = lin
	}
	a.alias(t.Alias, it)
	s.items = append(s.items, it)
}

// use is the one entry of the current statement for a relation.
func (a *analyzer) use(rel *sql.Relation) *use {
	for _, u := range a.uses {
		if u.rel == rel {
			return u
		}
	}
	u := &use{rel: rel, verbs: map[sql.Verb]bool{}, read: map[string]sql.ColumnRole{}, write: map[string]bool{}, targetReads: map[string]bool{}}
	a.uses = append(a.uses, u)
	return u
}

func (a *analyzer) derived(r *pg.RangeSubselect, s *scope) {
	a.saw(1)
	q := r.Subquery.GetSelectStmt()
	if q == nil {
		a.giveUp("%s in FROM is not understood", describe(r.Subquery))
		return
	}
	res := a.query(q, &scope{parent: s, hidden: !r.Lateral})
	it := &item{columns: res.columns, open: res.open, whole: r.Alias != nil, bare: true, derived: true}
	a.alias(r.Alias, it)
	s.items = append(s.items, it)
}

func (a *analyzer) fromFunction(f *pg.RangeFunction, s *scope) {
	a.saw(1)
	lin := lineage{computed: true}
	it := &item{whole: true, bare: true}
	for _, n := range f.Functions {
		// A list of the call and its column definitions.
		l := n.GetList()
		if l == nil || len(l.Items) == 0 || len(l.Items) > 2 {
			a.giveUp("%s in FROM is not understood", describe(n))
			return
		}
		a.saw(1)
		// How many rows there are depends on the arguments.
		const role = sql.RolePredicate | sql.RoleComputed
		c := l.Items[0].GetFuncCall()
		if len(f.Coldeflist) == 0 && (len(l.Items) == 1 || l.Items[1].GetNode() == nil) && severalArrays(c) {
			lin = lin.and(a.unnest(c, s, role))
		} else {
			lin = lin.and(a.computed(s, role, l.Items[0]))
		}
		if c != nil && it.name == "" && len(c.Funcname) > 0 {
			it.name = c.Funcname[len(c.Funcname)-1].GetString_().GetSval()
		}
		if len(l.Items) == 2 && l.Items[1].GetNode() != nil {
			defs := l.Items[1].GetList()
			if defs == nil {
				a.giveUp("%s in FROM is not understood", describe(l.Items[1]))
				return
			}
			a.saw(1)
			a.definitions(defs.Items, it, lin)
		}
	}
	a.definitions(f.Coldeflist, it, lin)
	if len(f.Coldeflist) == 0 {
		it.open = &lin
	}
	a.alias(f.Alias, it)
	s.items = append(s.items, it)
}

// allSettings puts pg_settings in the place of the function that it is a view of, by which
// pgAdmin asks for one setting when it connects: of the view it is known who may see what.
func (a *analyzer) allSettings(f *pg.RangeFunction, holder *pg.Node, s *scope) bool {
	const function = "pg_show_all_settings"
	if len(f.Functions) != 1 || len(f.Coldeflist) > 0 || f.Ordinality || f.IsRowsfrom || f.Lateral {
		return false
	}
	items := f.Functions[0].GetList().GetItems()
	if len(items) == 0 || len(items) > 2 || len(items) == 2 && items[1].GetNode() != nil {
		return false
	}
	c := items[0].GetFuncCall()
	if c == nil || len(c.Args) > 0 || c.AggStar || c.AggFilter != nil || c.Over != nil || len(c.AggOrder) > 0 {
		return false
	}
	schemas, name, ok := a.candidates(names(c.Funcname))
	if !ok || name != function || !slices.Contains(schemas, catalogSchema) ||
		slices.ContainsFunc(schemas, func(in string) bool {
			return in != catalogSchema && len(a.cat.Functions[sql.Name{Schema: in, Name: name}]) > 0
		}) {
		return false
	}
	a.strings(c.Funcname)
	a.saw(2) // the list and the call; what holds them becomes the relation
	rv := &pg.RangeVar{Schemaname: catalogSchema, Relname: "pg_settings", Inh: true, Relpersistence: "p", Alias: f.Alias}
	if rv.Alias == nil {
		a.saw(-1) // which the text does not have
		rv.Alias = &pg.Alias{Aliasname: function}
	}
	holder.Node = &pg.Node_RangeVar{RangeVar: rv}
	a.altered = true
	a.table(rv, holder, s)
	return true
}

// severalArrays reports whether a call in FROM is one of unnest with several arrays: the parser of
// the server makes a call of its own unnest for each of them, whatever the path.
func severalArrays(c *pg.FuncCall) bool {
	return c != nil && len(c.Args) > 1 && len(c.Funcname) == 1 && c.Funcname[0].GetString_().GetSval() == "unnest" &&
		len(c.AggOrder) == 0 && c.AggFilter == nil && c.Over == nil && !c.AggStar && !c.AggDistinct && !c.FuncVariadic
}

func (a *analyzer) unnest(c *pg.FuncCall, s *scope, role sql.ColumnRole) lineage {
	a.saw(1)
	names := a.strings(c.Funcname)
	a.function([]string{catalogSchema, names[0]}, c.Location, one, false, false)
	return a.computedStars(s, role, c.Args)
}

// definitions adds columns that are defined beside a function in FROM.
func (a *analyzer) definitions(list []*pg.Node, it *item, lin lineage) {
	for _, n := range list {
		d := n.GetColumnDef()
		if d == nil || d.RawDefault != nil || len(d.Constraints) > 0 {
			a.giveUp("%s in FROM is not understood", describe(n))
			return
		}
		a.saw(1)
		a.typeName(d.TypeName)
		if d.CollClause != nil {
			a.saw(1)
			a.strings(d.CollClause.Collname)
		}
		it.columns = append(it.columns, column{name: d.Colname, lin: lin})
	}
}

func (a *analyzer) join(j *pg.JoinExpr, s *scope) {
	a.saw(1)
	begin := len(s.items)
	a.from(j.Larg, s)
	middle := len(s.items)
	a.from(j.Rarg, s)
	if a.problem != "" {
		return
	}
	left, right, both := s.items[begin:middle], s.items[middle:], s.items[begin:]
	shared := a.shared(j, left, right)
	it := &item{bare: true}
	for _, name := range shared {
		l, r := bareIn(left, name), bareIn(right, name)
		if l == nil || r == nil {
			a.giveUp("column %s of USING is not on both sides, or is ambiguous", name)
			return
		}
		a.operator([]string{"="}, 0)
		a.mark(l.lin.named(), sql.RolePredicate)
		a.mark(r.lin.named(), sql.RolePredicate)
		merged := *l
		switch j.Jointype {
		case pg.JoinType_JOIN_RIGHT:
			merged = *r
		case pg.JoinType_JOIN_FULL:
			merged.lin = l.lin.and(r.lin)
			merged.star = nil
		}
		it.columns = append(it.columns, merged)
	}
	if al := j.JoinUsingAlias; al != nil {
		u := &item{whole: true, columns: slices.Clone(it.columns)}
		a.alias(al, u)
		s.items = append(s.items, u)
	}
	for _, side := range both {
		it.uses = append(it.uses, side.uses...)
		if !side.bare {
			continue
		}
		for _, c := range side.columns {
			if !slices.Contains(shared, c.name) {
				it.columns = append(it.columns, c)
			}
		}
		if side.open != nil {
			open := *side.open
			if it.open != nil {
				open = open.and(*it.open)
			}
			it.open = &open
		}
	}
	if j.Quals != nil {
		a.expr(j.Quals, &scope{parent: s, hidden: true, items: slices.Clone(both)}, predicate("analyse-join-role"))
	}
	for _, side := range both {
		side.bare = false
		if j.Alias != nil {
			side.whole = false
		}
	}
	it.whole = j.Alias != nil
	a.alias(j.Alias, it)
	s.items = append(s.items, it)
}

// shared is the names of the columns that USING or NATURAL joins by.
func (a *analyzer) shared(j *pg.JoinExpr, left, right []*item) []string {
	if len(j.UsingClause) > 0 {
		return a.strings(j.UsingClause)
	}
	if !j.IsNatural {
		return nil
	}
	var names []string
	for _, l := range left {
		if !l.bare {
			continue
		}
		if l.open != nil {
			a.giveUp("NATURAL JOIN with a function is not understood")
		}
		for _, c := range l.columns {
			for _, r := range right {
				if r.bare && r.open != nil {
					a.giveUp("NATURAL JOIN with a function is not understood")
				}
				if _, k := r.find(c.name); r.bare && k > 0 && !slices.Contains(names, c.name) {
					names = append(names, c.name)
				}
			}
		}
	}
	return names
}

// bareIn is the one column of that name that can be named without a qualifier.
func bareIn(items []*item, name string) *column {
	var found *column
	for _, it := range items {
		if !it.bare {
			continue
		}
		for i := range it.columns {
			if it.columns[i].name == name {
				if found != nil {
					return nil
				}
				found = &it.columns[i]
			}
		}
		if found == nil && it.open != nil {
			found = &column{name: name, lin: *it.open}
		}
	}
	return found
}
