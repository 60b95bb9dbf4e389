package postgres

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/sql"
)

// expr visits an expression and says what its value comes from. Every column that it
// names is marked with role; role 0 leaves the role to whoever uses the value. A node
// without a rule here makes the facts incomplete.
func (a *analyzer) expr(n *pg.Node, s *scope, role sql.ColumnRole) lineage {
	if a.spend(1); a.problem != "" {
		return lineage{}
	}
	switch v := n.GetNode().(type) {
	case nil:
		return lineage{}
	case *pg.Node_AConst:
		a.saw(1)
		if v.AConst.Val != nil {
			a.saw(1)
		}
		return lineage{computed: true}
	case *pg.Node_Integer, *pg.Node_Float, *pg.Node_Boolean, *pg.Node_String_, *pg.Node_BitString, *pg.Node_ParamRef, *pg.Node_SetToDefault:
		a.saw(1)
		return lineage{computed: true}
	case *pg.Node_SqlvalueFunction:
		a.saw(1)
		return lineage{computed: true}
	case *pg.Node_MergeSupportFunc:
		a.saw(1)
		a.newer(versionMergeReturns, "merge_action")
		return lineage{computed: true}
	case *pg.Node_ColumnRef:
		lin := a.columnRef(v.ColumnRef, s)
		a.mark(lin, role)
		return lin
	case *pg.Node_AExpr:
		return a.aExpr(v.AExpr, s, role)
	case *pg.Node_FuncCall:
		return a.call(v.FuncCall, s, role)
	case *pg.Node_TypeCast:
		a.saw(1)
		a.typeName(v.TypeCast.TypeName)
		return a.computed(s, role, v.TypeCast.Arg)
	case *pg.Node_CollateClause:
		a.saw(1)
		a.strings(v.CollateClause.Collname)
		return a.computed(s, role, v.CollateClause.Arg)
	case *pg.Node_BoolExpr:
		a.saw(1)
		return a.computed(s, role, v.BoolExpr.Args...)
	case *pg.Node_NullTest:
		a.saw(1)
		return a.computed(s, role, v.NullTest.Arg)
	case *pg.Node_BooleanTest:
		a.saw(1)
		return a.computed(s, role, v.BooleanTest.Arg)
	case *pg.Node_CaseExpr:
		a.saw(1)
		if v.CaseExpr.Arg != nil {
			a.operator([]string{"="}, 0)
		}
		c := v.CaseExpr
		return a.computed(s, role, c.Arg, c.Defresult).and(a.computed(s, role, c.Args...))
	case *pg.Node_CaseWhen:
		a.saw(1)
		return a.computed(s, role, v.CaseWhen.Expr, v.CaseWhen.Result)
	case *pg.Node_CoalesceExpr:
		a.saw(1)
		return a.computed(s, role, v.CoalesceExpr.Args...)
	case *pg.Node_MinMaxExpr:
		a.saw(1)
		return a.computed(s, role, v.MinMaxExpr.Args...)
	case *pg.Node_RowExpr:
		a.saw(1)
		return a.computedStars(s, role, v.RowExpr.Args)
	case *pg.Node_AArrayExpr:
		a.saw(1)
		return a.computed(s, role, v.AArrayExpr.Elements...)
	case *pg.Node_List:
		a.saw(1)
		return a.computed(s, role, v.List.Items...)
	case *pg.Node_GroupingFunc:
		a.saw(1)
		return a.computed(s, role|sql.RolePredicate, v.GroupingFunc.Args...)
	case *pg.Node_XmlExpr:
		return a.xml(v.XmlExpr, s, role)
	case *pg.Node_XmlSerialize:
		a.saw(1)
		a.typeName(v.XmlSerialize.TypeName)
		return a.computed(s, role, v.XmlSerialize.Expr)
	case *pg.Node_NamedArgExpr:
		a.saw(1)
		return a.computed(s, role, v.NamedArgExpr.Arg)
	case *pg.Node_AIndirection:
		return a.indirection(v.AIndirection, s, role)
	case *pg.Node_SubLink:
		return a.subLink(v.SubLink, s, role)
	case *pg.Node_MultiAssignRef:
		// The source is shared by the columns, and stands in each of them.
		a.saw(1)
		return a.computed(s, role, v.MultiAssignRef.Source)
	}
	if lin, ok := a.json(n, s, role); ok {
		return lin
	}
	a.giveUp("%s is not understood", describe(n))
	return lineage{}
}

