package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a condition's time zones mean the same on every node

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// maxConditionCost bounds one evaluation, estimated on write and counted at run time.
	maxConditionCost = 10_000
	// maxConditionSource is the longest source, in characters.
	maxConditionSource = 4096
	// maxConditionDepth bounds the nesting of a source.
	maxConditionDepth = 64
	// assumedSize is how long texts, lists and maps of unknown size are taken to be when
	// the cost is estimated; longer ones meet the limit at run time.
	assumedSize = 128
)

// A surface says where a condition stands, and so what it may read.
type surface uint8

const (
	onBinding surface = iota
	onStatement
	onWorkload
	onRows
	onRequest
	onCall
)

// Every field is a variable of its own, so that the checker knows each by name and a
// condition's dependencies can be read off what it refers to.
var (
	subjectVars = []cel.EnvOption{
		cel.Variable("subject.id", cel.StringType),
		cel.Variable("subject.email", cel.StringType),
		cel.Variable("subject.groups", cel.ListType(cel.StringType)),
		cel.Variable("subject.claims", cel.MapType(cel.StringType, cel.DynType)),
		cel.Variable("subject.mfa", cel.BoolType),
		cel.Variable("subject.actor", cel.StringType),
		cel.Variable("subject.actors", cel.ListType(cel.StringType)),
	}
	requestVars = []cel.EnvOption{
		cel.Variable("request.time", cel.TimestampType),
		cel.Variable("request.ip", cel.StringType),
		cel.Variable("request.region", cel.StringType),
		cel.Variable("request.client", cel.StringType),
		cel.Variable("request.ticket", cel.StringType),
		cel.Variable("request.reason", cel.StringType),
	}
	statementVars = []cel.EnvOption{
		cel.Variable("statement.verbs", cel.ListType(cel.StringType)),
		cel.Variable("statement.tables", cel.ListType(cel.StringType)),
		cel.Variable("statement.columns", cel.ListType(cel.StringType)),
		cel.Variable("statement.functions", cel.ListType(cel.StringType)),
		cel.Variable(estimatedRows, cel.IntType),
	}
	grantVars = []cel.EnvOption{
		cel.Variable("grant.rowsUsed", cel.IntType),
		cel.Variable("grant.bytesUsed", cel.IntType),
		cel.Variable("grant.age", cel.DurationType),
	}
	httpVars = []cel.EnvOption{
		cel.Variable("http.method", cel.StringType),
		cel.Variable("http.path", cel.StringType),
		cel.Variable("http.query", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("http.headers", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable(requestBody, cel.DynType),
	}
	callVars = []cel.EnvOption{
		cel.Variable("call.method", cel.StringType),
		cel.Variable("call.name", cel.StringType),
		cel.Variable("call.arguments", cel.MapType(cel.StringType, cel.DynType)),
	}
	workloadVars = []cel.EnvOption{
		cel.Variable("claims", cel.MapType(cel.StringType, cel.DynType)),
	}
)

const (
	estimatedRows = "statement.estimatedRows"
	requestBody   = "http.body"
)

// conditions makes CEL environments when they are first needed. It is for one
// goroutine; what it compiles is safe for concurrent use.
type conditions struct {
	envs [onCall + 1]*cel.Env
}

func (c *conditions) env(s surface) (*cel.Env, error) {
	if c.envs[s] != nil {
		return c.envs[s], nil
	}
	opts := []cel.EnvOption{
		cel.ParserExpressionSizeLimit(maxConditionSource),
		cel.ParserRecursionLimit(maxConditionDepth),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals()),
		ext.Network(),
	}
	switch s {
	case onBinding:
		opts = append(append(opts, subjectVars...), requestVars...)
	case onStatement:
		opts = append(append(append(append(opts, subjectVars...), requestVars...), statementVars...), grantVars...)
	case onRequest:
		opts = append(append(append(append(opts, subjectVars...), requestVars...), httpVars...), grantVars...)
	case onCall:
		opts = append(append(append(append(opts, subjectVars...), requestVars...), callVars...), grantVars...)
	case onRows:
		opts = append(append(opts, subjectVars...), cel.EnableMacroCallTracking()) // parts are written out again
	case onWorkload:
		opts = append(opts, workloadVars...)
	}
	env, err := cel.NewEnv(opts...)
	if err != nil {
		return nil, fmt.Errorf("make the CEL environment: %w", err)
	}
	c.envs[s] = env
	return env, nil
}

// A condition is a compiled CEL expression. It is immutable.
type condition struct {
	source  string
	program cel.Program
	reads   map[string]bool   // names of variables
	names   map[string]string // of fields and literal texts, by their folded form
	deps    postern.Deps
}

// compile checks types, cost and time zones; an error says where and what.
func (c *conditions) compile(source string, s surface) (*condition, error) {
	env, err := c.env(s)
	if err != nil {
		return nil, err
	}
	tree, issues := env.Compile(source)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, fmt.Errorf("condition, line %d, column %d: %s", first.Location.Line(), first.Location.Column()+1, firstLine(first.Message))
	}
	if !tree.OutputType().IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("condition is of type %s, want bool", tree.OutputType())
	}
	estimate, err := env.EstimateCost(tree, sizes{})
	switch {
	case err != nil:
		return nil, fmt.Errorf("condition: %w", err)
	case estimate.Max > maxConditionCost:
		return nil, fmt.Errorf("condition may cost %d steps, more than %d: avoid nested macros over lists", estimate.Max, maxConditionCost)
	}
	out := &condition{source: source, reads: map[string]bool{}, names: map[string]string{}}
	for _, ref := range tree.NativeRep().ReferenceMap() {
		if ref.Name != "" {
			out.reads[ref.Name] = true
		}
	}
	if err := out.inspect(tree.NativeRep().Expr()); err != nil {
		return nil, err
	}
	out.deps = dependencies(out.reads)
	out.program, err = env.Program(tree, cel.CostLimit(maxConditionCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, fmt.Errorf("condition: %w", err)
	}
	return out, nil
}

