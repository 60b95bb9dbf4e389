package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/mask"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// ErrCannot means that obligations cannot be met in this statement; the error says why,
// in words for whoever wrote it.
var ErrCannot = errors.New("cannot be met")

// Rewrite is the text in which every relation with a rule is replaced, wherever it is
// read, by a sub-select of the permitted columns, masked, and the permitted rows, or by
// the view that shows just that. The names of the result's columns stay. Without a rule that concerns the text it is
// Canonical. An error that is ErrCannot is the statement's own, others are faults.
func (an *Analysis) Rewrite(obligations []postern.Obligation) (string, error) {
	if !an.facts.Complete {
		return "", fmt.Errorf("rewrite: %w: %s", ErrCannot, an.facts.Incomplete)
	}
	rules := map[sql.Name]*rule{}
	for _, o := range obligations {
		if o.Table != nil {
			rules[sql.Name{Schema: o.Table.Schema, Name: o.Table.Table}] = &rule{TableRule: o.Table}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), rewriteTimeout)
	defer cancel()
	r := rewriter{cat: an.cat, rules: rules}
	parsed := &pg.ParseResult{}
	if err := proto.Unmarshal(an.tree, parsed); err != nil {
		return "", fmt.Errorf("rewrite: read tree: %w", err)
	}
	r.a = newAnalyzer(an.cat, an.set)
	r.a.run(parsed, an.tree)
	if r.a.problem != "" {
		return "", fmt.Errorf("rewrite: %w: %s", ErrCannot, r.a.problem)
	}
	if r.a.other {
		return "", fmt.Errorf("rewrite: %w: there is no model of %s", ErrCannot, commandsOf(r.a.statements))
	}
	if !r.concerned() {
		if text := an.Canonical(); an.err == nil {
			return text, nil
		}
		return "", fmt.Errorf("re-emit: %w", an.err)
	}
	if err := r.prepare(ctx, an.parser); err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	if err := r.apply(); err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	tree, err := proto.Marshal(parsed)
	if err != nil {
		return "", fmt.Errorf("rewrite: write tree: %w", err)
	}
	text, err := an.parser.Deparse(ctx, tree)
	if err != nil {
		return "", fmt.Errorf("rewrite: %w", err)
	}
	return text, nil
}

// rule is a TableRule with what it means for this text.
type rule struct {
	*postern.TableRule
	rel *sql.Relation
	// system are columns that every table has, as far as the text names them and the rule
	// permits them.
	system []string
	// query is the sub-select, parsed; each use clones it.
	query *pg.SelectStmt
}

func (r *rule) column(name string) *postern.ColumnRule { return columnRule(r.TableRule, name) }

func columnRule(r *postern.TableRule, name string) *postern.ColumnRule {
	if i := slices.IndexFunc(r.Columns, func(c postern.ColumnRule) bool { return c.Name == name }); i >= 0 {
		return &r.Columns[i]
	}
	if r.Every {
		return &postern.ColumnRule{Name: name}
	}
	return nil
}

type rewriter struct {
	cat   *sql.Catalog
	rules map[sql.Name]*rule
	a     *analyzer
}

func (r *rewriter) rule(u *use) *rule { return r.rules[u.rel.Name] }

// concerned reports whether any rule is about a relation of the text.
func (r *rewriter) concerned() bool {
	return slices.ContainsFunc(r.a.references, func(ref *reference) bool { return r.rule(ref.use) != nil })
}

func commandsOf(statements []sql.Statement) string {
	for _, st := range statements {
		if st.Verb == sql.Other {
			return st.Command
		}
	}
	return "a statement"
}

func cannot(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCannot}, args...)...)
}

// prepare writes the sub-selects as text, orders their columns as the relation has them,
// and has them parsed in one go.
func (r *rewriter) prepare(ctx context.Context, p Parser) error {
	var used []*rule
	var texts []string
	for _, ref := range r.a.references {
		rule := r.rule(ref.use)
		if rule == nil || rule.rel != nil {
			continue
		}
		rule.rel = ref.use.rel
		rule.system = r.systemColumns(rule)
		text, err := subSelect(rule.rel, rule.TableRule, filterOf(r.cat, rule.TableRule), rule.system)
		if err != nil {
			return err
		}
		used, texts = append(used, rule), append(texts, text)
	}
	tree, err := p.Parse(ctx, strings.Join(texts, ";\n"))
	if err != nil {
		return fmt.Errorf("parse sub-selects: %w", err)
	}
	parsed := &pg.ParseResult{}
	if err := proto.Unmarshal(tree, parsed); err != nil {
		return fmt.Errorf("read sub-selects: %w", err)
	}
	if len(parsed.Stmts) != len(used) {
		return errors.New("a rule is not one expression")
	}
	for i, rule := range used {
		q := parsed.Stmts[i].Stmt.GetSelectStmt()
		columns := len(rule.Columns)
		if rule.Every {
			columns = len(rule.rel.Columns) + len(rule.system)
		}
		if q == nil || q.Op != pg.SetOperation_SETOP_NONE || len(q.TargetList) != max(columns, 1) || len(q.FromClause) != 1 ||
			(rule.Filter == "") != (q.WhereClause == nil) || len(q.GroupClause)+len(q.SortClause)+len(q.LockingClause) > 0 || q.LimitCount != nil || q.LimitOffset != nil {
			return errors.New("a rule is not one expression")
		}
		if rule.Filter != "" {
			if err := rule.steady(q.WhereClause); err != nil {
				return err
			}
			if rule.View != nil {
				q.WhereClause = nil // the view filters
			} else {
				fenced(q)
			}
		}
		rule.query = q
	}
	return nil
}

