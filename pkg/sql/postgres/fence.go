package postgres

import (
	"regexp"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/sql"
)

// A filter of rows is a fence: nothing of a statement may be evaluated for a row that the
// filter does not show, since an error or a notice would tell of it. The planner is free
// to evaluate conditions in any order, but not across OFFSET in a sub-select, and not
// into CASE. What cannot tell anything, a comparison of a column and a constant, is let
// through, so that indexes are used.

// selection is a WHERE clause and the entries of FROM that it is over.
type selection struct {
	where *pg.Node
	items []*item
}

// fenced closes the sub-select of a filtered relation, so that nothing moves into it.
func fenced(q *pg.SelectStmt) {
	if hole.Is("rewrite-unfenced") {
		return
	}
	q.LimitOffset = pg.MakeAConstIntNode(0, 0)
	q.LimitOption = pg.LimitOption_LIMIT_OPTION_COUNT
}

// behind is a condition that is evaluated only where the filter holds, and the terms of
// it that tell nothing, beside it.
func (r *rewriter) behind(filter, condition *pg.Node, c changed) *pg.Node {
	terms := slices.Clone(conjuncts(filter))
	var rest []*pg.Node
	for _, n := range conjuncts(condition) {
		if r.tellsNothing(n, c.items, c.target) || r.joins(n, c.items, c.target) {
			terms = append(terms, n)
		} else {
			rest = append(rest, n)
		}
	}
	if len(rest) > 0 {
		then := rest[0]
		if len(rest) > 1 {
			then = pg.MakeBoolExprNode(pg.BoolExprType_AND_EXPR, rest, 0)
		}
		terms = append(terms, &pg.Node{Node: &pg.Node_CaseExpr{CaseExpr: &pg.CaseExpr{Args: []*pg.Node{
			{Node: &pg.Node_CaseWhen{CaseWhen: &pg.CaseWhen{Expr: proto.CloneOf(filter), Result: then}}},
		}}}})
	}
	if len(terms) == 1 {
		return terms[0]
	}
	return pg.MakeBoolExprNode(pg.BoolExprType_AND_EXPR, terms, 0)
}

// let copies into a fenced sub-select what a WHERE clause says of it and tells nothing.
func (r *rewriter) let(ref *reference, q *pg.SelectStmt) {
	for _, sel := range r.a.selections {
		i := slices.IndexFunc(sel.items, func(it *item) bool { return it.ref == ref })
		if i < 0 || sel.where == nil {
			continue
		}
		for _, n := range conjuncts(sel.where) {
			if !r.tellsNothing(n, sel.items, sel.items[i]) {
				continue
			}
			term := proto.CloneOf(n)
			r.inside(term, sel.items[i])
			q.WhereClause = pg.MakeBoolExprNode(pg.BoolExprType_AND_EXPR, append(slices.Clone(conjuncts(q.WhereClause)), term), 0)
		}
	}
}

// inside names the columns of a term as the relation itself does.
func (r *rewriter) inside(term *pg.Node, it *item) {
	for _, side := range []*pg.Node{term.GetAExpr().Lexpr, term.GetAExpr().Rexpr} {
		if c := side.GetColumnRef(); c != nil {
			if column, ok := ownColumn(c, []*item{it}, it); ok {
				c.Fields = []*pg.Node{pg.MakeStrNode(column)}
			}
		}
	}
}

// plainOperators compare two values and cannot fail, for plainTypes.
var (
	plainOperators = []string{"=", "<>", "<", "<=", ">", ">="}
	plainTypes     = []string{"bool", "int2", "int4", "int8", "oid", "name", "text", "varchar", "char", "uuid", "date", "timestamp", "timestamptz", "numeric"}
)

// given reports whether a value is the same for all rows of a level: a constant, a
// parameter, or a column of a query further out, whose name means the same inside of the
// sub-select for rel.
func given(n *pg.Node, items []*item, rel *sql.Relation) bool {
	if n.GetAConst() != nil || n.GetParamRef() != nil {
		return true
	}
	c := n.GetColumnRef()
	if c == nil || len(c.Fields) != 2 || c.Fields[1].GetString_() == nil {
		return false
	}
	of := c.Fields[0].GetString_().GetSval()
	return of != rel.Name.Name && !slices.ContainsFunc(items, func(it *item) bool { return it.name == of })
}

// plainType reports whether comparing values of a type cannot fail. The domains of the
// standard's schema are over names and texts.
func plainType(n sql.Name) bool {
	switch n.Schema {
	case catalogSchema:
		return slices.Contains(plainTypes, n.Name)
	case "information_schema":
		return n.Name == "sql_identifier" || n.Name == "character_data"
	}
	return false
}

// tellsNothing reports whether a condition compares an unmasked column of it, of a plain
// type, with a value that is given, by an operator of the system's.
func (r *rewriter) tellsNothing(n *pg.Node, items []*item, it *item) bool {
	e := n.GetAExpr()
	if e == nil || e.Kind != pg.A_Expr_Kind_AEXPR_OP || len(e.Name) != 1 || !slices.Contains(plainOperators, e.Name[0].GetString_().GetSval()) || !r.systems(e.Name[0].GetString_().GetSval()) {
		return false
	}
	rel := it.ref.use.rel
	name, ok := "", false
	for _, sides := range [][2]*pg.Node{{e.Lexpr, e.Rexpr}, {e.Rexpr, e.Lexpr}} {
		if c := sides[0].GetColumnRef(); c != nil && !ok && given(sides[1], items, rel) {
			name, ok = ownColumn(c, items, it)
		}
	}
	if !ok {
		return false
	}
	col := rel.Column(name)
	if col == nil || !plainType(col.Type) {
		return false
	}
	rule := r.rules[rel.Name]
	permitted := rule.column(name)
	return permitted != nil && permitted.Mask == nil
}

