package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

const (
	settingsName  = "pg_settings"
	catalogSchema = "pg_catalog"
	infoSchema    = "information_schema"
)

// systemSchema reports whether a schema is the database's own.
func systemSchema(schema string) bool {
	return schema == infoSchema || strings.HasPrefix(schema, "pg_")
}

// catalogTables are the relations of pg_catalog that tools need to show names and types.
// What tells of data (statistics), of others (activity, logins) or of secrets (settings,
// user mappings) is not here; a task may permit it by name.
var catalogTables = words(`
	pg_aggregate pg_am pg_amop pg_amproc pg_attrdef pg_attribute pg_auth_members pg_cast pg_class pg_collation pg_constraint
	pg_conversion pg_database pg_default_acl pg_depend pg_description pg_enum pg_event_trigger pg_extension
	pg_foreign_data_wrapper pg_foreign_server pg_foreign_table pg_index pg_indexes pg_inherits pg_init_privs pg_language pg_matviews pg_namespace pg_opclass
	pg_operator pg_opfamily pg_partitioned_table pg_policies pg_policy pg_proc pg_publication pg_publication_namespace pg_publication_rel
	pg_publication_tables pg_range pg_rewrite pg_roles pg_rules pg_sequence pg_sequences pg_shdescription pg_stat_all_indexes pg_stat_all_tables pg_stat_user_indexes pg_stat_user_tables
	pg_statio_all_tables pg_statio_user_tables pg_statistic_ext pg_tables pg_tablespace
	pg_timezone_abbrevs pg_timezone_names pg_transform pg_trigger pg_ts_config pg_ts_config_map pg_ts_dict
	pg_ts_parser pg_ts_template pg_type pg_user pg_views`)

// infoHidden are the views of information_schema that show options, where people write
// passwords; all its other views are allowed, for they show names alone.
var infoHidden = words(`
	foreign_data_wrapper_options foreign_server_options foreign_table_options column_options user_mapping_options
	user_mappings _pg_foreign_servers _pg_foreign_data_wrappers _pg_foreign_tables _pg_foreign_table_columns
	_pg_user_mappings`)

// toolFunctions are built-in functions that are not immutable, and yet read neither
// rows nor files, change nothing and wait for nothing: what tools call to describe
// things, and what people call for time and format.
var toolFunctions = words(`
	col_description obj_description shobj_description format_type
	current_database current_catalog current_schema current_schemas current_user session_user user current_role getpgusername
	version pg_is_in_recovery pg_encoding_to_char pg_char_to_encoding pg_client_encoding getdatabaseencoding
	pg_get_userbyid pg_get_expr pg_get_indexdef pg_get_constraintdef pg_get_viewdef pg_get_ruledef pg_get_triggerdef
	pg_get_partkeydef pg_get_partition_constraintdef pg_get_serial_sequence pg_get_keywords pg_get_statisticsobjdef
	pg_get_statisticsobjdef_columns pg_get_function_arguments pg_get_function_identity_arguments pg_get_function_result
	pg_get_function_arg_default pg_get_replica_identity_index pg_get_publication_tables
	pg_relation_is_publishable pg_relation_is_updatable pg_column_is_updatable pg_index_column_has_property
	pg_index_has_property pg_indexam_has_property pg_collation_for pg_collation_is_visible pg_conversion_is_visible
	pg_describe_object pg_identify_object pg_identify_object_as_address pg_get_object_address
	pg_function_is_visible pg_opclass_is_visible pg_operator_is_visible pg_opfamily_is_visible
	pg_statistics_obj_is_visible pg_table_is_visible pg_ts_config_is_visible pg_ts_dict_is_visible
	pg_ts_parser_is_visible pg_ts_template_is_visible pg_type_is_visible pg_my_temp_schema pg_is_other_temp_schema
	pg_partition_ancestors pg_partition_root pg_partition_tree pg_typeof pg_basetype pg_options_to_table aclexplode
	has_any_column_privilege has_column_privilege has_database_privilege has_foreign_data_wrapper_privilege
	has_function_privilege has_language_privilege has_schema_privilege has_sequence_privilege has_server_privilege
	has_table_privilege has_tablespace_privilege has_type_privilege pg_has_role row_security_active
	to_regclass to_regcollation to_regnamespace to_regoper to_regoperator to_regproc to_regprocedure to_regrole to_regtype
	_pg_expandarray _pg_truetypid _pg_truetypmod _pg_char_max_length _pg_char_octet_length _pg_datetime_precision
	_pg_index_position _pg_interval_type _pg_keysequal _pg_numeric_precision _pg_numeric_precision_radix _pg_numeric_scale

	age clock_timestamp current_date current_time current_timestamp date_bin date_part date_trunc extract isfinite
	localtime localtimestamp make_timestamptz now statement_timestamp timeofday timezone to_char to_date to_timestamp
	transaction_timestamp gen_random_uuid random pg_advisory_unlock_all
	array_to_json array_to_string concat concat_ws format json_agg json_agg_strict json_build_array json_build_object
	json_object_agg json_object_agg_strict json_object_agg_unique json_populate_record json_populate_recordset
	json_to_record json_to_recordset jsonb_agg jsonb_agg_strict jsonb_build_array jsonb_build_object jsonb_object_agg
	jsonb_object_agg_strict jsonb_object_agg_unique jsonb_populate_record jsonb_populate_recordset
	jsonb_path_exists_tz jsonb_path_match_tz jsonb_path_query_array_tz jsonb_path_query_first_tz jsonb_path_query_tz
	jsonb_to_record jsonb_to_recordset quote_literal quote_nullable row_to_json string_to_array to_json to_jsonb
	plainto_tsquery phraseto_tsquery websearch_to_tsquery to_tsquery to_tsvector ts_headline
	generate_series`)