// systemColumns are the columns that every table has and that the text names, where the
// rule permits them.
func (r *rewriter) systemColumns(rule *rule) []string {
	if !rule.Every {
		return nil
	}
	named := map[string]bool{}
	for _, ref := range r.a.references {
		if ref.use.rel == rule.rel {
			for name := range ref.use.read {
				if systemColumns[name] {
					named[name] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(named))
}

func subSelect(rel *sql.Relation, r *postern.TableRule, filter string, system []string) (string, error) {
	var b strings.Builder
	b.WriteString("SELECT ")
	n := 0
	for _, c := range rel.Columns {
		permitted := columnRule(r, c.Name)
		if permitted == nil {
			continue
		}
		if n++; n > 1 {
			b.WriteString(", ")
		}
		name := sql.Quote(c.Name)
		// A token is written on the way back, in a bare column alone: the engine sees to it.
		if permitted.Mask == nil || permitted.Mask.Token() || r.View != nil || hole.Is("rewrite-unmasked") {
			b.WriteString(name)
			continue
		}
		expression, err := mask.Expression(permitted.Mask, name, c.TypeText)
		if err != nil {
			return "", cannot("column %s of %s: %w", c.Name, rel, err)
		}
		b.WriteString(expression + " AS " + name)
	}
	for _, c := range system {
		if n++; n > 1 {
			b.WriteString(", ")
		}
		b.WriteString(c)
	}
	if n != len(r.Columns) && !r.Every {
		return "", cannot("the rule for %s names a column that it does not have", rel)
	}
	if n == 0 {
		// Rows without columns, which may still be counted.
		b.WriteString("NULL AS nothing")
	}
	from := sql.Quote(rel.Schema) + "." + sql.Quote(rel.Name.Name)
	if r.View != nil {
		from = sql.Quote(r.View.Schema) + "." + sql.Quote(r.View.Name)
	}
	b.WriteString(" FROM " + from)
	if filter != "" && !hole.Is("rewrite-unfiltered") {
		b.WriteString(" WHERE (" + filter + ")")
	}
	return b.String(), nil
}

// apply changes the tree.
func (r *rewriter) apply() error {
	if err := r.positions(); err != nil {
		return err
	}
	if err := r.explained(); err != nil {
		return err
	}
	for _, ref := range r.a.references {
		if err := r.permitted(ref.use); err != nil {
			return err
		}
	}
	for _, g := range r.a.groupings {
		r.regroup(g)
	}
	for _, u := range r.a.returnings {
		if err := r.returning(u); err != nil {
			return err
		}
	}
	for _, ref := range r.a.references {
		rule := r.rule(ref.use)
		if rule == nil || hole.Is("rewrite-first-only") && ref != r.a.references[0] && !ref.target {
			continue
		}
		var err error
		switch {
		case ref.target:
			err = r.target(rule, ref)
		case ref.copied != nil && hole.Is("rewrite-copy"):
		case ref.copied != nil:
			r.copied(rule, ref.copied)
		default:
			err = r.replace(rule, ref)
		}
		if err != nil {
			return err
		}
	}
	for _, c := range r.a.changes {
		if err := r.filter(c); err != nil {
			return err
		}
	}
	r.unqualify()
	return nil
}

// explained refuses to explain what reads filtered rows: the planner chooses by how many
// rows there are, of which some are not shown.
func (r *rewriter) explained() error {
	for i := range r.a.statements {
		if !r.a.statements[i].Explain {
			continue
		}
		for _, t := range r.a.statements[i].Tables {
			if rule := r.rules[sql.Name{Schema: t.Schema, Name: t.Name}]; rule != nil && rule.Filter != "" {
				return cannot("the rows of %s.%s are filtered, and EXPLAIN would tell of the others", t.Schema, t.Name)
			}
		}
	}
	return nil
}

// permitted makes sure that every column that is named is in the rule: where a
// sub-select lacked it, the name could mean a column further out.
func (r *rewriter) permitted(u *use) error {
	rule := r.rule(u)
	if rule == nil {
		return nil
	}
	for name := range u.read {
		if name != "*" && rule.column(name) == nil {
			return cannot("column %s of %s is not permitted", name, rule.rel)
		}
	}
	return nil
}

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
	rule := r.rule(u.target.ref.use)
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
		items := u.others
		if len(c.Fields) > 1 {
			name := c.Fields[len(c.Fields)-2].GetString_().GetSval()
			items = slices.DeleteFunc(slices.Clone(u.others), func(it *item) bool { return it.name != name })
		}
		for _, it := range items {
			switch {
			case it != u.target && it.name != "" && it.whole:
				if it.bare || len(c.Fields) > 1 {
					list = append(list, target(pg.MakeColumnRefNode([]*pg.Node{pg.MakeStrNode(it.name), pg.MakeAStarNode()}, 0)))
				}
			case it != u.target && it.bare:
				return cannot("RETURNING * over a join is not understood; name the columns")
			case it == u.target:
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
