package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// grouping is a query with GROUP BY and the entries of its FROM.
type grouping struct {
	query *pg.SelectStmt
	items []*item
}

// regroup lets GROUP BY of a primary key stand for the whole row, as the server does for
// a table and not for a sub-select: the columns that are used are added. There is one row
// of the table for each key, so that groups stay as they are.
func (r *rewriter) regroup(g grouping) {
	grouped := map[*item][]string{}
	for _, n := range g.query.GroupClause {
		switch {
		case n.GetGroupingSet() != nil:
			return // groups of fewer columns than are named
		case n.GetAConst() != nil:
			n = targetAt(g.query, n.GetAConst())
		}
		if it, column := groupColumn(n.GetColumnRef(), g.items); it != nil {
			grouped[it] = append(grouped[it], column)
		}
	}
	for _, it := range g.items {
		columns := grouped[it]
		if len(columns) == 0 || it.ref.target || !it.whole {
			continue
		}
		rule, rel := r.rule(it.ref.use), it.ref.use.rel
		if rule == nil || len(rel.Key) == 0 || slices.ContainsFunc(rel.Key, func(key string) bool {
			p := rule.column(key)
			return p == nil || p.Mask != nil || !slices.Contains(columns, key)
		}) {
			continue
		}
		_, all := it.ref.use.read["*"]
		for i := range rel.Columns {
			c := &rel.Columns[i]
			_, used := it.ref.use.read[c.Name]
			if used = used || all; !used || slices.Contains(columns, c.Name) || rule.column(c.Name) == nil || slices.Contains(unequal, c.Type.Name) {
				continue
			}
			name := pg.MakeColumnRefNode([]*pg.Node{pg.MakeStrNode(it.name), pg.MakeStrNode(it.columns[i].name)}, 0)
			g.query.GroupClause = append(g.query.GroupClause, name)
		}
	}
}

// unequal are types whose values cannot be grouped.
var unequal = []string{"json", "xml", "point", "line", "lseg", "box", "path", "polygon", "circle", "refcursor", "pg_node_tree"}

// targetAt is the expression at a position of a select list, where positions are certain.
func targetAt(q *pg.SelectStmt, position *pg.A_Const) *pg.Node {
	at := int(position.GetIval().GetIval())
	if at < 1 || at > len(q.TargetList) || slices.ContainsFunc(q.TargetList[:at], func(n *pg.Node) bool { return isStar(n.GetResTarget().GetVal().GetColumnRef()) }) {
		return nil
	}
	return q.TargetList[at-1].GetResTarget().GetVal()
}

// groupColumn is the relation of FROM and the column of it that a name means, where that
// is certain.
func groupColumn(c *pg.ColumnRef, items []*item) (of *item, column string) {
	if c == nil {
		return nil, ""
	}
	for _, it := range items {
		if it.ref == nil {
			continue
		}
		if name, ok := ownColumn(c, items, it); ok {
			return it, name
		}
	}
	if len(c.Fields) != 1 || c.Fields[0].GetString_() == nil {
		return nil, ""
	}
	// A column of a join, without a qualifier.
	from := bareIn(items, c.Fields[0].GetString_().GetSval())
	if from == nil || len(from.lin.from) != 1 || from.lin.computed || from.lin.from[0].column == "*" {
		return nil, ""
	}
	for _, it := range items {
		if it.ref != nil && it.ref.use == from.lin.from[0].use {
			if of != nil {
				return nil, "" // one of two
			}
			of, column = it, from.lin.from[0].column
		}
	}
	return of, column
}