// computed visits parts of an expression and merges what they come from.
func (a *analyzer) computed(s *scope, role sql.ColumnRole, parts ...*pg.Node) lineage {
	out := lineage{computed: true}
	if role == sql.RoleOutput {
		role = sql.RoleComputed
	}
	for _, p := range parts {
		if p != nil {
			out = out.and(a.expr(p, s, role))
			a.spend(len(out.from))
		}
	}
	return out
}

// computedStars is computed for lists that may have x.* in them.
func (a *analyzer) computedStars(s *scope, role sql.ColumnRole, parts []*pg.Node) lineage {
	out := lineage{computed: true}
	for _, p := range parts {
		if c := p.GetColumnRef(); isStar(c) {
			for _, it := range a.starItems(c, s) {
				out = out.and(it.row())
			}
			a.mark(out, role)
			continue
		}
		out = out.and(a.computed(s, role, p))
	}
	return out
}

func isStar(c *pg.ColumnRef) bool {
	return c != nil && len(c.Fields) > 0 && c.Fields[len(c.Fields)-1].GetAStar() != nil
}

// columnRef resolves the name of a column or of a whole row.
func (a *analyzer) columnRef(c *pg.ColumnRef, s *scope) lineage {
	if isStar(c) {
		out := lineage{computed: true}
		for _, it := range a.starItems(c, s) {
			out = out.and(it.row())
		}
		return out
	}
	a.saw(1)
	names := a.strings(c.Fields)
	name := names[len(names)-1]
	switch len(names) {
	case 1:
		if lin, ok := a.bareColumn(s, name); ok {
			return lin
		}
		a.noColumn(c.Location, name, sql.Quote(name))
		return lineage{}
	case 2:
		return a.columnOf(a.item(s, "", names[0]), c.Location, names...)
	case 3, 4:
		if len(names) == 4 && names[0] != a.cat.Database {
			break
		}
		it := a.item(s, names[len(names)-3], names[len(names)-2])
		if it != nil {
			a.qualified = append(a.qualified, qualified{c, it})
		}
		return a.columnOf(it, c.Location, names...)
	}
	a.giveUp("column %s has a name that is not understood", quoteAll(names...))
	return lineage{}
}

// columnOf resolves the last of the names, a column of the item that the others mean, where it
// stands at a place in the text.
func (a *analyzer) columnOf(it *item, at int32, names ...string) lineage {
	if it == nil {
		a.noEntry(at, names[len(names)-2])
		return lineage{}
	}
	name := names[len(names)-1]
	lin, n := it.column(name)
	switch {
	case n == 1:
		return lin.named()
	case n > 1:
		a.giveUp("column %s is ambiguous", quoteAll(names...))
	case it.open != nil:
		a.attribute(name)
		return it.open.named()
	case a.called(a.path, name, one, false, false):
		a.giveUp("%s calls a function; write %s(%s)", quoteAll(names...), name, quoteAll(names[:len(names)-1]...))
	default:
		a.noColumn(at, name, quoteAll(names...))
	}
	return lineage{}
}

// systemColumns are those that every table has. A task never lists them.
var systemColumns = map[string]bool{"ctid": true, "tableoid": true, "xmin": true, "xmax": true, "cmin": true, "cmax": true}

