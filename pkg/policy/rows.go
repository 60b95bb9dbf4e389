package policy

import (
	"errors"
	"fmt"
	"slices"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/posterngate/postern/pkg/postern"
)

// Rows is a compiled row filter: a CEL expression over the columns of one table and the
// subject, of which everything that names a column has a form in SQL. It is immutable.
//
// What names no column is CEL's business, and is evaluated for the subject; what does is
// SQL's, with SQL's three truth values: a row for which the filter is NULL is not shown.
type Rows struct {
	source  string
	root    predicate
	columns []string
}

// CompileRows compiles a row filter. An error says what has no form in SQL.
func CompileRows(source string) (*Rows, error) { return (&conditions{}).rows(source) }

// Columns are the columns that the filter reads, by name, sorted. They need not be among
// those that the task shows.
func (r *Rows) Columns() []string { return slices.Clone(r.columns) }

// SQL is the filter for one subject, as a PostgreSQL expression over the bare columns of
// the table. An error means that it cannot be told which rows the subject may see, for
// instance because their token lacks a claim; they may see none then.
//
// Constants are literals of no type of their own, which the server reads as the type of
// the column that they are compared with.
func (r *Rows) SQL(subject *postern.Subject) (string, error) {
	if subject == nil {
		return "", errors.New("there is no subject")
	}
	s := &rowWriter{vars: &variables{subject: subject}}
	s.predicate(r.root)
	if s.err != nil {
		return "", s.err
	}
	return s.b.String(), nil
}

// A predicate is a part of a filter that names columns, or a truth value that names none.
type predicate interface{}

type (
	// both is AND or OR.
	both struct {
		op   string
		l, r predicate
	}
	negation struct{ of predicate }
	// flag is a column of type boolean.
	flag struct{ column string }
	// truth names no column.
	truth struct{ value *value }
	// isNull is a comparison with null.
	isNull struct {
		column string
		not    bool
	}
	// compared is a column and a value, or another column where value is nil.
	compared struct {
		op     string // of SQL
		column string
		value  *value
		other  string
	}
	// among is a column in a list, member a value in a column that holds an array.
	among struct {
		column string
		list   *value
	}
	member struct {
		column string
		value  *value
	}
	// holds is startsWith, endsWith or contains.
	holds struct {
		function, column string
		value            *value
	}
)

// A value is a part of a filter that names no column.
type value struct {
	source  string
	program cel.Program
}

// comparisons are CEL's in SQL, and how they read with the sides exchanged.
var comparisons = map[string]struct{ sql, mirrored string }{
	operators.Equals: {"=", "="}, operators.NotEquals: {"<>", "<>"}, operators.Less: {"<", ">"}, operators.LessEquals: {"<=", ">="},
	operators.Greater: {">", "<"}, operators.GreaterEquals: {">=", "<="},
}

func (c *conditions) rows(source string) (*Rows, error) {
	env, err := c.env(onRows)
	if err != nil {
		return nil, err
	}
	tree, issues := env.Parse(source)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, fmt.Errorf("line %d, column %d: %s (CEL compares with ==)", first.Location.Line(), first.Location.Column()+1, firstLine(first.Message))
	}
	r := &rowCompiler{env: env, info: tree.NativeRep().SourceInfo(), columns: map[string]bool{}}
	free(tree.NativeRep().Expr(), nil, r.columns)
	out := &Rows{source: source}
	if len(r.columns) == 0 {
		return nil, errors.New("it names no column, so that it would show all rows or none")
	}
	for name := range r.columns {
		if err := checkText(name, 63); err != nil {
			return nil, fmt.Errorf("column %q: %w", name, err)
		}
		out.columns = append(out.columns, name)
	}
	slices.Sort(out.columns)
	if err := r.check(source, out.columns); err != nil {
		return nil, err
	}
	if out.root, err = r.predicate(tree.NativeRep().Expr()); err != nil {
		return nil, err
	}
	return out, nil
}

// free gathers the identifiers of an expression that it does not bind itself.
func free(e ast.Expr, bound []string, into map[string]bool) {
	switch e.Kind() {
	case ast.IdentKind:
		if name := e.AsIdent(); name != "subject" && !slices.Contains(bound, name) {
			into[name] = true
		}
	case ast.SelectKind:
		free(e.AsSelect().Operand(), bound, into)
	case ast.CallKind:
		if c := e.AsCall(); c.IsMemberFunction() {
			free(c.Target(), bound, into)
		}
		for _, arg := range e.AsCall().Args() {
			free(arg, bound, into)
		}
	case ast.ListKind:
		for _, x := range e.AsList().Elements() {
			free(x, bound, into)
		}
	case ast.MapKind:
		for _, x := range e.AsMap().Entries() {
			free(x.AsMapEntry().Key(), bound, into)
			free(x.AsMapEntry().Value(), bound, into)
		}
	case ast.StructKind:
		for _, x := range e.AsStruct().Fields() {
			free(x.AsStructField().Value(), bound, into)
		}
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		free(c.IterRange(), bound, into)
		free(c.AccuInit(), bound, into)
		inner := append(slices.Clone(bound), c.AccuVar(), c.IterVar())
		if c.HasIterVar2() {
			inner = append(inner, c.IterVar2())
		}
		free(c.LoopCondition(), inner, into)
		free(c.LoopStep(), inner, into)
		free(c.Result(), inner, into)
	default:
	}
}

type rowCompiler struct {
	env     *cel.Env
	info    *ast.SourceInfo
	columns map[string]bool
}

