package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/hole"
)

// replace puts the sub-select in the place of a relation in FROM.
func (r *rewriter) replace(rule *rule, ref *reference) error {
	rel := rule.rel
	switch {
	case ref.holder == nil:
		return cannot("%s is used in a way that cannot be masked", rel)
	case ref.locked && hole.Is("rewrite-locked"):
		return nil
	case ref.locked && rule.bare(ref.use):
		return nil // only the relation itself can be locked, and nothing is read of it that it does not show
	case ref.locked:
		return cannot("%s is %s, so its rows cannot be locked with FOR UPDATE; name columns that are not masked", rel, rule.kept())
	case ref.sampled && hole.Is("rewrite-sampled"):
		return nil
	case ref.sampled:
		return cannot("%s is %s, so it cannot be sampled", rel, rule.kept())
	case !ref.rv.Inh:
		return cannot("%s is %s, so it cannot be read with ONLY", rel, rule.kept())
	}
	if rule.View != nil {
		ref.holder.Node = &pg.Node_RangeVar{RangeVar: &pg.RangeVar{
			Schemaname: rule.View.Schema, Relname: rule.View.Name, Inh: true, Relpersistence: "p", Alias: rule.alias(ref.rv),
		}}
		return nil
	}
	query := rule.subquery()
	if rule.Filter != "" {
		r.let(ref, query.GetSelectStmt())
	}
	ref.holder.Node = &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{
		Subquery: query,
		Alias:    rule.alias(ref.rv),
	}}
	return nil
}

// bare reports whether all that is read of the relation is stored as it is shown.
func (r *rule) bare(u *use) bool {
	if r.Filter != "" || r.Every {
		return false
	}
	for name := range u.read {
		if c := r.column(name); c == nil || c.Mask != nil {
			return false // * among them
		}
	}
	return true
}

// kept says in words how the relation is shown.
func (r *rule) kept() string {
	if r.View != nil {
		return "read through a view of the task"
	}
	return "masked or filtered"
}

func (r *rule) subquery() *pg.Node {
	return &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: proto.CloneOf(r.query)}}
}

// alias names the sub-select as the relation was named. An alias that renames columns
// by position is made anew, as positions have changed.
func (r *rule) alias(rv *pg.RangeVar) *pg.Alias {
	al := &pg.Alias{Aliasname: rv.Relname}
	if rv.Alias == nil {
		return al
	}
	al.Aliasname = rv.Alias.Aliasname
	if len(rv.Alias.Colnames) == 0 {
		return al
	}
	for i, c := range r.rel.Columns {
		switch {
		case r.column(c.Name) == nil:
		case i < len(rv.Alias.Colnames):
			al.Colnames = append(al.Colnames, rv.Alias.Colnames[i])
		default:
			al.Colnames = append(al.Colnames, pg.MakeStrNode(c.Name))
		}
	}
	return al
}

// target makes sure that a relation that is changed shows no masked value.
func (r *rewriter) target(rule *rule, ref *reference) error {
	if ref.use.wholeTarget {
		return cannot("the whole row of %s cannot be used in a statement that changes it; name the columns", rule.rel)
	}
	for name := range ref.use.targetReads {
		if name == "*" {
			continue // RETURNING *, which is written out
		}
		if c := rule.column(name); c.Mask != nil && !hole.Is("rewrite-target") {
			return cannot("column %s of %s is masked, so a statement that changes %s cannot read it", name, rule.rel, rule.rel.Name.Name)
		}
	}
	return nil
}

// returning writes out the columns that * stands for in RETURNING.
func (r *rewriter) returning(u returning) error {
	rule := r.rule(u.target.use)
	if rule == nil {
		return nil
	}
	var list []*pg.Node
	for _, n := range *u.list {
		c := n.GetResTarget().GetVal().GetColumnRef()
		if !isStar(c) {
			list = append(list, n)
			continue
		}
		items := u.items
		if len(c.Fields) > 1 {
			name := c.Fields[len(c.Fields)-2].GetString_().GetSval()
			items = slices.DeleteFunc(slices.Clone(u.items), func(it *item) bool { return it.name != name })
		}
		for _, it := range items {
			switch {
			case it.ref != u.target && it.name != "" && it.whole:
				if it.bare || len(c.Fields) > 1 {
					list = append(list, target(pg.MakeColumnRefNode([]*pg.Node{pg.MakeStrNode(it.name), pg.MakeAStarNode()}, 0)))
				}
			case it.ref != u.target && it.bare:
				return cannot("RETURNING * over a join is not understood; name the columns")
			case it.bare || len(c.Fields) > 1:
				more, err := rule.returned(it)
				if err != nil {
					return err
				}
				list = append(list, more...)
			}
		}
	}
	*u.list = list
	return nil
}

