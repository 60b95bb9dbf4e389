package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/sql"
)

// result is what a query returns.
type result struct {
	columns []column
	open    *lineage // where there may be more columns than are known
}

// all is what all of the columns come from.
func (r result) all() lineage {
	parts := make([]lineage, 0, len(r.columns)+1)
	for _, c := range r.columns {
		parts = append(parts, c.lin)
	}
	if r.open != nil {
		parts = append(parts, *r.open)
	}
	return union(parts...)
}

// query visits a SELECT, VALUES, TABLE or set operation. s is its own, empty scope. The
// columns of the result are not marked: that is for whoever uses them.
func (a *analyzer) query(q *pg.SelectStmt, s *scope) result {
	a.saw(1)
	if a.depth++; a.depth > maxDepth {
		a.giveUp("it is nested too deep")
	}
	if a.problem != "" {
		return result{}
	}
	defer func() { a.depth-- }()
	if q.IntoClause != nil {
		a.giveUp("INTO inside a statement is not understood")
	}
	a.with(q.WithClause, s)
	var r result
	switch {
	case q.Op != pg.SetOperation_SETOP_NONE && q.Op != pg.SetOperation_SET_OPERATION_UNDEFINED:
		r = a.setOperation(q, s)
	case len(q.ValuesLists) > 0:
		r = a.values(q.ValuesLists, s)
	default:
		r = a.plainSelect(q, s)
	}
	a.order(q.SortClause, s, r)
	a.computed(s, sql.RolePredicate, q.LimitOffset, q.LimitCount)
	a.locking(q.LockingClause, s, q.FromClause)
	return r
}

func (a *analyzer) plainSelect(q *pg.SelectStmt, s *scope) result {
	for _, f := range q.FromClause {
		a.from(f, s)
	}
	if a.problem != "" {
		return result{}
	}
	r := a.targets(q.TargetList, s)
	if q.WhereClause != nil {
		a.expr(q.WhereClause, s, predicate("analyse-where-role"))
		a.selections = append(a.selections, selection{q.WhereClause, s.items})
	}
	for _, g := range q.GroupClause {
		a.group(g, s, r)
	}
	if len(q.GroupClause) > 0 {
		a.groupings = append(a.groupings, grouping{q, s.items})
	}
	if q.HavingClause != nil {
		a.expr(q.HavingClause, s, sql.RolePredicate)
	}
	for _, w := range q.WindowClause {
		if w.GetWindowDef() == nil {
			a.giveUp("%s as a window is not understood", describe(w))
			continue
		}
		a.window(w.GetWindowDef(), s)
	}
	a.distinct(q.DistinctClause, s, r)
	return r
}

// distinct visits DISTINCT, which is a list of one empty node, and DISTINCT ON.
func (a *analyzer) distinct(list []*pg.Node, s *scope, r result) {
	for _, n := range list {
		if n.GetNode() != nil {
			a.orderItem(n, s, r, true)
			continue
		}
		a.markAll(r, sql.RolePredicate)
	}
}

func (a *analyzer) markAll(r result, role sql.ColumnRole) {
	for _, c := range r.columns {
		a.mark(c.lin, role)
	}
	if r.open != nil {
		a.mark(*r.open, role)
	}
}

func (a *analyzer) setOperation(q *pg.SelectStmt, s *scope) result {
	l := a.query(q.Larg, &scope{parent: s})
	r := a.query(q.Rarg, &scope{parent: s})
	out := merge(l, r)
	if !q.All || q.Op != pg.SetOperation_SETOP_UNION {
		a.markAll(out, sql.RolePredicate)
	}
	return out
}

