package postgres

import (
	"maps"
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

const definedBefore = "what is defined before it may change what its names mean; send them one by one"

// statement visits one statement of the text and adds its facts.
func (a *analyzer) statement(n *pg.Node) {
	a.statements = append(a.statements, sql.Statement{})
	a.st = &a.statements[len(a.statements)-1]
	a.uses, a.locks, a.defining = nil, false, false
	if a.moved {
		a.giveUp("a setting before it changes what its names mean; send them one by one")
		return
	}
	if !a.utility(n) {
		a.st.Outputs = outputs(a.queryStatement(n))
	}
	a.close()
	if a.defined && a.st.Names(len(a.path)-1) && !hole.Is("analyse-defined") {
		a.giveUp(definedBefore)
	}
	a.defined = a.defined || a.st.Verb == sql.Define
}

// queryStatement visits what reads or changes relations, and describes it.
func (a *analyzer) queryStatement(n *pg.Node) result {
	st := a.st
	switch v := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		st.Verb, st.Command, st.Returns = sql.Select, "SELECT", true
	case *pg.Node_InsertStmt:
		st.Verb, st.Command, st.Returns = sql.Insert, "INSERT", len(v.InsertStmt.ReturningList) > 0
	case *pg.Node_UpdateStmt:
		st.Verb, st.Command, st.Returns = sql.Update, "UPDATE", len(v.UpdateStmt.ReturningList) > 0
	case *pg.Node_DeleteStmt:
		st.Verb, st.Command, st.Returns = sql.Delete, "DELETE", len(v.DeleteStmt.ReturningList) > 0
	case *pg.Node_MergeStmt:
		st.Verb, st.Command, st.Returns = sql.Update, "MERGE", len(v.MergeStmt.ReturningList) > 0
	default:
		a.giveUp("%s is not understood", describe(n))
	}
	return a.dml(n, &scope{})
}

// dml visits a statement that reads or changes relations and marks what it returns.
func (a *analyzer) dml(n *pg.Node, s *scope) result {
	var r result
	switch v := n.GetNode().(type) {
	case *pg.Node_SelectStmt:
		r = a.query(v.SelectStmt, s)
	case *pg.Node_InsertStmt:
		r = a.insert(v.InsertStmt, s)
	case *pg.Node_UpdateStmt:
		r = a.update(v.UpdateStmt, s)
	case *pg.Node_DeleteStmt:
		r = a.delete(v.DeleteStmt, s)
	case *pg.Node_MergeStmt:
		r = a.merge(v.MergeStmt, s)
	default:
		a.giveUp("%s is not understood here", describe(n))
	}
	a.markAll(r, sql.RoleOutput)
	return r
}

// close turns what was found in the current statement into its facts.
func (a *analyzer) close() {
	st := a.st
	effect := postern.EffectNone
	for _, u := range a.uses {
		effect = effect.Worse(postern.EffectRead)
		for v := range u.verbs {
			if v != sql.Select {
				effect = postern.EffectWrite
			}
		}
		a.columnCasts(u)
		st.Tables = append(st.Tables, u.table())
	}
	for i := range st.Functions {
		f := &st.Functions[i]
		f.Blank = a.blank(f)
		if !f.Pure && !f.Blank {
			effect = effect.Worse(postern.EffectWrite)
		}
	}
	for _, u := range st.Settings {
		if u.Write {
			effect = effect.Worse(postern.EffectControl)
		}
	}
	if a.locks {
		effect = effect.Worse(postern.EffectWrite)
	}
	switch st.Verb {
	case sql.Select, sql.Declare, sql.Fetch, sql.Show:
		effect = effect.Worse(postern.EffectRead)
	case sql.Insert, sql.Update, sql.Delete, sql.Truncate, sql.Execute:
		// What a prepared statement does is known to whoever prepared it.
		effect = effect.Worse(postern.EffectWrite)
	case sql.Define:
		effect = effect.Worse(postern.EffectDefine)
	case sql.Set, sql.Listen:
		effect = effect.Worse(postern.EffectControl)
	case sql.Transaction, sql.Prepare, sql.Deallocate, sql.Close:
	case sql.Other:
		effect = postern.EffectUnknown
	}
	if st.Explain {
		effect = postern.EffectRead // it is planned, not run
	}
	st.Effect = effect
}

// table is the use as facts.
func (u *use) table() sql.Table {
	t := sql.Table{
		Schema: u.rel.Schema, Name: u.rel.Name.Name, Kind: u.rel.Kind, System: isSystem(u.rel.Schema),
		Verbs: slices.Sorted(maps.Keys(u.verbs)), Roles: u.read, Write: sorted(u.write),
		NoWhere: u.noWhere, Target: u.target, TargetReads: sorted(u.targetReads), Beneath: u.rel.Beneath,
	}
	for name, role := range u.read {
		if role == 0 {
			u.read[name] = sql.RoleComputed // selected somewhere inside and then left
		}
		if name == "*" {
			t.AllColumns = true
		} else {
			t.Read = append(t.Read, name)
		}
	}
	slices.Sort(t.Read)
	return t
}

func sorted(m map[string]bool) []string {
	if len(m) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m))
}
