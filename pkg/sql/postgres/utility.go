package postgres

import (
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/sql"
)

// utility visits a statement that is not a query, or returns false.
func (a *analyzer) utility(n *pg.Node) bool {
	st := a.st
	switch v := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		if v.SelectStmt.IntoClause == nil {
			return false
		}
		a.selectInto(v.SelectStmt)
	case *pg.Node_InsertStmt, *pg.Node_UpdateStmt, *pg.Node_DeleteStmt, *pg.Node_MergeStmt:
		return false
	case *pg.Node_TruncateStmt:
		st.Verb, st.Command = sql.Truncate, "TRUNCATE"
		a.truncate(v.TruncateStmt)
	case *pg.Node_CopyStmt:
		a.copyStatement(v.CopyStmt)
	case *pg.Node_ExplainStmt:
		a.explain(v.ExplainStmt)
	case *pg.Node_TransactionStmt:
		a.transaction(v.TransactionStmt)
	case *pg.Node_ConstraintsSetStmt:
		if len(v.ConstraintsSetStmt.Constraints) > 0 {
			a.unmodelled(commandName(n))
			break
		}
		a.saw(1)
		st.Verb, st.Command = sql.Transaction, "SET CONSTRAINTS"
	case *pg.Node_VariableSetStmt:
		a.variableSet(v.VariableSetStmt)
	case *pg.Node_VariableShowStmt:
		a.saw(1)
		st.Verb, st.Command, st.Returns = sql.Show, "SHOW", true
		st.Setting = settingName(v.VariableShowStmt.Name)
	case *pg.Node_DiscardStmt:
		a.discard(v.DiscardStmt)
	case *pg.Node_PrepareStmt:
		a.saw(1)
		for _, t := range v.PrepareStmt.Argtypes {
			a.typeName(t.GetTypeName())
		}
		st.Outputs = outputs(a.queryStatement(v.PrepareStmt.Query))
		st.Verb, st.Command, st.Object, st.Returns = sql.Prepare, "PREPARE", v.PrepareStmt.Name, false
	case *pg.Node_ExecuteStmt:
		a.saw(1)
		st.Verb, st.Command, st.Object, st.Returns = sql.Execute, "EXECUTE", v.ExecuteStmt.Name, true
		a.computed(&scope{}, sql.RolePredicate, v.ExecuteStmt.Params...)
	case *pg.Node_DeallocateStmt:
		a.saw(1)
		st.Verb, st.Command, st.Object = sql.Deallocate, "DEALLOCATE", v.DeallocateStmt.Name
	case *pg.Node_DeclareCursorStmt:
		a.saw(1)
		if v.DeclareCursorStmt.Query.GetSelectStmt() == nil {
			a.giveUp("a cursor over %s is not understood", describe(v.DeclareCursorStmt.Query))
		}
		st.Outputs = outputs(a.queryStatement(v.DeclareCursorStmt.Query))
		st.Verb, st.Command, st.Object, st.Returns = sql.Declare, "DECLARE CURSOR", v.DeclareCursorStmt.Portalname, false
	case *pg.Node_FetchStmt:
		a.saw(1)
		st.Verb, st.Command, st.Object, st.Returns = sql.Fetch, "FETCH", v.FetchStmt.Portalname, !v.FetchStmt.Ismove
		if v.FetchStmt.Ismove {
			st.Command = "MOVE"
		}
	case *pg.Node_ClosePortalStmt:
		a.saw(1)
		st.Verb, st.Command, st.Object = sql.Close, "CLOSE", v.ClosePortalStmt.Portalname
	case *pg.Node_ListenStmt:
		a.saw(1)
		st.Verb, st.Command = sql.Listen, "LISTEN"
	case *pg.Node_UnlistenStmt:
		a.saw(1)
		st.Verb, st.Command = sql.Listen, "UNLISTEN"
	case *pg.Node_NotifyStmt:
		a.saw(1)
		st.Verb, st.Command = sql.Listen, "NOTIFY"
	default:
		if !a.define(n) {
			a.unmodelled(commandName(n))
		}
	}
	return true
}

// unmodelled is a statement that there is no model of.
func (a *analyzer) unmodelled(command string) {
	*a.st = sql.Statement{Verb: sql.Other, Command: command}
	a.uses, a.other = nil, true
}