// joins reports whether a condition compares a column of it with one of another relation
// of the same plain type.
func (r *rewriter) joins(n *pg.Node, items []*item, it *item) bool {
	e := n.GetAExpr()
	if e == nil || e.Kind != pg.A_Expr_Kind_AEXPR_OP || len(e.Name) != 1 || e.Name[0].GetString_().GetSval() != "=" || !r.systems("=") {
		return false
	}
	var types []sql.Name
	mine := 0
	for _, side := range []*pg.Node{e.Lexpr, e.Rexpr} {
		for _, of := range items {
			if of.ref == nil || side.GetColumnRef() == nil {
				continue
			}
			name, ok := ownColumn(side.GetColumnRef(), items, of)
			if !ok {
				continue
			}
			if of == it {
				mine++
			}
			if col := of.ref.use.rel.Column(name); col != nil && plainType(col.Type) {
				types = append(types, col.Type)
			}
		}
	}
	return mine == 1 && len(types) == 2 && types[0] == types[1]
}

// systems reports whether an operator can only be one of the system's.
func (r *rewriter) systems(op string) bool {
	return !slices.ContainsFunc(r.a.path, func(s string) bool {
		return s != catalogSchema && len(r.cat.Operators[sql.Name{Schema: s, Name: op}]) > 0
	})
}

// ownColumn is the column of the relation that a reference means, where it can mean
// nothing else but a column of it.
func ownColumn(c *pg.ColumnRef, items []*item, it *item) (name string, ok bool) {
	names := make([]string, 0, 2)
	for _, f := range c.Fields {
		if f.GetString_() == nil {
			return "", false
		}
		names = append(names, f.GetString_().Sval)
	}
	switch len(names) {
	case 1:
		for _, other := range items {
			if other != it && other.bare {
				return "", false
			}
		}
		if !it.bare {
			return "", false
		}
	case 2:
		for _, other := range items {
			if other != it && other.whole && other.name == names[0] {
				return "", false
			}
		}
		if !it.whole || it.name != names[0] {
			return "", false
		}
	default:
		return "", false
	}
	lin, n := it.find(names[len(names)-1])
	if n != 1 || len(lin.from) != 1 || lin.from[0].column == "*" {
		return "", false
	}
	return lin.from[0].column, true
}

// settled are forms of texts that mean one thing to every type of time, whatever the
// settings of the session.
var settled = regexp.MustCompile(`^\d{4,}-\d\d-\d\d( \d\d:\d\d:\d\d(\.\d+)?\+00)?$`)

// wavering are types whose texts mean what the settings of the session say.
var wavering = []string{"date", "timestamp", "timestamptz", "time", "timetz", "interval", "money", "regclass", "regproc", "regtype", "regrole", "regnamespace"}

// loose are types whose values are written as the settings of the session say.
var loose = append([]string{"float4", "float8", "bytea", "xml"}, wavering...)

// plainColumn is the column that an expression of a rule is, or nil.
func (r *rule) plainColumn(n *pg.Node) *sql.Column {
	if c := n.GetColumnRef(); c != nil && len(c.Fields) == 1 {
		return r.rel.Column(c.Fields[0].GetString_().GetSval())
	}
	return nil
}

// steady refuses a filter that compares a column with a text whose meaning as the type
// of the column depends on settings, which are the client's to change.
func (r *rule) steady(where *pg.Node) error {
	var err error
	descend(where.ProtoReflect(), func(m protoreflect.Message) bool {
		if cast, ok := m.Interface().(*pg.TypeCast); ok {
			if col := r.plainColumn(cast.Arg); col != nil && slices.Contains(loose, col.Type.Name) {
				err = cannot("the rows of %s are filtered by the text of column %s, which depends on settings of the session", r.rel, col.Name)
			}
		}
		e, ok := m.Interface().(*pg.A_Expr)
		if !ok {
			return err == nil
		}
		if l, o := r.plainColumn(e.Lexpr), r.plainColumn(e.Rexpr); l != nil && o != nil && l.Type != o.Type && (slices.Contains(wavering, l.Type.Name) || slices.Contains(wavering, o.Type.Name)) {
			err = cannot("the rows of %s are filtered by comparing columns %s and %s of different types of time", r.rel, l.Name, o.Name)
		}
		col, value := r.plainColumn(e.Lexpr), e.Rexpr
		if col == nil {
			col, value = r.plainColumn(e.Rexpr), e.Lexpr
		}
		text := value.GetAConst().GetSval()
		if text == nil || col == nil || col.Type.Schema != catalogSchema || !slices.Contains(wavering, strings.TrimPrefix(col.Type.Name, "_")) {
			return true
		}
		day := len(text.Sval) <= len("2006-01-02") && col.Type.Name != "date" && col.Type.Name != "timestamp"
		if e.Kind != pg.A_Expr_Kind_AEXPR_OP || day || !settled.MatchString(text.Sval) {
			err = cannot("the rows of %s are filtered by comparing column %s with the text %q, whose meaning depends on settings of the session; the task must say timestamp(...)", r.rel, col.Name, text.Sval)
		}
		return err == nil
	})
	return err
}