// merge is the result of two queries, one after the other. Where a * is among the
// columns their positions are not known, and each may come from any.
func merge(l, r result) result {
	loose := l.open != nil || r.open != nil || len(l.columns) != len(r.columns)
	all := union(l.all(), r.all())
	for _, side := range []result{l, r} {
		for _, c := range side.columns {
			loose = loose || c.star != nil
		}
	}
	out := result{columns: make([]column, len(l.columns))}
	for i, c := range l.columns {
		out.columns[i] = column{name: c.name, lin: all}
		if !loose {
			out.columns[i].lin = c.lin.and(r.columns[i].lin)
		}
	}
	if l.open != nil {
		out.open = &all
	}
	return out
}

func (a *analyzer) values(rows []*pg.Node, s *scope) result {
	var out result
	for i, n := range rows {
		row := n.GetList()
		if row == nil {
			a.giveUp("%s as a row is not understood", describe(n))
			return out
		}
		a.saw(1)
		for j, v := range row.Items {
			lin := a.computed(s, 0, v)
			switch {
			case i == 0:
				out.columns = append(out.columns, column{name: valuesColumn(j), lin: lin})
			case j < len(out.columns):
				out.columns[j].lin = out.columns[j].lin.and(lin)
			}
		}
	}
	return out
}

// predicate is the role of what decides about rows.
func predicate(planted string) sql.ColumnRole {
	if hole.Is(planted) {
		return sql.RoleOutput
	}
	return sql.RolePredicate
}

// targets visits a select list or RETURNING.
func (a *analyzer) targets(list []*pg.Node, s *scope) result {
	var out result
	for _, n := range list {
		t := n.GetResTarget()
		if t == nil {
			a.giveUp("%s in a select list is not understood", describe(n))
			return out
		}
		a.saw(1)
		if c := t.Val.GetColumnRef(); isStar(c) {
			for _, it := range a.starItems(c, s) {
				a.expand(it, &out)
			}
			continue
		}
		if x := t.Val.GetAIndirection(); x != nil && len(x.Indirection) > 0 && x.Indirection[len(x.Indirection)-1].GetAStar() != nil {
			lin := a.expr(t.Val, s, 0)
			if it := a.rowItem(x.Arg, s); it != nil && len(x.Indirection) == 1 {
				a.expand(it, &out)
			} else {
				out.open = &lin
			}
			continue
		}
		lin := a.expr(t.Val, s, 0)
		out.columns = append(out.columns, column{name: outputName(t), lin: lin})
	}
	return out
}

// expand adds the columns of an item that * stands for.
func (a *analyzer) expand(it *item, out *result) {
	out.columns = append(out.columns, it.columns...)
	for _, u := range it.uses {
		u.read["*"] |= 0
		if it.target {
			u.targetReads["*"] = true
		}
	}
	if it.open != nil {
		open := *it.open
		if out.open != nil {
			open = open.and(*out.open)
		}
		out.open = &open
	}
}

// order visits ORDER BY, whose items are columns of the result by name or position, or
// expressions over FROM.
func (a *analyzer) order(list []*pg.Node, s *scope, r result) {
	for _, n := range list {
		b := n.GetSortBy()
		if b == nil {
			a.giveUp("%s in ORDER BY is not understood", describe(n))
			continue
		}
		a.useOperator(b)
		a.orderItem(b.Node, s, r, true)
	}
}

// orderItem visits one item of ORDER BY, DISTINCT ON or GROUP BY. In the last a column
// of FROM comes first, in the others one of the result.
func (a *analyzer) orderItem(n *pg.Node, s *scope, r result, resultFirst bool) {
	if i := n.GetAConst().GetIval(); i != nil {
		a.saw(2)
		a.markPosition(r, int(i.Ival))
		return
	}
	if c := n.GetColumnRef(); c != nil && len(c.Fields) == 1 && c.Fields[0].GetString_() != nil {
		name := c.Fields[0].GetString_().Sval
		var lin lineage
		found := false
		for _, col := range r.columns {
			if col.name == name {
				lin = lineage{from: append(lin.from, col.lin.named().from...)}
				found = true
			}
		}
		if found && (resultFirst || !a.inFrom(s, name)) {
			a.saw(2)
			a.mark(lin, sql.RolePredicate)
			return
		}
	}
	a.expr(n, s, sql.RolePredicate)
}