func (a *analyzer) copyStatement(n *pg.CopyStmt) {
	if n.IsProgram || n.Filename != "" {
		what := "COPY with a file"
		if n.IsProgram {
			what = "COPY with a program"
		}
		a.unmodelled(what)
		return
	}
	st := a.st
	st.Verb, st.Returns = sql.Select, true
	if n.IsFrom {
		st.Verb, st.Returns = sql.Insert, false
	} else if n.Query != nil && n.Query.GetSelectStmt() == nil {
		a.giveUp("COPY of %s is not understood; run it without COPY", describe(n.Query))
		return
	}
	st.Outputs = outputs(a.copy(n))
	st.Command = "COPY"
}

// explainOptions are those that neither run the statement nor show what the planner
// knows of the rows.
var explainOptions = []string{"analyze", "verbose", "costs", "format", "summary", "settings", "timing", "generic_plan"}

// explain visits EXPLAIN. Costs and row estimates tell of values that are masked, so
// they are turned off in what is sent.
func (a *analyzer) explain(n *pg.ExplainStmt) {
	a.saw(1)
	kept := n.Options[:0:0]
	for _, o := range n.Options {
		d := o.GetDefElem()
		if d == nil || !slices.Contains(explainOptions, d.Defname) {
			a.giveUp("option %s of EXPLAIN is not understood", strings.ToUpper(d.GetDefname()))
			return
		}
		a.saw(1)
		a.option(d)
		switch d.Defname {
		case "analyze":
			if on, ok := boolean(d.Arg); (on || !ok) && !hole.Is("analyse-explain-analyze") {
				a.unmodelled("EXPLAIN ANALYZE")
				return
			}
		case "costs", "summary", "timing":
			// Off, whatever was asked for.
		default:
			kept = append(kept, o)
		}
	}
	if n.Query.GetCreateTableAsStmt() != nil || n.Query.GetExecuteStmt() != nil || n.Query.GetDeclareCursorStmt() != nil {
		a.giveUp("EXPLAIN of %s is not understood", describe(n.Query))
		return
	}
	n.Options = append(kept, off("costs"), off("summary"))
	if hole.Is("analyse-explain-costs") {
		n.Options = kept
	}
	a.altered = true
	a.queryStatement(n.Query)
	a.st.Command, a.st.Explain, a.st.Returns = "EXPLAIN "+a.st.Command, true, true
	a.st.Outputs = []sql.Output{{Name: "QUERY PLAN"}}
}

func off(option string) *pg.Node {
	return &pg.Node{Node: &pg.Node_DefElem{DefElem: &pg.DefElem{
		Defname: option, Defaction: pg.DefElemAction_DEFELEM_UNSPEC, Arg: pg.MakeStrNode("off"),
	}}}
}

// boolean reads the value of an option as the server does.
func boolean(n *pg.Node) (on, ok bool) {
	switch v := n.GetNode().(type) {
	case nil:
		return true, true
	case *pg.Node_Integer:
		return v.Integer.Ival == 1, v.Integer.Ival == 0 || v.Integer.Ival == 1
	case *pg.Node_Boolean:
		return v.Boolean.Boolval, true
	case *pg.Node_String_:
		switch strings.ToLower(v.String_.Sval) {
		case "true", "on":
			return true, true
		case "false", "off":
			return false, true
		}
	}
	return false, false
}

func (a *analyzer) transaction(n *pg.TransactionStmt) {
	command := strings.ReplaceAll(strings.TrimPrefix(n.Kind.String(), "TRANS_STMT_"), "_", " ")
	switch n.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_PREPARE, pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED, pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED, pg.TransactionStmtKind_TRANSACTION_STMT_KIND_UNDEFINED:
		a.unmodelled(strings.Replace(command, "PREPARE", "PREPARE TRANSACTION", 1))
		return
	}
	a.saw(1)
	a.st.Verb, a.st.Command = sql.Transaction, command
	a.transactionModes(n.Options)
}

// transactionModes visits options such as READ ONLY.
func (a *analyzer) transactionModes(list []*pg.Node) {
	for _, o := range list {
		d := o.GetDefElem()
		if d == nil || !strings.HasPrefix(d.Defname, "transaction_") {
			a.giveUp("a transaction's option %s is not understood", d.GetDefname())
			return
		}
		a.saw(1)
		a.option(d)
	}
}
