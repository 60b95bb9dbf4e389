package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// A toolView is what is seen of a catalogue of the system, in which tools look up what
// there is: rows about relations, columns, schemas, functions and accounts that the task
// does not name are filtered, as rows of tables are.
type toolView struct {
	filter func(k *known) string // nil shows all rows
	hidden string                // columns that are NULL: text of code, passwords, statistics
}

// known is what a task names, as expressions of SQL. Objects of the system itself have
// numbers below 16384.
type known struct {
	tables    map[sql.Name][]string  // columns by table
	open      []string               // schemas of which everything may be known
	numbered  []postern.RelationName // tables and open, for :relations and :columns
	schemas   string                 // an array of names
	functions map[string][]string    // names by schema
}

// rel is true for relations that the task names.
func (k *known) rel(column string) string {
	return "(" + column + " < 16384 OR " + column + " = ANY (:relations))"
}

// col is true for columns that the task names, by the numbers of relation and column.
func (k *known) col(relation, number string) string {
	return "(" + relation + " < 16384 OR " + relation + " = ANY (:relations) AND " + k.listed(relation, number) + ")"
}

func (k *known) listed(relation, number string) string {
	return "CAST(" + relation + " AS pg_catalog.int8) * 65536 + " + number + " = ANY (:columns)"
}

// keys is true where the task names the relation and all columns of an array of numbers.
func (k *known) keys(relation, numbers string) string {
	return "(" + relation + " < 16384 OR " + relation + " = ANY (:relations) AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = " +
		relation + " AND a.attnum = ANY (" + numbers + ") AND a.attnum > 0 AND NOT " + k.listed("a.attrelid", "a.attnum") + "))"
}

// index is true for indexes over columns that the task names, and over nothing else.
func (k *known) index(alias string) string {
	return "(" + alias + "indrelid < 16384 OR " + alias + "indexprs IS NULL AND " + alias + "indpred IS NULL AND " + k.keys(alias+"indrelid", alias+"indkey") + ")"
}

// table is true for tables, and for columns of them, that the task names by name.
func (k *known) table(schema, table, column string) string {
	var b strings.Builder
	b.WriteString("(" + schema + " IN ('pg_catalog', 'information_schema')")
	for _, s := range k.open {
		b.WriteString(" OR " + schema + " = " + quoteText(s))
	}
	for _, n := range k.names() {
		b.WriteString(" OR " + schema + " = " + quoteText(n.Schema) + " AND " + table + " = " + quoteText(n.Name))
		if column != "" {
			b.WriteString(" AND " + column + " IN (" + quoted(k.tables[n]) + ")")
		}
	}
	b.WriteString(")")
	return b.String()
}

func (k *known) names() []sql.Name {
	return slices.SortedFunc(maps.Keys(k.tables), func(a, b sql.Name) int { return strings.Compare(a.String(), b.String()) })
}

// quoted is a list of constants; never an empty one.
func quoted(words []string) string {
	if len(words) == 0 {
		return "NULL"
	}
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = quoteText(w)
	}
	return strings.Join(out, ", ")
}

// called is true for functions that the task names.
func (k *known) called(schema, name string) string {
	var b strings.Builder
	b.WriteString("(" + schema + " IN ('pg_catalog', 'information_schema')")
	for _, s := range slices.Sorted(maps.Keys(k.functions)) {
		b.WriteString(" OR " + schema + " = " + quoteText(s) + " AND " + name + " IN (" + quoted(k.functions[s]) + ")")
	}
	b.WriteString(")")
	return b.String()
}

func role(column string) string {
	return "(" + column + " < 16384 OR pg_catalog.pg_has_role(" + column + ", 'MEMBER'))"
}

func byRelation(column string) func(k *known) string {
	return func(k *known) string { return k.rel(column) }
}

func byIndex(k *known) string {
	return "indexrelid = ANY (ARRAY(SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE " + k.index("i.") + "))"
}

func byTable(schema, table string) func(k *known) string {
	return func(k *known) string { return k.table(schema, table, "") }
}

