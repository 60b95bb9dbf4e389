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
// Canonical. The catalogue must be kept until then. An error that is ErrCannot is the statement's own, others are faults.
func (an *Analysis) Rewrite(obligations []postern.Obligation) (string, error) {
	if !an.facts.Complete {
		return "", fmt.Errorf("rewrite: %w: %s", ErrCannot, an.facts.Incomplete)
	}
	rules, blanks := map[sql.Name]*rule{}, map[string]bool{}
	for _, o := range obligations {
		if o.Blank != "" {
			blanks[o.Blank] = true
		}
		if o.Table != nil {
			rules[sql.Name{Schema: o.Table.Schema, Name: o.Table.Table}] = &rule{TableRule: o.Table}
		}
	}
	if an.tree == nil {
		return "", fmt.Errorf("rewrite: %w", errShed)
	}
	ctx, cancel := context.WithTimeout(context.Background(), rewriteTimeout)
	defer cancel()
	cat := an.cat.Value()
	if cat == nil {
		return "", errors.New("rewrite: nobody keeps the catalogue any more")
	}
	r := rewriter{cat: cat, rules: rules, blanks: blanks}
	parsed := &pg.ParseResult{}
	if err := proto.Unmarshal(an.tree, parsed); err != nil {
		return "", fmt.Errorf("rewrite: read tree: %w", err)
	}
	r.a = newAnalyzer(cat, an.set)
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
	// blanks are functions of pg_catalog that NULL is asked of.
	blanks map[string]bool
	a      *analyzer
}

func (r *rewriter) rule(u *use) *rule { return r.rules[u.rel.Name] }

// concerned reports whether any rule is about a relation of the text, or a function.
func (r *rewriter) concerned() bool {
	return slices.ContainsFunc(r.a.sizes, func(s size) bool { return r.blanks[s.name] }) || slices.ContainsFunc(r.a.references, func(ref *reference) bool { return r.rule(ref.use) != nil })
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
	if filter != "" {
		if hole.Is("rewrite-unfiltered") {
			filter = "true"
		}
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
	r.blank()
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
