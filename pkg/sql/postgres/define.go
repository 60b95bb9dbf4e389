package postgres

import (
	"slices"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/posterngate/postern/pkg/sql"
)

// define visits a statement that defines something in a schema, or returns false. Those
// that define code, such as functions, triggers and rules, that give rights away, or
// that reach beyond a schema, are not among them.
func (a *analyzer) define(n *pg.Node) bool {
	a.defining = true
	st := a.st
	command := commandName(n)
	switch v := n.GetNode().(type) {
	case *pg.Node_CreateStmt:
		a.created(v.CreateStmt.Relation)
	case *pg.Node_CreateTableAsStmt:
		a.createTableAs(v.CreateTableAsStmt)
		return true
	case *pg.Node_ViewStmt:
		a.createView(v.ViewStmt)
		return true
	case *pg.Node_CreateSeqStmt:
		a.created(v.CreateSeqStmt.Sequence)
	case *pg.Node_CreateSchemaStmt:
		if v.CreateSchemaStmt.Authrole != nil || len(v.CreateSchemaStmt.SchemaElts) > 0 || v.CreateSchemaStmt.Schemaname == "" {
			return false
		}
		a.schema(v.CreateSchemaStmt.Schemaname)
	case *pg.Node_CreateEnumStmt:
		a.newName(names(v.CreateEnumStmt.TypeName))
	case *pg.Node_AlterEnumStmt:
		a.oldName(names(v.AlterEnumStmt.TypeName))
	case *pg.Node_IndexStmt, *pg.Node_AlterSeqStmt, *pg.Node_RefreshMatViewStmt:
		// Their relation is found by the visit.
	case *pg.Node_AlterTableStmt:
		if !alterable(v.AlterTableStmt) {
			return false
		}
	case *pg.Node_RenameStmt:
		if v.RenameStmt.Relation == nil {
			return false
		}
	case *pg.Node_AlterObjectSchemaStmt:
		if v.AlterObjectSchemaStmt.Relation == nil {
			return false
		}
		a.schema(v.AlterObjectSchemaStmt.Newschema)
	case *pg.Node_CommentStmt:
		if !a.comment(v.CommentStmt) {
			return false
		}
	case *pg.Node_DropStmt:
		if !a.drop(v.DropStmt) {
			return false
		}
	default:
		return false
	}
	st.Verb, st.Command = sql.Define, command
	a.parts(n)
	return true
}

// dropped are the kinds of object that DROP may name.
var dropped = []pg.ObjectType{
	pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_INDEX,
	pg.ObjectType_OBJECT_SEQUENCE, pg.ObjectType_OBJECT_TYPE, pg.ObjectType_OBJECT_SCHEMA,
}

func (a *analyzer) drop(d *pg.DropStmt) bool {
	if !slices.Contains(dropped, d.RemoveType) {
		return false
	}
	if d.Behavior == pg.DropBehavior_DROP_CASCADE {
		a.giveUp("CASCADE also drops what it does not name")
	}
	for _, o := range d.Objects {
		switch {
		case d.RemoveType == pg.ObjectType_OBJECT_SCHEMA:
			a.schema(o.GetString_().GetSval())
		case o.GetTypeName() != nil:
			a.oldName(names(o.GetTypeName().Names))
		default:
			a.oldName(names(o.GetList().GetItems()))
		}
	}
	return true
}

func (a *analyzer) comment(c *pg.CommentStmt) bool {
	parts := names(c.Object.GetList().GetItems())
	switch c.Objtype {
	case pg.ObjectType_OBJECT_TABLE, pg.ObjectType_OBJECT_VIEW, pg.ObjectType_OBJECT_MATVIEW, pg.ObjectType_OBJECT_INDEX, pg.ObjectType_OBJECT_SEQUENCE:
		a.oldName(parts)
	case pg.ObjectType_OBJECT_COLUMN:
		a.oldName(parts[:max(len(parts)-1, 0)])
	default:
		return false
	}
	return true
}