// inFrom reports whether a column of this level's own FROM has that name.
func (a *analyzer) inFrom(s *scope, name string) bool {
	for _, it := range s.items {
		if _, k := it.column(name); it.bare && (k > 0 || it.open != nil) {
			return true
		}
	}
	return false
}

// markPosition marks the column at a position of the result. After a * it may be any.
func (a *analyzer) markPosition(r result, position int) {
	for i, c := range r.columns {
		if c.star != nil {
			a.markAll(r, sql.RolePredicate)
			return
		}
		if i+1 == position {
			a.mark(c.lin, sql.RolePredicate)
			return
		}
	}
	a.markAll(r, sql.RolePredicate)
}

func (a *analyzer) group(n *pg.Node, s *scope, r result) {
	switch v := n.GetNode().(type) {
	case *pg.Node_GroupingSet:
		a.saw(1)
		for _, c := range v.GroupingSet.Content {
			a.group(c, s, r)
		}
	case *pg.Node_RowExpr:
		if v.RowExpr.RowFormat != pg.CoercionForm_COERCE_IMPLICIT_CAST {
			a.expr(n, s, sql.RolePredicate)
			return
		}
		a.saw(1)
		for _, c := range v.RowExpr.Args { // (a, 1) is a list, whose items may be positions
			a.group(c, s, r)
		}
	case *pg.Node_List:
		a.expr(n, s, sql.RolePredicate)
	default:
		a.orderItem(n, s, r, false)
	}
}

// with visits the common table expressions of a statement and adds them to its scope.
func (a *analyzer) with(w *pg.WithClause, s *scope) {
	if w == nil {
		return
	}
	a.saw(1)
	for i, n := range w.Ctes {
		c := n.GetCommonTableExpr()
		if c == nil {
			a.giveUp("%s in WITH is not understood", describe(n))
			return
		}
		a.saw(1)
		if w.Recursive {
			a.forward(c, w.Ctes[i+1:])
			a.recursive(c, s)
		} else {
			e := &cte{name: c.Ctename}
			a.fill(e, c, a.cteQuery(c.Ctequery, &scope{parent: s}))
			s.ctes = append(s.ctes, e)
		}
		if a.problem != "" {
			return
		}
	}
}

// forward refuses an expression of WITH RECURSIVE that names a later one: the server puts
// them in order, and here the name would mean something else.
func (a *analyzer) forward(c *pg.CommonTableExpr, later []*pg.Node) {
	if len(later) == 0 {
		return
	}
	descend(c.Ctequery.ProtoReflect(), func(m protoreflect.Message) bool {
		a.spend(1)
		rv, ok := m.Interface().(*pg.RangeVar)
		if ok && rv.Schemaname == "" && slices.ContainsFunc(later, func(n *pg.Node) bool { return n.GetCommonTableExpr().GetCtename() == rv.Relname }) {
			a.giveUp("%s is named in WITH RECURSIVE before it is written; put it first", rv.Relname)
		}
		return a.problem == ""
	})
}