// unboundFunctions are built-in functions that no list of names can bound: they run SQL
// that is in a text, or change settings that are held fixed.
var unboundFunctions = words(`
	set_config ts_stat ts_rewrite
	query_to_xml query_to_xml_and_xmlschema query_to_xmlschema cursor_to_xml cursor_to_xmlschema
	table_to_xml table_to_xml_and_xmlschema table_to_xmlschema schema_to_xml schema_to_xml_and_xmlschema
	schema_to_xmlschema database_to_xml database_to_xml_and_xmlschema database_to_xmlschema`)

func words(s string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(s) {
		out[w] = true
	}
	return out
}

// toolFunction reports whether any task with built-in functions may call it.
func toolFunction(n sql.Name) bool {
	return (n.Schema == catalogSchema || n.Schema == infoSchema) && toolFunctions[n.Name]
}

// systemTable judges the use of a relation of the system that no permit speaks of.
func (t *task) systemTable(r *sql.Table, level postern.Level) *refusal {
	no := &refusal{
		rule: t.rules.catalog, reason: fmt.Sprintf("%s does not allow reading %s", t.title, r),
		detail: "catalogues that describe names and types are allowed", hint: HintTasks,
	}
	if len(r.Verbs) != 1 || r.Verbs[0] != sql.Select || r.Target || len(r.Write) > 0 {
		no.reason = fmt.Sprintf("%s does not allow changing %s", t.title, r)
		return no
	}
	switch r.Schema {
	case catalogSchema:
		if !catalogTables[r.Name] && !isSettings(r) {
			return no
		}
	case infoSchema:
		if infoHidden[r.Name] {
			return no
		}
	default:
		return no
	}
	if level >= postern.LevelSource {
		return nil // what is hidden is NULL
	}
	hidden := words(toolViews[r.Schema][r.Name].hidden)
	if len(hidden) > 0 && r.AllColumns {
		no.reason, no.hint = fmt.Sprintf("%s does not allow * on %s", t.title, r), "name the columns"
		return no
	}
	for _, column := range r.Read {
		if hidden[column] {
			no.reason = fmt.Sprintf("%s does not allow reading column %s.%s", t.title, r, column)
			return no
		}
	}
	return nil
}

// toolTable narrows a read of a catalogue to what the task names. At level result, where
// nothing is rewritten, names of others are seen.
func (j *judge) toolTable(t *sql.Table) bool {
	if j.resource.level < postern.LevelSource {
		return true
	}
	for i := range j.filtered {
		if v := j.filtered[i].view[0].Table; j.filtered[i].permit == nil && v.Schema == t.Schema && v.Table == t.Name {
			return true
		}
	}
	rule := j.task.toolView(sql.Name{Schema: t.Schema, Name: t.Name})
	if rule == nil {
		return true
	}
	view := []postern.Obligation{{Table: rule}}
	j.filtered = append(j.filtered, filtered{view: view})
	return j.see(view, j.task.rules.catalog, t)
}

func isSettings(t *sql.Table) bool { return t.Schema == catalogSchema && t.Name == settingsName }

// settingsView is what is seen of pg_settings, in which drivers look up what the server
// can do: the settings that SHOW shows, without the names of files.
var settingsView = []postern.Obligation{{Table: &postern.TableRule{
	Schema: catalogSchema, Table: settingsName,
	Columns: columnsNamed(`name setting unit category short_desc extra_desc context vartype source min_val max_val enumvals boot_val reset_val
		pending_restart`),
	Filter: "pg_catalog.lower(name) IN ('" + strings.Join(showable(), "', '") + "')",
}}}

func columnsNamed(names string) []postern.ColumnRule {
	var out []postern.ColumnRule
	for _, n := range strings.Fields(names) {
		out = append(out, postern.ColumnRule{Name: n})
	}
	return out
}

// settingsTable narrows a read of pg_settings to settingsView, which takes a rewrite.
func (j *judge) settingsTable(t *sql.Table) bool {
	no := &refusal{rule: j.task.rules.catalog, detail: "SHOW shows a setting that may be seen"}
	if j.resource.level < postern.LevelSource {
		no.reason = fmt.Sprintf("%s does not allow reading %s at level result", j.task.title, t)
		j.deny(no)
		return false
	}
	for _, column := range t.Read {
		if !slices.ContainsFunc(settingsView[0].Table.Columns, func(c postern.ColumnRule) bool { return c.Name == column }) {
			no.reason = fmt.Sprintf("%s does not allow reading column %s.%s", j.task.title, t, column)
			j.deny(no)
			return false
		}
	}
	return j.see(settingsView, j.task.rules.catalog, t)
}