// alterations are the changes of a table that concern its shape alone.
var alterations = []pg.AlterTableType{
	pg.AlterTableType_AT_AddColumn, pg.AlterTableType_AT_DropColumn, pg.AlterTableType_AT_ColumnDefault,
	pg.AlterTableType_AT_DropNotNull, pg.AlterTableType_AT_SetNotNull, pg.AlterTableType_AT_AlterColumnType,
	pg.AlterTableType_AT_AddConstraint, pg.AlterTableType_AT_DropConstraint, pg.AlterTableType_AT_ValidateConstraint,
	pg.AlterTableType_AT_SetStatistics, pg.AlterTableType_AT_SetStorage, pg.AlterTableType_AT_SetCompression,
	pg.AlterTableType_AT_AddIdentity, pg.AlterTableType_AT_SetIdentity, pg.AlterTableType_AT_DropIdentity,
	pg.AlterTableType_AT_DropExpression, pg.AlterTableType_AT_AttachPartition, pg.AlterTableType_AT_DetachPartition,
	pg.AlterTableType_AT_SetRelOptions, pg.AlterTableType_AT_ResetRelOptions,
}

func alterable(t *pg.AlterTableStmt) bool {
	if t.Relation == nil {
		return false
	}
	for _, n := range t.Cmds {
		c := n.GetAlterTableCmd()
		if c == nil || !slices.Contains(alterations, c.Subtype) || c.Behavior == pg.DropBehavior_DROP_CASCADE {
			return false
		}
	}
	return true
}

func (a *analyzer) selectInto(q *pg.SelectStmt) {
	a.defining = true
	into := q.IntoClause
	q.IntoClause = nil
	a.dml(&pg.Node{Node: &pg.Node_SelectStmt{SelectStmt: q}}, &scope{})
	q.IntoClause = into
	a.into(into)
	a.st.Verb, a.st.Command = sql.Define, "SELECT INTO"
}

func (a *analyzer) createTableAs(n *pg.CreateTableAsStmt) {
	a.saw(1)
	a.into(n.Into)
	command := "CREATE TABLE AS"
	if n.Objtype == pg.ObjectType_OBJECT_MATVIEW {
		command = "CREATE MATERIALIZED VIEW"
	}
	if n.Query.GetSelectStmt() == nil {
		a.giveUp("%s of %s is not understood", command, describe(n.Query))
		return
	}
	a.dml(n.Query, &scope{})
	a.st.Verb, a.st.Command = sql.Define, command
}

func (a *analyzer) createView(n *pg.ViewStmt) {
	a.saw(1)
	a.created(n.View)
	a.saw(1)
	for _, x := range n.Aliases {
		a.strings([]*pg.Node{x})
	}
	for _, o := range n.Options {
		if o.GetDefElem() == nil {
			a.giveUp("%s in CREATE VIEW is not understood", describe(o))
			return
		}
		a.saw(1)
		a.option(o.GetDefElem())
	}
	a.dml(n.Query, &scope{})
	a.st.Verb, a.st.Command = sql.Define, "CREATE VIEW"
}

// into visits where CREATE TABLE AS and SELECT INTO put their rows.
func (a *analyzer) into(i *pg.IntoClause) {
	a.saw(2)
	a.created(i.Rel)
	if len(i.ColNames) > 0 {
		a.strings(i.ColNames)
	}
	for _, o := range i.Options {
		if o.GetDefElem() == nil {
			a.giveUp("%s is not understood", describe(o))
			return
		}
		a.saw(1)
		a.option(o.GetDefElem())
	}
}

// created is the schema of a new relation.
func (a *analyzer) created(rv *pg.RangeVar) {
	if rv.GetRelpersistence() == "t" {
		a.giveUp("temporary relations are not allowed: they would hide others of the same name")
	}
	a.newName([]string{rv.GetCatalogname(), rv.GetSchemaname(), rv.GetRelname()})
}

// newName notes the schema in which a new object is made.
func (a *analyzer) newName(parts []string) {
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	if len(parts) != 1 {
		a.oldName(parts)
		return
	}
	i := slices.IndexFunc(a.path, func(s string) bool { return s != catalogSchema })
	if i < 0 {
		a.giveUp("%s has no schema to be made in", parts[0])
		return
	}
	a.schema(a.path[i])
}

