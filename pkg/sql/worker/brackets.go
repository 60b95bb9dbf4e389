package worker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"github.com/pganalyze/pg_query_go/v6/parser"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/posterngate/postern/pkg/sql"
)

// maxParts bounds how many parts of one tree are written by themselves.
const maxParts = 256

// bracketed writes a tree as text, with brackets about every operand that is an
// expression of its own. The grammar wants some that the library leaves out: those of
// (a IS DISTINCT FROM b) IS TRUE, of x BETWEEN (y COLLATE "C") AND z, and of what is cast
// where it compares with ANY or ALL of a query. And pg_catalog.overlay(a, b, 1, 2) stays
// the call that it is.
//
// Each such part is written by itself, the innermost first, and a name that stands nowhere
// else takes its place until the whole is written. It promises nothing: who calls it
// reads back what was written.
func bracketed(tree []byte) (string, error) {
	parsed := &pg.ParseResult{}
	if err := proto.Unmarshal(tree, parsed); err != nil {
		return "", err
	}
	b := brackets{version: parsed.Version, mark: "postern_part_"}
	for strings.Contains(string(tree), b.mark) {
		b.mark += "x_"
	}
	if err := b.visit(parsed.ProtoReflect()); err != nil {
		return "", err
	}
	text, err := written(parsed)
	if err != nil {
		return "", err
	}
	for i := len(b.parts) - 1; i >= 0; i-- {
		text = strings.Replace(text, b.name(i), b.parts[i], 1)
	}
	return text, nil
}

type brackets struct {
	version int32
	mark    string
	parts   []string // what was written so far, the inner ones before those that hold them
}

func (b *brackets) name(i int) string { return b.mark + strconv.Itoa(i) + "_" }

// part is the name that stands for a text.
func (b *brackets) part(text string) (*pg.Node, error) {
	if len(b.parts) == maxParts {
		return nil, errors.New("too many parts")
	}
	b.parts = append(b.parts, text)
	return pg.MakeStrNode(b.name(len(b.parts) - 1)), nil
}

// visit replaces the operands of a message and of all that is in it.
func (b *brackets) visit(m protoreflect.Message) (err error) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = b.visit(v.List().Get(i).Message())
			}
		default:
			err = b.visit(v.Message())
		}
		return err == nil
	})
	if err != nil {
		return err
	}
	switch m := m.Interface().(type) {
	case *pg.A_Expr:
		return b.replace(m.Lexpr, m.Rexpr)
	case *pg.BoolExpr:
		return b.replace(m.Args...)
	case *pg.BooleanTest:
		return b.replace(m.Arg)
	case *pg.NullTest:
		return b.replace(m.Arg)
	case *pg.CollateClause:
		return b.replace(m.Arg)
	case *pg.TypeCast:
		return b.replace(m.Arg)
	case *pg.SubLink:
		return b.replace(m.Testexpr)
	case *pg.FuncCall:
		if m.Funcformat == pg.CoercionForm_COERCE_SQL_SYNTAX {
			return b.replace(m.Args...)
		}
		if len(m.Funcname) == 2 {
			name, err := b.part(sql.Quote(m.Funcname[0].GetString_().GetSval()) + "." + sql.Quote(m.Funcname[1].GetString_().GetSval()))
			m.Funcname = []*pg.Node{name}
			return err
		}
	}
	return nil
}

// replace writes operands by themselves, where they are more than a name, a value or a call.
func (b *brackets) replace(operands ...*pg.Node) error {
	for _, n := range operands {
		switch k := n.GetNode().(type) {
		case *pg.Node_List: // of IN and BETWEEN
			if err := b.replace(k.List.Items...); err != nil {
				return err
			}
			continue
		case *pg.Node_SubLink:
			if t := k.SubLink.SubLinkType; t != pg.SubLinkType_ANY_SUBLINK && t != pg.SubLinkType_ALL_SUBLINK {
				continue
			}
		case *pg.Node_AExpr, *pg.Node_BoolExpr, *pg.Node_BooleanTest, *pg.Node_NullTest, *pg.Node_CollateClause:
		default:
			continue
		}
		text, err := written(&pg.ParseResult{Version: b.version, Stmts: []*pg.RawStmt{{Stmt: &pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: &pg.SelectStmt{
			TargetList:  []*pg.Node{pg.MakeResTargetNodeWithVal(&pg.Node{Node: n.Node}, 0)},
			LimitOption: pg.LimitOption_LIMIT_OPTION_DEFAULT, Op: pg.SetOperation_SETOP_NONE,
		}}}}}})
		if err != nil {
			return err
		}
		operand, ok := strings.CutPrefix(text, "SELECT ")
		if !ok {
			return fmt.Errorf("an operand became %.20q", text)
		}
		name, err := b.part("(" + operand + ")")
		if err != nil {
			return err
		}
		n.Node = pg.MakeColumnRefNode([]*pg.Node{name}, 0).Node
	}
	return nil
}

func written(parsed *pg.ParseResult) (string, error) {
	tree, err := proto.Marshal(parsed)
	if err != nil {
		return "", err
	}
	return parser.DeparseFromProtobuf(tree)
}