// returned is a select list of the permitted columns of a target.
func (r *rule) returned(it *item) ([]*pg.Node, error) {
	var list []*pg.Node
	for i, c := range r.rel.Columns {
		p := r.column(c.Name)
		if p == nil {
			continue
		}
		if p.Mask != nil {
			return nil, cannot("column %s of %s is masked, so RETURNING * cannot return it; name the others", c.Name, r.rel)
		}
		list = append(list, target(pg.MakeColumnRefNode([]*pg.Node{pg.MakeStrNode(it.name), pg.MakeStrNode(it.columns[i].name)}, 0)))
	}
	return list, nil
}

func target(v *pg.Node) *pg.Node { return pg.MakeResTargetNodeWithVal(v, 0) }

// copied turns COPY of a relation into COPY of a query.
func (r *rewriter) copied(rule *rule, c *pg.CopyStmt) {
	list := []*pg.Node{target(pg.MakeColumnRefNode([]*pg.Node{pg.MakeAStarNode()}, 0))}
	if len(c.Attlist) > 0 {
		list = nil
		for _, n := range c.Attlist {
			list = append(list, target(pg.MakeColumnRefNode([]*pg.Node{n}, 0)))
		}
	}
	from := &pg.Node{Node: &pg.Node_RangeSubselect{RangeSubselect: &pg.RangeSubselect{
		Subquery: rule.subquery(), Alias: &pg.Alias{Aliasname: c.Relation.Relname},
	}}}
	c.Query = &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{
		TargetList: list, FromClause: []*pg.Node{from},
		LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE,
	}}}
	c.Relation, c.Attlist = nil, nil
}

// filter holds a change to the permitted rows.
func (r *rewriter) filter(c changed) error {
	rule := r.rule(c.target.ref.use)
	if rule == nil || rule.Filter == "" {
		return nil
	}
	if rule.View != nil {
		return cannot("the rows of %s are filtered by a view, which a change does not go through", rule.rel)
	}
	if c.where == nil {
		return cannot("the rows of %s are filtered, so it cannot be changed with MERGE", rule.rel)
	}
	if rv := c.target.ref.rv; rv.Alias != nil && len(rv.Alias.Colnames) > 0 {
		return cannot("the rows of %s are filtered, so its columns cannot be renamed", rule.rel)
	}
	condition := proto.CloneOf(rule.query.WhereClause)
	if err := qualify(condition.ProtoReflect(), c.target.name); err != nil {
		return err
	}
	if *c.where != nil {
		condition = r.behind(condition, *c.where, c)
	}
	*c.where = condition
	return nil
}

// conjuncts are the terms of an AND, which the grammar keeps flat.
func conjuncts(n *pg.Node) []*pg.Node {
	if b := n.GetBoolExpr(); b != nil && b.Boolop == pg.BoolExprType_AND_EXPR {
		return b.Args
	}
	return []*pg.Node{n}
}

// positions makes sure that no * over a relation that has lost columns is used by the
// positions of its columns.
func (r *rewriter) positions() error {
	for _, u := range r.a.positional {
		if rule := r.rule(u); rule != nil && !rule.Every && len(rule.Columns) < len(u.rel.Columns) {
			return cannot("* over %s stands for %d of its %d columns, so they cannot be used by position; name the columns", u.rel, len(rule.Columns), len(u.rel.Columns))
		}
	}
	return nil
}

// unqualify takes the schema from columns of relations that have become sub-selects.
func (r *rewriter) unqualify() {
	for _, q := range r.a.qualified {
		if ref := q.item.ref; ref != nil && !ref.target && r.rule(ref.use) != nil && len(q.ref.Fields) > 2 {
			q.ref.Fields = q.ref.Fields[len(q.ref.Fields)-2:]
		}
	}
}
