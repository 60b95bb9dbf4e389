package postgres

import (
	"strings"
	"unicode"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// commands are the names of statements whose node is called otherwise.
var commands = map[string]string{
	"AlterDatabaseRefreshCollStmt": "ALTER DATABASE", "AlterDatabaseSetStmt": "ALTER DATABASE", "AlterEventTrigStmt": "ALTER EVENT TRIGGER",
	"AlterFdwStmt": "ALTER FOREIGN DATA WRAPPER", "AlterForeignServerStmt": "ALTER SERVER", "AlterObjectDependsStmt": "ALTER",
	"AlterOpFamilyStmt": "ALTER OPERATOR FAMILY", "AlterOwnerStmt": "ALTER OWNER", "AlterRoleSetStmt": "ALTER ROLE",
	"AlterTableMoveAllStmt": "ALTER TABLE", "AlterTableSpaceOptionsStmt": "ALTER TABLESPACE", "AlterTsconfigurationStmt": "ALTER TEXT SEARCH CONFIGURATION",
	"AlterTsdictionaryStmt": "ALTER TEXT SEARCH DICTIONARY", "CheckPointStmt": "CHECKPOINT", "CompositeTypeStmt": "CREATE TYPE",
	"ConstraintsSetStmt": "SET CONSTRAINTS", "CreateAmStmt": "CREATE ACCESS METHOD", "CreateConversionStmt": "CREATE CONVERSION",
	"CreateEventTrigStmt": "CREATE EVENT TRIGGER", "CreateFdwStmt": "CREATE FOREIGN DATA WRAPPER", "CreateForeignServerStmt": "CREATE SERVER",
	"CreateForeignTableStmt": "CREATE FOREIGN TABLE", "CreateOpClassStmt": "CREATE OPERATOR CLASS", "CreateOpFamilyStmt": "CREATE OPERATOR FAMILY",
	"CreatePlangStmt": "CREATE LANGUAGE", "CreateRangeStmt": "CREATE TYPE", "CreateStatsStmt": "CREATE STATISTICS",
	"CreateTableSpaceStmt": "CREATE TABLESPACE", "CreateTrigStmt": "CREATE TRIGGER", "CreatedbStmt": "CREATE DATABASE", "DefineStmt": "CREATE",
	"DropOwnedStmt": "DROP OWNED", "DropdbStmt": "DROP DATABASE", "GrantRoleStmt": "GRANT", "ImportForeignSchemaStmt": "IMPORT FOREIGN SCHEMA",
	"ReassignOwnedStmt": "REASSIGN OWNED", "ReplicaIdentityStmt": "ALTER TABLE", "RuleStmt": "CREATE RULE", "SecLabelStmt": "SECURITY LABEL",
	"ViewStmt": "CREATE VIEW", "IndexStmt": "CREATE INDEX", "CreateStmt": "CREATE TABLE", "CreateSeqStmt": "CREATE SEQUENCE",
	"AlterSeqStmt": "ALTER SEQUENCE", "AlterEnumStmt": "ALTER TYPE", "CreateEnumStmt": "CREATE TYPE", "RenameStmt": "ALTER RENAME",
	"AlterObjectSchemaStmt": "ALTER SET SCHEMA", "RefreshMatViewStmt": "REFRESH MATERIALIZED VIEW", "CreateTableAsStmt": "CREATE TABLE AS",
	"CommentStmt": "COMMENT", "DropStmt": "DROP", "SelectStmt": "SELECT", "InsertStmt": "INSERT", "UpdateStmt": "UPDATE", "DeleteStmt": "DELETE",
	"MergeStmt": "MERGE", "ExplainStmt": "EXPLAIN", "ExecuteStmt": "EXECUTE", "PrepareStmt": "PREPARE",
}

// nodeName is the name of a node's message.
func nodeName(n *pg.Node) string {
	m := n.ProtoReflect()
	f := m.WhichOneof(m.Descriptor().Oneofs().Get(0))
	if f == nil {
		return ""
	}
	return string(f.Message().Name())
}

// commandName is the name of a statement for people, such as "VACUUM".
func commandName(n *pg.Node) string {
	switch v := n.GetNode().(type) {
	case *pg.Node_GrantStmt:
		if !v.GrantStmt.IsGrant {
			return "REVOKE"
		}
	case *pg.Node_GrantRoleStmt:
		if !v.GrantRoleStmt.IsGrant {
			return "REVOKE"
		}
	case *pg.Node_CreateFunctionStmt:
		if v.CreateFunctionStmt.IsProcedure {
			return "CREATE PROCEDURE"
		}
	case *pg.Node_VacuumStmt:
		if !v.VacuumStmt.IsVacuumcmd {
			return "ANALYZE"
		}
	case *pg.Node_DropStmt:
		return "DROP " + objectName(v.DropStmt.RemoveType)
	case *pg.Node_AlterTableStmt:
		return "ALTER " + objectName(v.AlterTableStmt.Objtype)
	case *pg.Node_DefineStmt:
		return "CREATE " + objectName(v.DefineStmt.Kind)
	case *pg.Node_RenameStmt:
		return "ALTER " + objectName(v.RenameStmt.RenameType)
	case *pg.Node_AlterObjectSchemaStmt:
		return "ALTER " + objectName(v.AlterObjectSchemaStmt.ObjectType)
	case *pg.Node_AlterOwnerStmt:
		return "ALTER " + objectName(v.AlterOwnerStmt.ObjectType)
	case *pg.Node_CommentStmt:
		return "COMMENT ON " + objectName(v.CommentStmt.Objtype)
	}
	name := nodeName(n)
	if c, ok := commands[name]; ok {
		return c
	}
	return words(strings.TrimSuffix(name, "Stmt"))
}

func objectName(t pg.ObjectType) string {
	switch t {
	case pg.ObjectType_OBJECT_MATVIEW:
		return "MATERIALIZED VIEW"
	case pg.ObjectType_OBJECT_TABCONSTRAINT:
		return "TABLE"
	}
	return strings.ReplaceAll(strings.TrimPrefix(t.String(), "OBJECT_"), "_", " ")
}

// words turns "CaseExpr" into "CASE EXPR".
func words(name string) string {
	var b strings.Builder
	for i, r := range name {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte(' ')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	return b.String()
}

// describe names a node for people.
func describe(n *pg.Node) string {
	name := nodeName(n)
	switch {
	case name == "":
		return "an empty part"
	case strings.HasSuffix(name, "Stmt"):
		return commandName(n)
	}
	return describeName(name)
}

// constructs are the names of what people may well write.
var constructs = map[string]string{
	"CurrentOfExpr": "WHERE CURRENT OF", "RangeTableFunc": "XMLTABLE", "JsonTable": "JSON_TABLE", "A_Star": "*",
	"CommonTableExpr.search_clause": "SEARCH in WITH", "CommonTableExpr.cycle_clause": "CYCLE in WITH", "AStar": "*", "IntoClause": "INTO",
	"JsonFuncExpr": "JSON_VALUE and alike", "JsonObjectConstructor": "JSON_OBJECT", "JsonArrayConstructor": "JSON_ARRAY",
	"JsonIsPredicate": "IS JSON", "SortBy": "ORDER BY", "DefElem": "an option", "RoleSpec": "a role",
}

// describeName names a message, or a field of one, for people.
func describeName(name string) string {
	if c, ok := constructs[name]; ok {
		return c
	}
	message, field, _ := strings.Cut(name, ".")
	if c, ok := constructs[message]; ok {
		return c
	}
	if field != "" {
		return strings.ReplaceAll(strings.TrimSuffix(field, "_clause"), "_", " ") + " of " + strings.ToLower(words(message))
	}
	return strings.ToLower(words(strings.ReplaceAll(message, "_", "")))
}