// check has CEL check the types, as far as they are known: those of columns are not.
func (r *rowCompiler) check(source string, columns []string) error {
	var vars []cel.EnvOption
	for _, name := range columns {
		vars = append(vars, cel.Variable(name, cel.DynType))
	}
	env, err := r.env.Extend(vars...)
	if err != nil {
		return fmt.Errorf("a column's name cannot be used here: %w", err)
	}
	tree, issues := env.Compile(source)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return fmt.Errorf("line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, firstLine(first.Message))
	}
	if t := tree.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return fmt.Errorf("it is of type %s, want bool", t)
	}
	return nil
}

// column is the column that an expression is, or empty.
func (r *rowCompiler) column(e ast.Expr) string {
	if e.Kind() == ast.IdentKind && r.columns[e.AsIdent()] {
		return e.AsIdent()
	}
	return ""
}

func (r *rowCompiler) namesColumn(e ast.Expr) bool {
	found := map[string]bool{}
	free(e, nil, found)
	return len(found) > 0
}

// text is an expression as people write it.
func (r *rowCompiler) text(e ast.Expr) string {
	s, err := cel.ExprToString(e, r.info)
	if err != nil {
		return "this"
	}
	return s
}

func (r *rowCompiler) noForm(e ast.Expr) error {
	return fmt.Errorf("%s has no form in SQL: columns may be compared with ==, !=, <, <=, > and >=, looked up with in, and searched with startsWith, endsWith and contains; &&, || and ! join these", r.text(e))
}

// predicate compiles an expression that is true or false.
func (r *rowCompiler) predicate(e ast.Expr) (predicate, error) {
	if !r.namesColumn(e) {
		v, err := r.value(e, cel.BoolType)
		return truth{v}, err
	}
	if name := r.column(e); name != "" {
		return flag{name}, nil
	}
	if e.Kind() != ast.CallKind {
		return nil, r.noForm(e)
	}
	c := e.AsCall()
	switch c.FunctionName() {
	case operators.LogicalAnd, operators.LogicalOr:
		op := map[string]string{operators.LogicalAnd: " AND ", operators.LogicalOr: " OR "}[c.FunctionName()]
		left, err := r.predicate(c.Args()[0])
		if err != nil {
			return nil, err
		}
		right, err := r.predicate(c.Args()[1])
		return both{op, left, right}, err
	case operators.LogicalNot:
		of, err := r.predicate(c.Args()[0])
		return negation{of}, err
	case operators.In:
		return r.in(e, c.Args()[0], c.Args()[1])
	case "startsWith", "endsWith", "contains":
		if name := r.columnOf(c); name != "" && len(c.Args()) == 1 && !r.namesColumn(c.Args()[0]) {
			v, err := r.value(c.Args()[0], cel.StringType)
			return holds{c.FunctionName(), name, v}, err
		}
	}
	if op, ok := comparisons[c.FunctionName()]; ok {
		return r.comparison(e, op.sql, op.mirrored)
	}
	return nil, r.noForm(e)
}

func (r *rowCompiler) columnOf(c ast.CallExpr) string {
	if !c.IsMemberFunction() {
		return ""
	}
	return r.column(c.Target())
}

func (r *rowCompiler) comparison(e ast.Expr, op, mirrored string) (predicate, error) {
	left, right := e.AsCall().Args()[0], e.AsCall().Args()[1]
	l, other := r.column(left), r.column(right)
	switch {
	case l != "" && other != "":
		return compared{op: op, column: l, other: other}, nil
	case l == "":
		l, right, op = other, left, mirrored
	}
	if l == "" || r.namesColumn(right) {
		return nil, r.noForm(e)
	}
	if right.Kind() == ast.LiteralKind && right.AsLiteral() == types.NullValue {
		if op != "=" && op != "<>" {
			return nil, r.noForm(e)
		}
		return isNull{l, op == "<>"}, nil
	}
	v, err := r.value(right, nil)
	return compared{op: op, column: l, value: v}, err
}

func (r *rowCompiler) in(e, left, right ast.Expr) (predicate, error) {
	switch l, list := r.column(left), r.column(right); {
	case l != "" && !r.namesColumn(right):
		v, err := r.value(right, nil)
		return among{column: l, list: v}, err
	case list != "" && !r.namesColumn(left):
		v, err := r.value(left, nil)
		return member{list, v}, err
	}
	return nil, r.noForm(e)
}

// value compiles an expression that names no column, of the type want where that is not
// nil. What does not rest on the subject is tried at once.
func (r *rowCompiler) value(e ast.Expr, want *cel.Type) (*value, error) {
	v := &value{source: r.text(e)}
	tree, issues := r.env.Compile(v.source)
	if issues.Err() != nil {
		return nil, fmt.Errorf("%s: %s", v.source, firstLine(issues.Errors()[0].Message))
	}
	t := tree.OutputType()
	if want != nil && !t.IsExactType(want) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("%s is of type %s, want %s", v.source, t, want)
	}
	estimate, err := r.env.EstimateCost(tree, sizes{})
	if err != nil || estimate.Max > maxConditionCost {
		return nil, fmt.Errorf("%s costs too much to evaluate", v.source)
	}
	if v.program, err = r.env.Program(tree, cel.CostLimit(maxConditionCost)); err != nil {
		return nil, fmt.Errorf("%s: %w", v.source, err)
	}
	for _, ref := range tree.NativeRep().ReferenceMap() {
		if ref.Name != "" {
			return v, nil
		}
	}
	if _, err := v.of(&variables{}); err != nil {
		return nil, err
	}
	return v, nil
}