// starItems finds the items that a * stands for.
func (a *analyzer) starItems(c *pg.ColumnRef, s *scope) []*item {
	a.saw(2) // the reference and the star
	var names []string
	if len(c.Fields) > 1 {
		names = a.strings(c.Fields[:len(c.Fields)-1])
	}
	var it *item
	switch len(names) {
	case 0:
		var items []*item
		if s != nil {
			for _, it := range s.items {
				if it.bare {
					items = append(items, it)
				}
			}
		}
		if len(items) == 0 {
			a.giveUp("* stands without a relation in FROM")
		}
		return items
	case 1:
		it = a.item(s, "", names[0])
	case 2, 3:
		if len(names) == 3 && names[0] != a.cat.Database {
			break
		}
		if it = a.item(s, names[len(names)-2], names[len(names)-1]); it != nil {
			a.qualified = append(a.qualified, qualified{c, it})
		}
	}
	if it == nil {
		a.noEntry(c.Location, names[len(names)-1])
		return nil
	}
	return []*item{it}
}

func (a *analyzer) aExpr(e *pg.A_Expr, s *scope, role sql.ColumnRole) lineage {
	a.saw(1)
	names := a.strings(e.Name)
	switch e.Kind {
	case pg.A_Expr_Kind_AEXPR_BETWEEN, pg.A_Expr_Kind_AEXPR_BETWEEN_SYM:
		a.operator([]string{">="}, 0)
		a.operator([]string{"<="}, 0)
	case pg.A_Expr_Kind_AEXPR_NOT_BETWEEN, pg.A_Expr_Kind_AEXPR_NOT_BETWEEN_SYM:
		a.operator([]string{"<"}, 0)
		a.operator([]string{">"}, 0)
	default:
		a.operator(names, e.Location)
	}
	return a.computed(s, role, e.Lexpr, e.Rexpr)
}

func (a *analyzer) call(f *pg.FuncCall, s *scope, role sql.ColumnRole) lineage {
	a.saw(1)
	names := a.strings(f.Funcname)
	args := len(f.Args)
	if f.AggWithinGroup {
		args += len(f.AggOrder)
	}
	noted := a.sizesNoted
	a.function(names, f.Location, arity{args - parameters(f.Args), args}, f.FuncVariadic, a.settingCall(f, names, s))
	if a.sizesNoted > noted && len(f.Args) > 0 && !f.FuncVariadic {
		a.asksSize(names, f)
	}
	lin := a.computedStars(s, role, f.Args)
	order := sql.RolePredicate
	if f.AggWithinGroup {
		order |= role // percentile_cont and alike return what they order
	}
	lin = lin.and(a.sortBy(f.AggOrder, s, order))
	if f.AggFilter != nil {
		a.expr(f.AggFilter, s, predicate("analyse-filter-role"))
	}
	if f.Over != nil {
		a.window(f.Over, s)
	}
	return lin
}

func (a *analyzer) window(w *pg.WindowDef, s *scope) {
	a.saw(1)
	for _, p := range w.PartitionClause {
		a.expr(p, s, sql.RolePredicate)
	}
	a.sortBy(w.OrderClause, s, sql.RolePredicate)
	a.computed(s, sql.RolePredicate, w.StartOffset, w.EndOffset)
}

// sortBy visits a list of SortBy nodes that name columns of FROM, not of the result.
func (a *analyzer) sortBy(list []*pg.Node, s *scope, role sql.ColumnRole) lineage {
	out := lineage{computed: true}
	for _, n := range list {
		b := n.GetSortBy()
		if b == nil {
			a.giveUp("%s in an order is not understood", describe(n))
			continue
		}
		a.useOperator(b)
		out = out.and(a.expr(b.Node, s, role))
	}
	return out
}

func (a *analyzer) useOperator(b *pg.SortBy) {
	a.saw(1)
	if len(b.UseOp) > 0 {
		a.operator(a.strings(b.UseOp), b.Location)
	}
}