// recursive visits an expression that may name itself. What it may be made of is not
// known before it was visited, so it is made of everything in it.
func (a *analyzer) recursive(c *pg.CommonTableExpr, s *scope) {
	e := &cte{name: c.Ctename}
	q := c.Ctequery.GetSelectStmt()
	inner := &scope{parent: s}
	if q == nil || q.Op != pg.SetOperation_SETOP_UNION || q.Larg == nil || q.Rarg == nil {
		// It cannot name itself, and PostgreSQL would say so.
		a.fill(e, c, a.cteQuery(c.Ctequery, inner))
		s.ctes = append(s.ctes, e)
		return
	}
	a.saw(1)
	if slices.ContainsFunc(q.WithClause.GetCtes(), func(n *pg.Node) bool { return n.GetCommonTableExpr().GetCtename() == c.Ctename }) {
		a.giveUp("%s means two things in WITH RECURSIVE", c.Ctename)
		return
	}
	a.with(q.WithClause, inner)
	l := a.query(q.Larg, &scope{parent: inner})
	all := l.all()
	self := result{columns: make([]column, len(l.columns)), open: l.open}
	for i := range l.columns {
		self.columns[i] = column{name: l.columns[i].name, lin: all}
	}
	a.fill(e, c, self)
	inner.ctes = append(inner.ctes, e)
	r := a.query(q.Rarg, &scope{parent: inner})
	// In the next turn it is what the right side was just now visited without.
	a.mark(r.all(), sql.RoleComputed|sql.RolePredicate)
	all = union(all, r.all())
	if !q.All {
		a.mark(all, sql.RolePredicate)
	}
	a.order(q.SortClause, inner, self)
	a.computed(inner, sql.RolePredicate, q.LimitOffset, q.LimitCount)
	if len(q.LockingClause) > 0 {
		a.giveUp("FOR UPDATE in WITH RECURSIVE is not understood")
	}
	done := &cte{name: e.name, open: e.open}
	for _, col := range e.columns {
		done.columns = append(done.columns, column{name: col.name, lin: all})
	}
	s.ctes = append(s.ctes, done)
}

func (a *analyzer) cteQuery(n *pg.Node, s *scope) result {
	if q, ok := n.GetNode().(*pg.Node_SelectStmt); ok {
		return a.query(q.SelectStmt, s)
	}
	a.st.Within = true
	switch v := n.GetNode().(type) {
	case *pg.Node_InsertStmt:
		return a.insert(v.InsertStmt, s)
	case *pg.Node_UpdateStmt:
		return a.update(v.UpdateStmt, s)
	case *pg.Node_DeleteStmt:
		return a.delete(v.DeleteStmt, s)
	case *pg.Node_MergeStmt:
		return a.merge(v.MergeStmt, s)
	}
	a.giveUp("%s in WITH is not understood", describe(n))
	return result{}
}

func (a *analyzer) fill(e *cte, c *pg.CommonTableExpr, r result) {
	it := &item{columns: r.columns, open: r.open}
	if len(c.Aliascolnames) > 0 {
		a.byPosition(it.columns)
		for i, name := range a.strings(c.Aliascolnames) {
			if i < len(it.columns) {
				if i == 0 {
					it.columns = append([]column(nil), it.columns...)
				}
				it.columns[i].name = name
			} else if it.open != nil {
				it.columns = append(it.columns, column{name: name, lin: *it.open})
			}
		}
	}
	e.columns, e.open = it.columns, it.open
}

// locking visits FOR UPDATE and alike, which need the right to change.
func (a *analyzer) locking(list []*pg.Node, s *scope, from []*pg.Node) {
	for _, n := range list {
		c := n.GetLockingClause()
		if c == nil {
			a.giveUp("%s is not understood", describe(n))
			continue
		}
		a.saw(1)
		if hole.Is("analyse-locks") {
			continue
		}
		only := map[string]bool{}
		for _, r := range c.LockedRels {
			rv := r.GetRangeVar()
			if rv == nil || rv.Schemaname != "" {
				a.giveUp("%s in FOR UPDATE OF is not understood", describe(r))
				return
			}
			a.saw(1)
			only[rv.Relname] = true
		}
		if len(from) == 0 {
			continue
		}
		for _, it := range s.items {
			if len(only) > 0 && !only[it.name] {
				continue
			}
			if it.ref != nil {
				it.ref.locked = true
				it.ref.use.verbs[sql.Update] = true
				a.locks = true
			} else if it.derived || len(it.columns) > 0 && it.whole && len(it.uses) == 0 {
				// A sub-select: its relations would be locked as well.
				a.giveUp("FOR UPDATE of a sub-select is not understood; name the tables with OF")
			}
		}
	}
}
