package postgres

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/sql"
)

// What the standard has of JSON is syntax, not functions, so that each form has a rule of its
// own, as a call has: what it computes comes from all that stands in it.

// The first servers that know what builds JSON, and what asks something of it or reads text as it.
const (
	versionBuildsJSON = 160000
	versionAsksJSON   = 170000
)

// json visits an expression of it, and reports whether it is one.
func (a *analyzer) json(n *pg.Node, s *scope, role sql.ColumnRole) (lineage, bool) {
	switch n.GetNode().(type) {
	case *pg.Node_JsonArrayConstructor, *pg.Node_JsonArrayAgg, *pg.Node_JsonObjectConstructor:
		a.newer(versionBuildsJSON, jsonName(n))
	case *pg.Node_JsonParseExpr, *pg.Node_JsonScalarExpr, *pg.Node_JsonSerializeExpr, *pg.Node_JsonFuncExpr:
		a.newer(versionAsksJSON, jsonName(n))
	}
	switch v := n.GetNode().(type) {
	case *pg.Node_JsonObjectConstructor:
		a.saw(1)
		a.jsonOutput(v.JsonObjectConstructor.Output)
		return a.computed(s, role, v.JsonObjectConstructor.Exprs...), true
	case *pg.Node_JsonArrayConstructor:
		a.saw(1)
		a.jsonOutput(v.JsonArrayConstructor.Output)
		return a.computed(s, role, v.JsonArrayConstructor.Exprs...), true
	case *pg.Node_JsonArrayQueryConstructor:
		c := v.JsonArrayQueryConstructor
		a.saw(1)
		a.jsonOutput(c.Output)
		a.jsonFormat(c.Format)
		q := c.Query.GetSelectStmt()
		if q == nil {
			a.giveUp("%s as the query of an array is not understood", describe(c.Query))
			return lineage{}, true
		}
		if role == sql.RoleOutput {
			role = sql.RoleComputed
		}
		r := a.query(q, &scope{parent: s})
		a.markAll(r, role)
		return union(r.all()), true
	case *pg.Node_JsonKeyValue:
		a.saw(1)
		return a.computed(s, role, v.JsonKeyValue.Key).and(a.jsonValue(v.JsonKeyValue.Value, s, role)), true
	case *pg.Node_JsonValueExpr:
		return a.jsonValue(v.JsonValueExpr, s, role), true
	case *pg.Node_JsonObjectAgg:
		o := v.JsonObjectAgg
		a.saw(1)
		lin := a.jsonAggregate(o.Constructor, s)
		if o.Arg != nil {
			a.saw(1)
			lin = lin.and(a.computed(s, role, o.Arg.Key)).and(a.jsonValue(o.Arg.Value, s, role))
		}
		return lin, true
	case *pg.Node_JsonArrayAgg:
		a.saw(1)
		return a.jsonAggregate(v.JsonArrayAgg.Constructor, s).and(a.jsonValue(v.JsonArrayAgg.Arg, s, role)), true
	case *pg.Node_JsonParseExpr:
		a.saw(1)
		a.jsonOutput(v.JsonParseExpr.Output)
		return a.jsonValue(v.JsonParseExpr.Expr, s, role), true
	case *pg.Node_JsonScalarExpr:
		a.saw(1)
		a.jsonOutput(v.JsonScalarExpr.Output)
		return a.computed(s, role, v.JsonScalarExpr.Expr), true
	case *pg.Node_JsonSerializeExpr:
		a.saw(1)
		a.jsonOutput(v.JsonSerializeExpr.Output)
		return a.jsonValue(v.JsonSerializeExpr.Expr, s, role), true
	case *pg.Node_JsonIsPredicate:
		a.saw(1)
		a.jsonFormat(v.JsonIsPredicate.Format)
		return a.computed(s, role, v.JsonIsPredicate.Expr), true
	case *pg.Node_JsonFuncExpr:
		f := v.JsonFuncExpr
		a.saw(1)
		a.jsonOutput(f.Output)
		return a.jsonAsked(s, role, f.ContextItem, f.Passing, f.Pathspec).
			and(a.jsonOtherwise(f.OnEmpty, s, role)).and(a.jsonOtherwise(f.OnError, s, role)), true
	}
	return lineage{}, false
}

// jsonAsked visits what a path is asked of, and what is passed to it.
func (a *analyzer) jsonAsked(s *scope, role sql.ColumnRole, of *pg.JsonValueExpr, passing []*pg.Node, path *pg.Node) lineage {
	lin := a.jsonValue(of, s, role).and(a.computed(s, role, path))
	for _, n := range passing {
		p := n.GetJsonArgument()
		if p == nil {
			a.giveUp("%s as what is passed to a path is not understood", describe(n))
			return lineage{}
		}
		a.saw(1)
		lin = lin.and(a.jsonValue(p.Val, s, role))
	}
	return lin
}