func byName(table string) func(k *known) string { return byTable("schemaname", table) }

func byColumn(k *known) string { return k.table("table_schema", "table_name", "column_name") }

func byRoutine(k *known) string {
	// A specific name is the name and the number.
	return k.called("specific_schema", "pg_catalog.regexp_replace(CAST(specific_name AS pg_catalog.text), '_[0-9]+$', '')")
}

func byConstraint(view string) func(k *known) string {
	return func(k *known) string {
		return "constraint_schema IN ('pg_catalog', 'information_schema') OR EXISTS (SELECT FROM information_schema.table_constraints t WHERE t.constraint_schema = " +
			view + ".constraint_schema AND t.constraint_name = " + view + ".constraint_name AND " + k.table("t.table_schema", "t.table_name", "") + ")"
	}
}

func none(*known) string { return "false" }

// counters tell how many rows there are, and what is done with them.
const counters = `seq_scan last_seq_scan seq_tup_read idx_scan last_idx_scan idx_tup_read idx_tup_fetch n_tup_ins n_tup_upd n_tup_del n_tup_hot_upd
	n_tup_newpage_upd n_live_tup n_dead_tup n_mod_since_analyze n_ins_since_vacuum last_vacuum last_autovacuum last_analyze last_autoanalyze
	vacuum_count autovacuum_count analyze_count autoanalyze_count total_vacuum_time total_autovacuum_time total_analyze_time total_autoanalyze_time`

// blocks tell how much of a table was read, and from where.
const blocks = "heap_blks_read heap_blks_hit idx_blks_read idx_blks_hit toast_blks_read toast_blks_hit tidx_blks_read tidx_blks_hit"