// oldName notes the schemas in which an object that is named may be.
func (a *analyzer) oldName(parts []string) {
	switch len(parts) {
	case 1:
		for _, s := range a.path {
			if a.cat.Relations[sql.Name{Schema: s, Name: parts[0]}] != nil {
				a.st.Unqualified = true
				a.schema(s)
				return
			}
		}
		// Perhaps newer than the catalogue, or not in it: an index.
		for _, s := range a.path {
			if s != catalogSchema {
				a.schema(s)
			}
		}
	case 2:
		a.schema(parts[0])
	case 3:
		if parts[0] != a.cat.Database {
			a.giveUp("%s is in another database", quoteAll(parts...))
		}
		a.schema(parts[1])
	default:
		a.giveUp("a name in it is not understood")
	}
}

func (a *analyzer) schema(name string) {
	if name == "" || name == "pg_temp" {
		a.giveUp("temporary relations are not allowed: they would hide others of the same name")
		return
	}
	if !slices.Contains(a.st.Schemas, name) {
		a.st.Schemas = append(a.st.Schemas, name)
		slices.Sort(a.st.Schemas)
	}
}

func names(list []*pg.Node) []string {
	var out []string
	for _, n := range list {
		out = append(out, n.GetString_().GetSval())
	}
	return out
}

// parts visits all of a definition: expressions in it with the columns of a relation
// that may not be there yet, names of relations for their schemas, and types.
func (a *analyzer) parts(n *pg.Node) {
	m := n.ProtoReflect()
	f := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
	if f == nil {
		return
	}
	a.part(m.Get(f).Message())
}

func (a *analyzer) part(m protoreflect.Message) {
	switch v := m.Interface().(type) {
	case *pg.Node:
		if isExpression(v) {
			a.expr(v, anything(), sql.RolePredicate)
			return
		}
		a.parts(v)
		return
	case *pg.TypeName:
		if a.st.Command == "DROP TYPE" {
			a.saw(1)
			a.strings(v.Names)
			return
		}
		a.typeName(v)
		return
	case *pg.RangeVar:
		a.named(v)
	case *pg.SelectStmt:
		a.giveUp("a query in %s is not understood", a.st.Command)
		return
	case *pg.FuncCall:
		a.call(v, anything(), sql.RolePredicate)
		return
	}
	a.saw(1)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				a.part(v.List().Get(i).Message())
			}
		default:
			a.part(v.Message())
		}
		return true
	})
}

// named notes the schema of a relation that a definition names beside what it defines.
func (a *analyzer) named(rv *pg.RangeVar) {
	parts := slices.DeleteFunc([]string{rv.Catalogname, rv.Schemaname, rv.Relname}, func(s string) bool { return s == "" })
	if len(parts) == 1 && a.creating() && len(a.st.Schemas) > 0 {
		if !slices.ContainsFunc(a.path, func(s string) bool { return a.cat.Relations[sql.Name{Schema: s, Name: parts[0]}] != nil }) {
			return // the new relation itself
		}
	}
	a.oldName(parts)
}

func (a *analyzer) creating() bool {
	return a.st.Command == "CREATE TABLE" || a.st.Command == "CREATE SEQUENCE"
}

// anything is a scope in which every name is a column of no relation.
func anything() *scope {
	return &scope{items: []*item{{name: "", bare: true, open: &lineage{computed: true}}}}
}

// isExpression reports whether a node of a definition computes something.
func isExpression(n *pg.Node) bool {
	switch n.GetNode().(type) {
	case *pg.Node_AExpr, *pg.Node_BoolExpr, *pg.Node_ColumnRef, *pg.Node_AConst, *pg.Node_TypeCast, *pg.Node_NullTest,
		*pg.Node_BooleanTest, *pg.Node_CaseExpr, *pg.Node_CoalesceExpr, *pg.Node_MinMaxExpr, *pg.Node_RowExpr,
		*pg.Node_AArrayExpr, *pg.Node_AIndirection, *pg.Node_SqlvalueFunction, *pg.Node_SubLink, *pg.Node_XmlExpr, *pg.Node_FuncCall:
		return true
	}
	return false
}
