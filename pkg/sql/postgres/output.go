package postgres

import (
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/sql"
)

func valuesColumn(i int) string { return "column" + strconv.Itoa(i+1) }

// outputName is the name that the server gives to a column of a result.
func outputName(t *pg.ResTarget) string {
	if t.Name != "" {
		return t.Name
	}
	if name, strength := figureName(t.Val); strength > 0 {
		return name
	}
	return "?column?"
}

// figureName follows the server's FigureColname: a name of strength 1 gives way to
// another, as that of a cast's type.
func figureName(n *pg.Node) (name string, strength int) {
	switch v := n.GetNode().(type) {
	case *pg.Node_ColumnRef:
		return lastName(v.ColumnRef.Fields)
	case *pg.Node_AIndirection:
		for i := len(v.AIndirection.Indirection) - 1; i >= 0; i-- {
			if s := v.AIndirection.Indirection[i].GetString_(); s != nil {
				return s.Sval, 2
			}
		}
		return figureName(v.AIndirection.Arg)
	case *pg.Node_FuncCall:
		return lastName(v.FuncCall.Funcname)
	case *pg.Node_AExpr:
		if v.AExpr.Kind == pg.A_Expr_Kind_AEXPR_NULLIF {
			return "nullif", 2
		}
	case *pg.Node_TypeCast:
		if name, strength := figureName(v.TypeCast.Arg); strength > 1 {
			return name, strength
		}
		name, _ := lastName(v.TypeCast.TypeName.GetNames())
		return name, 1
	case *pg.Node_CollateClause:
		return figureName(v.CollateClause.Arg)
	case *pg.Node_GroupingFunc:
		return "grouping", 2
	case *pg.Node_MergeSupportFunc:
		return "merge_action", 2
	case *pg.Node_SubLink:
		switch v.SubLink.SubLinkType {
		case pg.SubLinkType_EXISTS_SUBLINK:
			return "exists", 2
		case pg.SubLinkType_ARRAY_SUBLINK:
			return "array", 2
		case pg.SubLinkType_EXPR_SUBLINK:
			q := v.SubLink.Subselect.GetSelectStmt()
			if q != nil && len(q.TargetList) > 0 {
				t := q.TargetList[0].GetResTarget()
				if t.GetName() != "" {
					return t.GetName(), 2
				}
				return figureName(t.GetVal())
			}
		}
	case *pg.Node_CaseExpr:
		if name, strength := figureName(v.CaseExpr.Defresult); strength > 1 {
			return name, strength
		}
		return "case", 1
	case *pg.Node_AArrayExpr:
		return "array", 2
	case *pg.Node_RowExpr:
		return "row", 2
	case *pg.Node_CoalesceExpr:
		return "coalesce", 2
	case *pg.Node_MinMaxExpr:
		if v.MinMaxExpr.Op == pg.MinMaxOp_IS_GREATEST {
			return "greatest", 2
		}
		return "least", 2
	case *pg.Node_SqlvalueFunction:
		return valueFunction(v.SqlvalueFunction.Op), 2
	case *pg.Node_XmlExpr:
		name := strings.ToLower(strings.TrimPrefix(v.XmlExpr.Op.String(), "IS_"))
		return name, 2
	case *pg.Node_XmlSerialize:
		return "xmlserialize", 2
	}
	if name := jsonName(n); name != "" {
		return name, 2
	}
	return "", 0
}

func lastName(fields []*pg.Node) (string, int) {
	for i := len(fields) - 1; i >= 0; i-- {
		if s := fields[i].GetString_(); s != nil {
			return s.Sval, 2
		}
	}
	return "", 0
}

func valueFunction(op pg.SQLValueFunctionOp) string {
	name := strings.ToLower(strings.TrimPrefix(op.String(), "SVFOP_"))
	return strings.TrimSuffix(name, "_n")
}

// outputs describes the columns of a result. A * over a relation is each of its columns,
// of which those remain that are permitted.
func outputs(r result) []sql.Output {
	var out []sql.Output
	for _, c := range r.columns {
		o := sql.Output{Name: c.name}
		if len(c.lin.from) == 1 && !c.lin.computed && c.lin.from[0].column != "*" {
			from := c.lin.from[0]
			o.Schema, o.Table, o.Column = from.use.rel.Schema, from.use.rel.Name.Name, from.column
			o.Star = c.star != nil && from.star
		}
		out = append(out, o)
	}
	return out
}