// toolViews are the catalogues of which not everything is seen. The others of
// catalogTables and information_schema show names of the system's own, or numbers alone.
var toolViews = map[string]map[string]toolView{
	catalogSchema: {
		"pg_class": {func(k *known) string {
			return k.rel("oid") + " OR relkind IN ('i', 'I') AND EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indexrelid = pg_class.oid AND " + k.index("i.") + ")"
		}, "relpages reltuples relallvisible relallfrozen"},
		"pg_attribute":            {func(k *known) string { return k.col("attrelid", "attnum") }, ""},
		"pg_attrdef":              {func(k *known) string { return k.col("adrelid", "adnum") }, ""},
		"pg_index":                {func(k *known) string { return k.index("") }, ""},
		"pg_constraint":           {func(k *known) string { return k.keys("conrelid", "conkey") + " AND " + k.rel("confrelid") }, ""},
		"pg_inherits":             {func(k *known) string { return k.rel("inhrelid") + " AND " + k.rel("inhparent") }, ""},
		"pg_trigger":              {byRelation("tgrelid"), "tgargs tgqual"},
		"pg_rewrite":              {byRelation("ev_class"), "ev_qual ev_action"},
		"pg_policy":               {byRelation("polrelid"), "polqual polwithcheck"},
		"pg_sequence":             {byRelation("seqrelid"), ""},
		"pg_partitioned_table":    {byRelation("partrelid"), ""},
		"pg_publication_rel":      {byRelation("prrelid"), "prqual"},
		"pg_foreign_table":        {byRelation("ftrelid"), "ftoptions"},
		"pg_foreign_server":       {func(*known) string { return "oid < 16384" }, "srvoptions"},
		"pg_foreign_data_wrapper": {nil, "fdwoptions"},
		"pg_statistic_ext":        {func(k *known) string { return k.keys("stxrelid", "stxkeys") + " AND stxexprs IS NULL" }, ""},
		"pg_depend": {func(k *known) string {
			return "(classid <> 1259 OR " + k.rel("objid") + ") AND (refclassid <> 1259 OR " + k.rel("refobjid") + ")"
		}, ""},
		"pg_description": {func(k *known) string {
			return "objoid < 16384 OR classoid = 1259 AND (objsubid = 0 AND " + k.rel("objoid") + " OR " + k.col("objoid", "objsubid") + ")"
		}, ""},
		"pg_shdescription": {func(*known) string { return "objoid < 16384" }, ""},
		"pg_type": {func(k *known) string {
			return k.rel("typrelid") + " AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = pg_type.typelem AND e.typrelid >= 16384 AND NOT e.typrelid = ANY (:relations))"
		}, ""},
		"pg_namespace": {func(k *known) string {
			return "oid < 16384 OR nspname = ANY (" + k.schemas + ") OR oid = ANY (ARRAY(SELECT e.extnamespace FROM pg_catalog.pg_extension e)) OR oid = ANY (ARRAY(" +
				"SELECT t.typnamespace FROM pg_catalog.pg_type t JOIN pg_catalog.pg_attribute a ON a.atttypid = t.oid WHERE " + k.col("a.attrelid", "a.attnum") + "))"
		}, ""},
		"pg_proc": {func(k *known) string {
			return "oid < 16384 OR oid = ANY (ARRAY(SELECT d.objid FROM pg_catalog.pg_depend d WHERE d.classid = 1255 AND d.deptype = 'e')) OR " +
				k.called("(SELECT n.nspname FROM pg_catalog.pg_namespace n WHERE n.oid = pronamespace)", "proname")
		}, "prosrc prosqlbody probin proconfig"},
		"pg_database":           {func(*known) string { return "oid < 16384 OR datname = pg_catalog.current_database()" }, ""},
		"pg_roles":              {func(*known) string { return role("oid") }, "rolpassword rolconfig"},
		"pg_user":               {func(*known) string { return role("usesysid") }, "passwd useconfig"},
		"pg_auth_members":       {func(*known) string { return role("member") }, ""},
		"pg_stat_user_tables":   {byRelation("relid"), counters},
		"pg_stat_user_indexes":  {byIndex, counters},
		"pg_stat_all_indexes":   {byIndex, counters},
		"pg_stat_all_tables":    {byRelation("relid"), counters},
		"pg_statio_user_tables": {byRelation("relid"), blocks},
		"pg_statio_all_tables":  {byRelation("relid"), blocks},
		"pg_tables":             {byName("tablename"), ""},
		"pg_views":              {byName("viewname"), "definition"},
		"pg_matviews":           {byName("matviewname"), "definition"},
		"pg_rules":              {byName("tablename"), "definition"},
		"pg_sequences":          {byName("sequencename"), "last_value"},
		"pg_policies":           {byName("tablename"), "qual with_check"},
		"pg_publication_tables": {byName("tablename"), "attnames rowfilter"},
		"pg_indexes": {func(k *known) string {
			return k.table("schemaname", "tablename", "") + " AND indexname = ANY (ARRAY(SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid WHERE " + k.index("i.") + "))"
		}, ""},
	},
	infoSchema: {
		"tables": {byTable("table_schema", "table_name"), ""}, "views": {byTable("table_schema", "table_name"), "view_definition"},
		"table_constraints": {byTable("table_schema", "table_name"), ""}, "table_privileges": {byTable("table_schema", "table_name"), ""},
		"role_table_grants": {byTable("table_schema", "table_name"), ""}, "constraint_table_usage": {byTable("table_schema", "table_name"), ""},
		"view_table_usage": {byTable("table_schema", "table_name"), ""}, "view_routine_usage": {byTable("table_schema", "table_name"), ""},
		"columns": {byColumn, ""}, "column_privileges": {byColumn, ""}, "role_column_grants": {byColumn, ""}, "key_column_usage": {byColumn, ""},
		"constraint_column_usage": {byColumn, ""}, "column_udt_usage": {byColumn, ""}, "column_domain_usage": {byColumn, ""},
		"column_column_usage": {byColumn, ""}, "view_column_usage": {byColumn, ""},
		"check_constraints": {byConstraint("check_constraints"), ""}, "referential_constraints": {byConstraint("referential_constraints"), ""},
		"triggers":                 {byTable("event_object_schema", "event_object_table"), "action_condition action_statement"},
		"triggered_update_columns": {byTable("event_object_schema", "event_object_table"), ""},
		"element_types":            {byTable("object_schema", "object_name"), ""}, "data_type_privileges": {byTable("object_schema", "object_name"), ""},
		"schemata": {func(k *known) string {
			return "schema_name IN ('pg_catalog', 'information_schema', 'public') OR schema_name = ANY (" + k.schemas + ")"
		}, ""},
		"routines":            {func(k *known) string { return k.called("routine_schema", "routine_name") }, "routine_definition"},
		"routine_privileges":  {func(k *known) string { return k.called("routine_schema", "routine_name") }, ""},
		"role_routine_grants": {func(k *known) string { return k.called("routine_schema", "routine_name") }, ""}, "parameters": {byRoutine, ""},
		"sequences": {none, ""}, "foreign_tables": {none, ""},
		"routine_column_usage": {none, ""}, "routine_table_usage": {none, ""}, "routine_sequence_usage": {none, ""}, "routine_routine_usage": {none, ""},
	},
}