func (a *analyzer) jsonValue(v *pg.JsonValueExpr, s *scope, role sql.ColumnRole) lineage {
	if v == nil {
		return lineage{computed: true}
	}
	a.saw(1)
	a.jsonFormat(v.Format)
	return a.computed(s, role, v.RawExpr, v.FormattedExpr)
}

// jsonAggregate visits what an aggregate says beside what it collects.
func (a *analyzer) jsonAggregate(c *pg.JsonAggConstructor, s *scope) lineage {
	if c == nil {
		return lineage{computed: true}
	}
	a.saw(1)
	a.jsonOutput(c.Output)
	lin := a.sortBy(c.AggOrder, s, sql.RolePredicate)
	if c.AggFilter != nil {
		a.expr(c.AggFilter, s, predicate("analyse-filter-role"))
	}
	if c.Over != nil {
		a.window(c.Over, s)
	}
	return lin
}

// jsonOtherwise visits what a value is where there is none, or where it cannot be made.
func (a *analyzer) jsonOtherwise(b *pg.JsonBehavior, s *scope, role sql.ColumnRole) lineage {
	if b == nil {
		return lineage{computed: true}
	}
	a.saw(1)
	return a.computed(s, role, b.Expr)
}

func (a *analyzer) jsonOutput(o *pg.JsonOutput) {
	if o == nil {
		return
	}
	a.saw(1)
	a.typeName(o.TypeName)
	if o.Returning != nil {
		a.saw(1)
		a.jsonFormat(o.Returning.Format)
	}
}

func (a *analyzer) jsonFormat(f *pg.JsonFormat) {
	if f != nil {
		a.saw(1)
	}
}

// jsonTable visits JSON_TABLE, whose rows and columns depend on all that stands in it.
func (a *analyzer) jsonTable(t *pg.JsonTable, s *scope) {
	const role = sql.RolePredicate | sql.RoleComputed
	a.saw(1)
	lin := a.jsonAsked(s, role, t.ContextItem, t.Passing, a.jsonPath(t.Pathspec)).and(a.jsonOtherwise(t.OnError, s, role))
	it := &item{whole: true, bare: true}
	lin = lin.and(a.jsonColumns(t.Columns, it, s, role))
	for i := range it.columns {
		it.columns[i].lin = lin
	}
	a.alias(t.Alias, it)
	s.items = append(s.items, it)
}

// jsonPath is the text of a path of JSON_TABLE, which is a constant.
func (a *analyzer) jsonPath(p *pg.JsonTablePathSpec) *pg.Node {
	if p == nil {
		return nil
	}
	a.saw(1)
	return p.String_
}

// jsonColumns adds columns of JSON_TABLE to an item, those of nested paths too.
func (a *analyzer) jsonColumns(list []*pg.Node, it *item, s *scope, role sql.ColumnRole) lineage {
	lin := lineage{computed: true}
	for _, n := range list {
		c := n.GetJsonTableColumn()
		if a.spend(1); c == nil {
			a.giveUp("%s as a column of JSON_TABLE is not understood", describe(n))
		}
		if a.problem != "" {
			return lineage{}
		}
		a.saw(1)
		a.typeName(c.TypeName)
		a.jsonFormat(c.Format)
		lin = lin.and(a.computed(s, role, a.jsonPath(c.Pathspec))).
			and(a.jsonOtherwise(c.OnEmpty, s, role)).and(a.jsonOtherwise(c.OnError, s, role))
		if c.Coltype == pg.JsonTableColumnType_JTC_NESTED {
			lin = lin.and(a.jsonColumns(c.Columns, it, s, role))
			continue
		}
		it.columns = append(it.columns, column{name: c.Name})
	}
	return lin
}

// jsonName is what the server calls a column that a form of JSON makes; empty for none.
func jsonName(n *pg.Node) string {
	switch v := n.GetNode().(type) {
	case *pg.Node_JsonObjectConstructor:
		return "json_object"
	case *pg.Node_JsonArrayConstructor, *pg.Node_JsonArrayQueryConstructor:
		return "json_array"
	case *pg.Node_JsonObjectAgg:
		return "json_objectagg"
	case *pg.Node_JsonArrayAgg:
		return "json_arrayagg"
	case *pg.Node_JsonParseExpr:
		return "json"
	case *pg.Node_JsonScalarExpr:
		return "json_scalar"
	case *pg.Node_JsonSerializeExpr:
		return "json_serialize"
	case *pg.Node_JsonFuncExpr:
		switch v.JsonFuncExpr.Op {
		case pg.JsonExprOp_JSON_EXISTS_OP:
			return "json_exists"
		case pg.JsonExprOp_JSON_QUERY_OP:
			return "json_query"
		case pg.JsonExprOp_JSON_VALUE_OP:
			return "json_value"
		}
	}
	return ""
}
