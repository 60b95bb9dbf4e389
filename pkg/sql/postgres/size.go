package postgres

import (
	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/sql"
)

// sizes are the functions of pg_catalog that say how much room something takes, how many rows
// it has, or what a function does, by the type of what they are asked about; empty where there are several. They
// read nothing else, and answer NULL to NULL.
var sizes = map[string]string{
	"pg_get_function_sqlbody": "oid", "pg_get_functiondef": "oid",
	"pg_stat_get_live_tuples": "oid", "pg_stat_get_dead_tuples": "oid", "pg_stat_get_numscans": "oid",
	"pg_relation_size": "regclass", "pg_table_size": "regclass", "pg_indexes_size": "regclass", "pg_total_relation_size": "regclass",
	"pg_database_size": "", "pg_tablespace_size": "",
}

// size is a call of one of them, as it stands in the tree.
type size struct {
	name string
	call *pg.FuncCall
}

// asksSize keeps a call that was noted as one of a size, which has an argument.
func (a *analyzer) asksSize(names []string, f *pg.FuncCall) {
	a.sizes = append(a.sizes, size{names[len(names)-1], f})
}

// blank reports whether each call of f so far is one that can be answered with NULL: it is
// written as a call, and not as an attribute or an operator.
func (a *analyzer) blank(f *sql.Function) bool {
	_, is := sizes[f.Name]
	return is && f.Schema == catalogSchema && a.sizesNoted == len(a.sizes)
}

// blank has the sizes that nobody is to see asked of NULL. What was asked about stays, so that
// parameters keep their types and names that do not exist are told as before.
func (r *rewriter) blank() {
	for _, s := range r.a.sizes {
		if !r.blanks[s.name] {
			continue
		}
		of := s.call.Args[0]
		if typ := sizes[s.name]; typ != "" {
			of = &pg.Node{Node: &pg.Node_TypeCast{TypeCast: &pg.TypeCast{Arg: of, TypeName: &pg.TypeName{
				Names: []*pg.Node{pg.MakeStrNode(catalogSchema), pg.MakeStrNode(typ)}, Typemod: -1,
			}}}}
		}
		never := &pg.Node{Node: &pg.Node_AConst{AConst: &pg.A_Const{Val: &pg.A_Const_Boolval{Boolval: &pg.Boolean{}}}}}
		s.call.Args[0] = &pg.Node{Node: &pg.Node_CaseExpr{CaseExpr: &pg.CaseExpr{
			Args: []*pg.Node{{Node: &pg.Node_CaseWhen{CaseWhen: &pg.CaseWhen{Expr: never, Result: of}}}},
		}}}
	}
}