// toolView is what the task sees of a catalogue of the system; nil where it sees all.
func (t *task) toolView(name sql.Name) *postern.TableRule {
	v, ok := toolViews[name.Schema][name.Name]
	if !ok {
		return nil
	}
	r := &postern.TableRule{Schema: name.Schema, Table: name.Name, Every: true}
	if v.filter != nil {
		r.Filter, r.Names = v.filter(&t.known), t.known.numbered
	}
	for column := range strings.FieldsSeq(v.hidden) {
		r.Columns = append(r.Columns, postern.ColumnRule{Name: column, Mask: &postern.MaskRule{Name: "hidden", Method: postern.MaskNull}})
	}
	return r
}

// know gathers what the task names, once its permits are compiled.
func (t *task) know() {
	k := &t.known
	k.tables, k.functions = map[sql.Name][]string{}, map[string][]string{}
	schemas := map[string]bool{}
	for name, permits := range t.tables {
		columns := map[string]bool{}
		for i := range permits {
			for _, p := range permits[i] {
				maps.Copy(columns, p.columns)
				maps.Copy(columns, p.writeColumns)
			}
		}
		k.tables[name], schemas[name.Schema] = slices.Sorted(maps.Keys(columns)), true
	}
	for name := range t.functions {
		k.functions[name.Schema], schemas[name.Schema] = append(k.functions[name.Schema], name.Name), true
	}
	for _, names := range k.functions {
		slices.Sort(names)
	}
	for _, p := range t.commands {
		for s := range p.schemas {
			if !slices.Contains(k.open, s) {
				k.open, schemas[s] = append(k.open, s), true
			}
		}
	}
	slices.Sort(k.open)
	k.schemas = "ARRAY[" + strings.TrimSuffix("CAST('pg_catalog' AS pg_catalog.name), "+quoted(slices.Sorted(maps.Keys(schemas))), ", NULL") + "]"
	for _, n := range k.names() {
		k.numbered = append(k.numbered, postern.RelationName{Schema: n.Schema, Table: n.Name, Columns: k.tables[n]})
	}
	for _, s := range k.open {
		k.numbered = append(k.numbered, postern.RelationName{Schema: s})
	}
}

// StaysVisible says what of a resource people may see beside what their task names,
// whatever the catalogues' filters do: a sentence each, for people. It is data for
// whoever reports what a level is worth.
func StaysVisible(level postern.Level) []string {
	out := []string{
		"names and types of the system itself, the name of the database, of its extensions and of its languages",
		"enumerations, domains and other types of users, with their labels",
		"names of accounts that own or may use what the task names, and of those that the session's own account is a member of",
		"what a function such as pg_get_viewdef or obj_description says of an object whose number is guessed",
		"definitions of views, defaults, checks and triggers of the tables that the task names, which may name other columns and tables",
	}
	if level < postern.LevelSource {
		out = append(out, "at level result nothing is filtered from the catalogues: names of all tables, columns, functions and accounts")
	}
	return out
}