// inspect refuses what compiles and then fails or deceives: time zones that do not
// exist, and loop variables that hide a variable of the house.
func (c *condition) inspect(e ast.Expr) (err error) {
	ast.PreOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			c.names[http.Fold(e.AsSelect().FieldName())] = e.AsSelect().FieldName()
		case ast.LiteralKind:
			if text, ok := literalText(e); ok {
				c.names[http.Fold(text)] = text
			}
		case ast.ComprehensionKind:
			for _, name := range []string{e.AsComprehension().IterVar(), e.AsComprehension().IterVar2()} {
				if name == "claims" {
					err = errors.New("condition: name the loop variable otherwise, it hides claims")
				}
			}
		case ast.CallKind:
			call := e.AsCall()
			if !call.IsMemberFunction() || !strings.HasPrefix(call.FunctionName(), "get") || len(call.Args()) != 1 {
				return
			}
			if zone, ok := literalText(call.Args()[0]); ok && !timeZone(zone) {
				err = fmt.Errorf("condition: %q is not a time zone", zone)
			}
		default:
		}
	}))
	return err
}

func literalText(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// timeZone reports whether CEL accepts the zone: a name, or an offset such as +01:00.
func timeZone(zone string) bool {
	if strings.Contains(zone, ":") {
		_, err := time.Parse("-07:00", "+"+strings.TrimLeft(zone, "+-"))
		return err == nil
	}
	_, err := time.LoadLocation(zone)
	return err == nil
}

// dependencies says for how long a verdict may be kept that read these variables. The
// grant's subject is no dependency, for a verdict is kept for one grant; the request
// differs by session, so that what reads it is not kept past the one statement.
func dependencies(reads map[string]bool) (d postern.Deps) {
	for name := range reads {
		switch {
		case strings.HasPrefix(name, "request."):
			d.Time = true
		case name == "grant.age":
			d.Time, d.Usage = true, true
		case strings.HasPrefix(name, "grant."):
			d.Usage = true
		case name == requestBody, name == "http.headers", strings.HasPrefix(name, "call."):
			d.Beside = true
		case name == estimatedRows:
			d.Time, d.Literals = true, true
		}
	}
	return d
}

// readsOf reports whether the condition reads a variable that begins with prefix.
func (c *condition) readsOf(prefix string) bool {
	for name := range c.reads {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// holds evaluates the condition. An error means that it does not hold.
func (c *condition) holds(vars cel.Activation) (bool, error) {
	out, _, err := c.program.Eval(vars)
	if err != nil {
		return false, errors.New(firstLine(err.Error()))
	}
	b, ok := out.(types.Bool)
	return ok && bool(b), nil
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// sizes bounds what CEL cannot know when it estimates a cost.
type sizes struct{}

func (sizes) EstimateSize(cost.AstNode) *cost.SizeEstimate {
	return &cost.SizeEstimate{Min: 0, Max: assumedSize}
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}
