package postgres_test

import (
	"testing"

	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/sqltest"
)

// TestEvasions is for the classes of trick that defeat patterns: what the facts say must
// be what the server does.
func TestEvasions(t *testing.T) {
	for _, c := range []struct{ class, text, want string }{
		{"comment", "/* nightly delete-report; see customers */ SELECT status, sum(amount) FROM sales.orders GROUP BY status -- drop me", "select orders[select amount.c,status.op]"},
		{"comment in a comment", "SELECT /* /* */ DELETE FROM orders */ 1", "select"},
		{"dollar quotes", "SELECT $q$ ; DELETE FROM sales.orders; $q$ AS txt, id FROM sales.orders LIMIT 1", "select orders[select id.o]"},
		{"keyword as name", "SELECT pg_catalog.has_table_privilege(current_user, 'sales.orders', 'delete') AS delete", "select"},
		{"escape string", `SELECT E'\'; DELETE FROM sales.orders; --'`, "select"},
		{"second statement", "SELECT 1; DELETE FROM orders_archive", "select; delete orders_archive[delete nowhere]"},
		{"unicode name", `SELECT * FROM hr.U&"s!0061laries" UESCAPE '!'`, "select hr.salaries[select *.o]"},
		{"unicode name", `SELECT * FROM hr.U&"\0073alaries"`, "select hr.salaries[select *.o]"},
		{"name in capitals", `SELECT * FROM HR.SALARIES`, "select hr.salaries[select *.o]"},
		{"name in quotes", `SELECT * FROM "hr"."salaries"`, "select hr.salaries[select *.o]"},
		{"name in quotes", `SELECT * FROM "HR"."salaries"`, `? relation "HR.salaries" does not exist`},
		{"name split by space", "SELECT * FROM hr . salaries", "select hr.salaries[select *.o]"},
		{"search path", "SET search_path = hr; SELECT * FROM orders", "? a setting before it changes what its names mean; send them one by one"},
		{"function as table", "SELECT s FROM app.run('SELECT 1') AS s", "select f:app.run"},
		{"function without a call", "SELECT o.customer_email(1) FROM orders o", "? function o.customer_email does not exist with 1 arguments"},
		{"child", "SELECT customer_email FROM sales.orders_archive", "select orders_archive[select customer_email.o]"},
		{"materialized copy", "SELECT email FROM sales.contacts", "select contacts[select email.o]"},
		{"foreign table", "SELECT * FROM remote.customers", "select remote.customers[select *.o]"},
		{"statistics", "SELECT most_common_vals FROM pg_stats WHERE tablename = 'customers'", "select pg_catalog.pg_stats[select most_common_vals.o,tablename.p system]"},
		{"passwords", "SELECT * FROM pg_catalog.pg_authid", "select pg_catalog.pg_authid[select *.o system]"},
		{"sub-select in LIMIT", "SELECT id FROM orders LIMIT (SELECT salary FROM hr.salaries)", "select orders[select id.o] hr.salaries[select salary.p]"},
		{"sub-select in OFFSET of a union", "SELECT 1 UNION ALL SELECT 2 OFFSET (SELECT salary FROM hr.salaries)", "select hr.salaries[select salary.p]"},
		{"sub-select in VALUES", "VALUES ((SELECT salary FROM hr.salaries))", "select hr.salaries[select salary.c]"},
		{"sub-select in a window frame", "SELECT sum(id) OVER (ORDER BY id ROWS (SELECT 1 FROM hr.salaries) PRECEDING) FROM orders", "select orders[select id.cp] hr.salaries[select]"},
		{"sub-select in TABLESAMPLE", "SELECT id FROM orders TABLESAMPLE SYSTEM ((SELECT salary FROM hr.salaries))", "select orders[select id.o] hr.salaries[select salary.p]"},
		{"sub-select in JOIN", "SELECT o.id FROM orders o JOIN regions r ON (SELECT true FROM hr.salaries)", "select orders[select id.o] regions[select] hr.salaries[select]"},
		{"sub-select in FILTER", "SELECT count(*) FILTER (WHERE EXISTS (SELECT emp FROM hr.salaries)) FROM orders", "select orders[select] hr.salaries[select emp.c]"},
		{"sub-select in a subscript", "SELECT ('{1}'::int[])[(SELECT salary FROM hr.salaries)]", "select hr.salaries[select salary.cp]"},
		{"sub-select in ON CONFLICT", "INSERT INTO regions VALUES ('a') ON CONFLICT (code) DO UPDATE SET name = (SELECT emp FROM hr.salaries)", "insert regions[insert,update code.p w:code,name tr:code] hr.salaries[select emp.c]"},
		{"sub-select in SET", "UPDATE regions SET name[(SELECT salary FROM hr.salaries)] = 'x' WHERE code = 'a'", "update regions[update code.p w:name tr:code] hr.salaries[select salary.p]"},
		{"query in RETURNING", "DELETE FROM regions WHERE code = 'a' RETURNING (SELECT emp FROM hr.salaries)", "delete regions[delete code.p tr:code] hr.salaries[select emp.c]"},
		{"change in WITH", "WITH d AS (UPDATE regions SET name = 'x') SELECT 1", "select regions[update w:name nowhere]"},
		{"change in WITH of a sub-select", "SELECT * FROM (WITH d AS (DELETE FROM regions RETURNING code) SELECT code FROM d) s", "select regions[delete code.o tr:code nowhere]"},
		{"EXPLAIN of a function", "EXPLAIN SELECT app.purge_orders()", "select explain f:app.purge_orders"},
		{"function in an ORDER", "SELECT id FROM orders ORDER BY app.noisy(status)", "select orders[select id.o,status.p] f:app.noisy"},
		{"function in FETCH", "SELECT id FROM orders FETCH FIRST (app.pure(1)) ROWS ONLY", "select orders[select id.o] f:app.pure"},
		{"aggregate of rows", "SELECT json_agg(o) FROM (SELECT id, amount FROM orders) o", "select orders[select amount.c,id.c]"},
		{"catalogue function", "SELECT pg_get_functiondef(1), pg_stat_reset(), pg_switch_wal()", "select f:pg_catalog.pg_get_functiondef? f:pg_catalog.pg_stat_reset f:pg_catalog.pg_switch_wal"},
		{"replication", "SELECT * FROM pg_logical_slot_peek_changes('s', NULL, NULL)", "select f:pg_catalog.pg_logical_slot_peek_changes"},
		{"a parameter of type void", "SELECT ts_rewrite($1, 'a'::tsquery, 'SELECT 1')", "select f:pg_catalog.ts_rewrite"},
		{"a parameter of type void in FROM", "SELECT * FROM pg_catalog.ts_rewrite('a'::tsquery, $1, 'SELECT 1') AS result", "select f:pg_catalog.ts_rewrite"},
		{"a parameter cast to void", "SELECT ts_rewrite('a'::tsquery, 'SELECT 1', $1::void)", "select f:pg_catalog.ts_rewrite"},
		{"a parameter of type void in PREPARE", "PREPARE q (void, tsquery) AS SELECT ts_rewrite($1, $2, 'SELECT 1')", "prepare @q f:pg_catalog.ts_rewrite"},
		{"a system column by the name of one further out", "SELECT (SELECT xmin FROM regions LIMIT 1) FROM (SELECT 1 AS xmin) q", "select regions[select xmin.c]"},
		{"a system column in a condition", "SELECT 1 FROM (SELECT '(0,1)'::tid AS ctid) q WHERE EXISTS (SELECT FROM regions WHERE ctid = '(0,1)')", "select regions[select ctid.p]"},
		{"a system column in GROUP BY", "SELECT 1 AS xmin FROM regions GROUP BY xmin", "select regions[select xmin.p]"},
		{"a system column of one of two", "SELECT ctid FROM regions, (SELECT 1 AS ctid) q", "? column ctid is ambiguous"},
		{"a system column of a join is further out", "SELECT (SELECT xmin FROM regions r JOIN orders o ON true LIMIT 1) FROM (SELECT 1 AS xmin) q", "select regions[select] orders[select]"},
		{"function as an attribute", "SELECT ('PG_VERSION'::text).pg_read_file", "select f:pg_catalog.pg_read_file"},
		{"function as an attribute", "SELECT (($1)).pg_sleep", "select f:pg_catalog.pg_sleep"},
		{"function as an attribute", "SELECT (x.a).current_setting FROM (SELECT 'search_path'::text a) x", "select f:pg_catalog.current_setting"},
		{"function as an attribute", "SELECT ('{PG_VERSION}'::text[])[1].pg_read_file", "select f:pg_catalog.pg_read_file"},
		{"function as an attribute", "SELECT g.pg_read_file FROM unnest('{PG_VERSION}'::text[]) g", "select f:pg_catalog.pg_read_file"},
		{"function as an attribute", "SELECT (g).pg_read_file FROM unnest('{PG_VERSION}'::text[]) g", "select f:pg_catalog.pg_read_file"},
		{"function as an attribute", "SELECT (g.g).pg_read_file FROM unnest('{PG_VERSION}'::text[]) g", "select f:pg_catalog.pg_read_file"},
		{"function as an attribute", "SELECT (status).lower FROM orders", "select orders[select status.c] f:sales.lower"},
		{"function as an attribute", "SELECT id FROM orders ORDER BY (status).noisy", "select orders[select id.o,status.p]"}, // app is not in the path
		{"function as an attribute", "CREATE TABLE t (a text DEFAULT ('PG_VERSION'::text).pg_read_file)", "define CREATE TABLE sales f:pg_catalog.pg_read_file"},
		{"function as an attribute", "ALTER TABLE orders ADD CHECK ((status).pg_read_file = 'x')", "define ALTER TABLE sales f:pg_catalog.pg_read_file"},
		{"set_config in a sub-select", "SELECT id FROM orders WHERE id IN (SELECT 1 FROM (SELECT SET_CONFIG('Search_Path', 'hr', false)) s)", "select set:search_path=hr orders[select id.op]"},
		{"set_config in WITH", "WITH x AS MATERIALIZED (SELECT set_config('role', 'dba', true)) SELECT * FROM x", "select set:role=dba"},
		{"set_config in FROM", "SELECT * FROM set_config('role', 'dba', true)", "select set:role=dba"},
		{"set_config in WHERE", "DELETE FROM regions WHERE code = set_config('row_security', 'off', false)", "delete set:row_security=off regions[delete code.p tr:code]"},
		{"set_config in COPY", "COPY (SELECT pg_catalog.set_config('search_path', 'hr', false)) TO STDOUT", "select set:search_path=hr"},
		{"set_config in PREPARE", "PREPARE q AS SELECT set_config('session_authorization', 'dba', false)", "prepare set:session_authorization=dba @q"},
		{"set_config in EXECUTE", "EXECUTE q (set_config('role', 'dba', false))", "execute set:role=dba @q"},
		{"set_config in a cursor", "DECLARE c CURSOR FOR SELECT set_config('role', 'dba', false)", "declare set:role=dba @c"},
		{"set_config in RETURNING", "DELETE FROM regions WHERE code = 'a' RETURNING set_config('role', 'dba', false)", "delete set:role=dba regions[delete code.p tr:code]"},
		{"set_config in a default", "CREATE TABLE t (a text DEFAULT set_config('jit', 'off', false))", "define CREATE TABLE sales f:pg_catalog.set_config"},
		{"set_config in a view", "CREATE VIEW v AS SELECT current_setting('jit'), set_config('jit', 'off', false)", "define CREATE VIEW sales f:pg_catalog.current_setting f:pg_catalog.set_config"},
		{"set_config with its database", "SELECT warehouse.pg_catalog.set_config('ROLE', 'dba', false)", "select set:role=dba"},
		{"set_config in quotes", `SELECT "pg_catalog"."set_config"(U&'\0072ole', E'\x64ba', false)`, "select set:role=dba"},
		{"set_config in two lines", "SELECT set_config('ro'\n'le', 'dba', false)", "select set:role=dba"},
		{"set_config of another schema", "SELECT sales.set_config('jit', 'off', false)", "? function sales.set_config does not exist"},
		{"set_config with a computed name", "SELECT set_config('ro' || 'le', 'dba', false)", "select f:pg_catalog.set_config"},
		{"set_config with a name from a table", "SELECT set_config(status, 'dba', false) FROM orders", "select orders[select status.c] f:pg_catalog.set_config"},
		{"set_config with a name that is a parameter", "SELECT set_config($1, 'dba', false)", "select f:pg_catalog.set_config"},
		{"set_config with a computed value", "SELECT set_config('jit', lower('OFF'), false)", "select f:pg_catalog.set_config f:sales.lower"},
		{"set_config with nothing", "SELECT set_config('jit', NULL, false), set_config(NULL, 'x', false)", "select f:pg_catalog.set_config"},
		{"set_config with a cast", "SELECT set_config('role'::text, CAST('dba' AS varchar), false)", "select set:role=dba"},
		{"set_config with a cast that cuts", "SELECT set_config('role_x'::varchar(4), 'dba', false)", "select f:pg_catalog.set_config"},
		{"set_config with a cast to a name", "SELECT set_config('role'::name, 'dba', false)", "select f:pg_catalog.set_config"},
		{"set_config with a cast of a parameter", "SELECT set_config('jit', $1::char(2), false)", "select f:pg_catalog.set_config"},
		{"set_config with a collation", "SELECT set_config('role' COLLATE \"C\", 'dba', false)", "select f:pg_catalog.set_config"},
		{"set_config with named arguments", "SELECT set_config(setting_name => 'role', new_value => 'dba', is_local => false)", "select f:pg_catalog.set_config"},
		{"set_config of two kinds", "SELECT set_config('jit', 'off', false), set_config(current_user, 'x', false)", "select set:jit=off f:pg_catalog.set_config"},
		{"set_config before names", "SELECT set_config('search_path', 'hr', false); SELECT * FROM orders", "? a setting before it changes what its names mean; send them one by one"},
		{"set_config of anything before names", "SELECT set_config($1, 'hr', false); SELECT * FROM orders", "? a setting before it changes what its names mean; send them one by one"},
		{"set_config of the path in other words", `SELECT set_config('search_path', '"$user, sales, public"', false); SELECT * FROM orders`, "? a setting before it changes what its names mean; send them one by one"},
		{"set_config of the path in capitals", `SELECT set_config('search_path', '"$user", SALES, public', false)`, `select set:search_path="$user", SALES, public`},
		{"set_config of the path and more", `SELECT set_config('search_path', '"$user", sales, public, hr', false)`, `select set:search_path="$user", sales, public, hr`},
		{"set_config of a role called as the path", `SELECT set_config('role', '"$user",sales,public', false)`, `select set:role="$user",sales,public`},
		{"current_setting of another column", "SELECT current_setting(s.setting) FROM pg_settings s", "select pg_catalog.pg_settings[select setting.c system] f:pg_catalog.current_setting"},
		{"current_setting of a renamed column", "SELECT current_setting(s.name) FROM pg_settings s (x, name)", "select pg_catalog.pg_settings[select setting.c system] f:pg_catalog.current_setting"},
		{"current_setting of a sub-select", "SELECT current_setting(s.name) FROM (SELECT name FROM pg_settings UNION SELECT 'app.secret') s", "select pg_catalog.pg_settings[select name.cp system] f:pg_catalog.current_setting"},
		{"current_setting of a computed name", "SELECT current_setting(s.name || '') FROM pg_settings s", "select pg_catalog.pg_settings[select name.c system] f:pg_catalog.current_setting"},
		{"current_setting in a definition", "CREATE VIEW v AS SELECT current_setting(s.name) AS v FROM pg_settings s", "define CREATE VIEW sales pg_catalog.pg_settings[select name.c system] f:pg_catalog.current_setting"},
		{"set_config with a list", "SELECT set_config(VARIADIC ARRAY['role', 'dba', 'f'])", "? function set_config does not exist with 1 arguments"},
		{"plain cast", "SELECT customer_email::regclass FROM orders", "select orders[select customer_email.c]"},
	} {
		if got := brief(analyze(t, c.text).SQLFacts()); got != c.want {
			t.Errorf("%s: %s\n got %s\nwant %s", c.class, c.text, got, c.want)
		}
	}
}

// What a rule makes of a statement is not in the statement.
func TestRulesOfATableAreNotUnderstood(t *testing.T) {
	cat := sqltest.New().Table("sales.ruled", "id int").Table("sales.plain", "id int").Catalog()
	cat.Relations[sql.Name{Schema: "sales", Name: "ruled"}].HasRules = true
	for text, complete := range map[string]bool{
		"INSERT INTO sales.ruled VALUES (1)": false, "UPDATE sales.ruled SET id = 2": false, "DELETE FROM sales.ruled": false,
		"WITH x AS (DELETE FROM sales.ruled RETURNING id) SELECT id FROM x": false,
		"SELECT id FROM sales.ruled":                                        true, "INSERT INTO sales.plain SELECT id FROM sales.ruled": true,
	} {
		an, err := postgres.Analyze(t.Context(), pool, cat, settings, text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := an.SQLFacts().Complete; got != complete {
			t.Errorf("%s: complete %v: %s", text, got, an.SQLFacts().Incomplete)
		}
	}
}
