package postgres

import (
	"sync"

	"github.com/posterngate/postern/pkg/sql/postgres/pgtree"
)

// knownFields lists every message and field that has a rule here. What is not listed
// makes a statement's facts incomplete, so that a newer grammar cannot say anything
// behind the analyser's back. Fields that change no fact are listed like the others.
const knownFields = `
A_Const: ival fval boolval sval bsval isnull
Integer: ival
Float: fval
Boolean: boolval
String: sval
BitString: bsval
List: items
Alias: aliasname colnames
RangeVar: catalogname schemaname relname inh relpersistence alias
ColumnRef: fields
A_Star:
ParamRef: number
A_Expr: kind name lexpr rexpr
FuncCall: funcname args agg_order agg_filter over agg_within_group agg_star agg_distinct func_variadic funcformat
NamedArgExpr: arg name argnumber
A_Indices: is_slice lidx uidx
A_Indirection: arg indirection
A_ArrayExpr: elements
ResTarget: name indirection val
MultiAssignRef: source colno ncolumns
TypeCast: arg type_name
TypeName: names setof typmods typemod array_bounds
CollateClause: arg collname
SortBy: node sortby_dir sortby_nulls use_op
WindowDef: name refname partition_clause order_clause frame_options start_offset end_offset
BoolExpr: boolop args
NullTest: arg nulltesttype
BooleanTest: arg booltesttype
CaseExpr: arg args defresult
CaseWhen: expr result
CoalesceExpr: args
MinMaxExpr: op args
RowExpr: args row_format
SubLink: sub_link_type testexpr oper_name subselect
SQLValueFunction: op typmod
GroupingFunc: args
MergeSupportFunc: msftype
GroupingSet: kind content
SetToDefault:
XmlExpr: op name named_args args xmloption
XmlSerialize: xmloption expr type_name
RangeTableFunc: lateral docexpr rowexpr namespaces columns alias
RangeTableFuncCol: colname type_name for_ordinality is_not_null colexpr coldefexpr
JsonFormat: format_type encoding
JsonReturning: format typid typmod
JsonOutput: type_name returning
JsonValueExpr: raw_expr formatted_expr format
JsonArgument: val name
JsonBehavior: btype expr coerce
JsonKeyValue: key value
JsonFuncExpr: op column_name context_item pathspec passing output on_empty on_error wrapper quotes
JsonIsPredicate: expr format item_type unique_keys
JsonParseExpr: expr output unique_keys
JsonScalarExpr: expr output
JsonSerializeExpr: expr output
JsonObjectConstructor: exprs output absent_on_null unique
JsonArrayConstructor: exprs output absent_on_null
JsonArrayQueryConstructor: query output format absent_on_null
JsonAggConstructor: output agg_filter agg_order over
JsonObjectAgg: constructor arg absent_on_null unique
JsonArrayAgg: constructor arg absent_on_null
JsonTable: context_item pathspec passing columns on_error alias lateral
JsonTablePathSpec: string name
JsonTableColumn: coltype name type_name pathspec format wrapper quotes columns on_empty on_error

SelectStmt: distinct_clause into_clause target_list from_clause where_clause group_clause group_distinct having_clause window_clause values_lists sort_clause limit_offset limit_count limit_option locking_clause with_clause op all larg rarg
WithClause: ctes recursive
CommonTableExpr: ctename aliascolnames ctematerialized ctequery
RangeSubselect: lateral subquery alias
RangeFunction: lateral ordinality is_rowsfrom functions alias coldeflist
RangeTableSample: relation method args repeatable
JoinExpr: jointype is_natural larg rarg using_clause join_using_alias quals alias
LockingClause: locked_rels strength wait_policy

InsertStmt: relation cols select_stmt on_conflict_clause returning_list with_clause override
OnConflictClause: action infer target_list where_clause
InferClause: index_elems where_clause conname
IndexElem: name expr indexcolname collation opclass ordering nulls_ordering
UpdateStmt: relation target_list where_clause from_clause returning_list with_clause
DeleteStmt: relation using_clause where_clause returning_list with_clause
MergeStmt: relation source_relation join_condition merge_when_clauses returning_list with_clause
MergeWhenClause: match_kind command_type override condition target_list values
TruncateStmt: relations restart_seqs behavior
CopyStmt: relation query attlist is_from options where_clause

DefElem: defname arg defaction
VariableSetStmt: kind name args is_local
VariableShowStmt: name
DiscardStmt: target
ConstraintsSetStmt: constraints deferred
TransactionStmt: kind options savepoint_name chain
PrepareStmt: name argtypes query
ExecuteStmt: name params
DeallocateStmt: name isall
DeclareCursorStmt: portalname options query
FetchStmt: direction how_many portalname ismove
ClosePortalStmt: portalname
ListenStmt: conditionname
UnlistenStmt: conditionname
NotifyStmt: conditionname payload
ExplainStmt: query options

CreateStmt: relation table_elts inh_relations partbound partspec constraints options oncommit if_not_exists
ColumnDef: colname type_name compression is_local is_not_null storage_name raw_default identity generated coll_clause constraints
Constraint: contype conname deferrable initdeferred skip_validation initially_valid is_no_inherit raw_expr generated_when nulls_not_distinct keys including options indexname access_method where_clause pktable fk_attrs pk_attrs fk_matchtype fk_upd_action fk_del_action fk_del_set_cols
PartitionSpec: strategy part_params
PartitionElem: name expr
PartitionBoundSpec: strategy is_default modulus remainder listdatums lowerdatums upperdatums
PartitionCmd: name bound concurrent
TableLikeClause: relation options
AlterTableStmt: relation cmds objtype missing_ok
AlterTableCmd: subtype name num def behavior missing_ok recurse
DropStmt: objects remove_type behavior missing_ok concurrent
IndexStmt: idxname relation access_method index_params index_including_params options where_clause unique nulls_not_distinct concurrent if_not_exists
CreateTableAsStmt: query into objtype is_select_into if_not_exists
IntoClause: rel col_names access_method options on_commit skip_data
ViewStmt: view aliases query replace options with_check_option
CreateSeqStmt: sequence options if_not_exists
AlterSeqStmt: sequence options missing_ok
RenameStmt: rename_type relation_type relation subname newname behavior missing_ok
CommentStmt: objtype object comment
CreateSchemaStmt: schemaname if_not_exists
CreateEnumStmt: type_name vals
AlterEnumStmt: type_name old_val new_val new_val_neighbor new_val_is_after skip_if_new_val_exists
AlterObjectSchemaStmt: object_type relation newschema missing_ok
RefreshMatViewStmt: concurrent skip_data relation
`

var known = sync.OnceValue(func() *pgtree.Known {
	k, err := pgtree.NewKnown(knownFields)
	if err != nil {
		panic(err) // the list and the grammar are compiled together; every test would see it
	}
	return k
})