func (a *analyzer) indirection(n *pg.A_Indirection, s *scope, role sql.ColumnRole) lineage {
	a.saw(1)
	lin := a.computed(s, role, n.Arg)
	for i, x := range n.Indirection {
		switch v := x.GetNode().(type) {
		case *pg.Node_String_:
			a.saw(1)
			// (x).column names a column of the row x.
			if it := a.rowItem(n.Arg, s); i == 0 && it != nil {
				col := a.columnOf(it, 0, it.name, v.String_.Sval)
				a.mark(col, role)
				lin = lin.and(col)
			} else {
				a.attribute(v.String_.Sval)
			}
		case *pg.Node_AIndices:
			a.saw(1)
			lin = lin.and(a.computed(s, role|sql.RolePredicate, v.AIndices.Lidx, v.AIndices.Uidx))
		case *pg.Node_AStar:
			a.saw(1)
		default:
			a.giveUp("%s is not understood", describe(x))
		}
	}
	return lin
}

// rowItem is the item whose whole row an expression is, or nil.
func (a *analyzer) rowItem(n *pg.Node, s *scope) *item {
	c := n.GetColumnRef()
	if c == nil || len(c.Fields) != 1 || c.Fields[0].GetString_() == nil {
		return nil
	}
	name := c.Fields[0].GetString_().Sval
	isColumn := false
	s.levels(func(items []*item) bool {
		for _, it := range items {
			if _, k := it.column(name); it.bare && (k > 0 || it.open != nil) {
				isColumn = true
			}
		}
		return isColumn
	})
	if isColumn {
		return nil
	}
	return a.item(s, "", name)
}

func (a *analyzer) subLink(l *pg.SubLink, s *scope, role sql.ColumnRole) lineage {
	a.saw(1)
	q := l.Subselect.GetSelectStmt()
	if q == nil {
		a.giveUp("%s as a sub-select is not understood", describe(l.Subselect))
		return lineage{}
	}
	r := a.query(q, &scope{parent: s})
	out := lineage{computed: true}
	switch l.SubLinkType {
	case pg.SubLinkType_EXISTS_SUBLINK:
		// What is selected does not matter, only whether there is a row.
		return out
	case pg.SubLinkType_ANY_SUBLINK, pg.SubLinkType_ALL_SUBLINK:
		if len(l.OperName) > 0 {
			a.operator(a.strings(l.OperName), l.Location)
		} else {
			a.operator([]string{"="}, 0)
		}
		role |= sql.RolePredicate
		out = out.and(a.computed(s, role, l.Testexpr))
	case pg.SubLinkType_EXPR_SUBLINK, pg.SubLinkType_ARRAY_SUBLINK:
		if role == sql.RoleOutput {
			role = sql.RoleComputed
		}
	default:
		a.giveUp("this kind of sub-select is not understood")
	}
	a.markAll(r, role)
	return union(out, r.all())
}

func (a *analyzer) xml(x *pg.XmlExpr, s *scope, role sql.ColumnRole) lineage {
	a.saw(1)
	out := a.computed(s, role, x.Args...)
	for _, n := range x.NamedArgs {
		t := n.GetResTarget()
		if t == nil {
			a.giveUp("%s is not understood", describe(n))
			continue
		}
		a.saw(1)
		out = out.and(a.computed(s, role, t.Val))
	}
	return out
}

// typeName visits the name of a type that a value is turned into.
func (a *analyzer) typeName(t *pg.TypeName) {
	if t == nil {
		return
	}
	a.saw(1)
	if t.Setof || t.PctType {
		a.giveUp("SETOF and %%TYPE are not understood")
	}
	a.typ(a.strings(t.Names), t.Location)
	for _, m := range t.Typmods {
		if m.GetAConst() == nil {
			a.giveUp("%s as a type's modifier is not understood", describe(m))
			return
		}
		a.expr(m, nil, 0)
	}
	for _, b := range t.ArrayBounds {
		a.expr(b, nil, 0)
	}
}

// strings visits a list of names.
func (a *analyzer) strings(list []*pg.Node) []string {
	out := make([]string, 0, len(list))
	for _, n := range list {
		s := n.GetString_()
		if s == nil {
			a.giveUp("%s as part of a name is not understood", describe(n))
			return []string{""}
		}
		a.saw(1)
		out = append(out, s.Sval)
	}
	if len(out) == 0 {
		a.giveUp("an empty name is not understood")
		return []string{""}
	}
	return out
}
