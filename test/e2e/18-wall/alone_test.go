package wall

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

// attempts are ways to what the task report must not show, or to more than it may do.
var attempts = []string{
	"SELECT * FROM sales.customers", "SELECT email FROM sales.customers", "SELECT id FROM sales.customers", "TABLE sales.orders", "SELECT note FROM sales.orders",
	"SELECT count(*) FROM sales.orders", "SELECT 1 FROM sales.customers LIMIT 1", "COPY sales.customers TO STDOUT", "COPY (SELECT * FROM sales.orders) TO STDOUT (FORMAT binary)",
	"SELECT * FROM hr.salaries", "SELECT * FROM audit.log", "LOCK TABLE sales.customers", "SELECT * FROM sales.customers FOR UPDATE",
	"CREATE TABLE sales.t (i int)", "CREATE TABLE public.t (i int)", "CREATE SCHEMA mine", "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
	"CREATE ROLE other", "ALTER ROLE CURRENT_USER SUPERUSER", "ALTER ROLE CURRENT_USER CREATEROLE", "ALTER ROLE CURRENT_USER VALID UNTIL 'infinity'",
	"SET ROLE warehouse_rw", "SET SESSION AUTHORIZATION warehouse_rw", "SET ROLE warehouse_admin",
	"SELECT pg_read_file('postgresql.conf')", "SELECT pg_ls_dir('.')", "COPY (SELECT 1) TO PROGRAM 'cat'", "COPY sales.regions FROM '/etc/passwd'",
	"SELECT lo_import('/etc/passwd')", "SELECT * FROM pg_authid", "SELECT * FROM pg_statistic", "SELECT * FROM pg_user_mapping", "ALTER SYSTEM SET log_statement = 'none'",
	"DROP SCHEMA sales", "GRANT SELECT ON sales.customers TO PUBLIC", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'warehouse_admin'",
	"INSERT INTO %s.\"sales.regions\" VALUES ('XX', 'x')", "UPDATE %s.\"sales.orders\" SET status = 'x'", "DELETE FROM %s.\"sales.customers\"",
	"CREATE OR REPLACE VIEW %s.\"sales.customers\" AS SELECT * FROM sales.customers", "ALTER VIEW %s.\"sales.customers\" OWNER TO CURRENT_USER", "DROP VIEW %s.\"sales.customers\"",
	"CREATE VIEW %s.x AS SELECT 1", "SELECT phone FROM %s.\"sales.customers\"", "SELECT note FROM %s.\"sales.orders\"",
	"SELECT query_to_xml('SELECT * FROM sales.customers', true, true, '')", "SELECT table_to_xml('sales.customers', true, true, '')", "SELECT ts_stat('SELECT to_tsvector(email) FROM sales.customers')",
	"DO $$ BEGIN PERFORM email FROM sales.customers; END $$", "EXPLAIN ANALYZE SELECT * FROM sales.customers", "PREPARE p AS SELECT * FROM sales.customers",
	"CREATE TEMP TABLE t AS SELECT * FROM sales.customers", "SELECT pg_relation_filepath('sales.customers'), pg_read_binary_file('base')", "NOTIFY x; SELECT * FROM sales.customers",
}

// TestWallAlone lets a session's login loose on the target with no gateway in front.
func TestWallAlone(t *testing.T) {
	h := start(t)
	live := h.Connect(t, "alice", "report.vault-room")
	if _, err := live.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	login := account(t, h, "report")
	row := h.Target(t, fmt.Sprintf("SELECT rolsuper, rolconnlimit, rolvaliduntil < now() + interval '61 minutes', rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = '%s'", login))[0]
	if strings.Join(row, " ") != "f 4 t f" {
		t.Errorf("login %s is %v", login, row)
	}
	thief := steal(t, h, login)
	schema := h.Target(t, `SELECT nspname FROM pg_namespace WHERE nspname LIKE 'postern\_%\_report\_%'`)[0][0]
	succeeded := 0
	for _, text := range attempts {
		if strings.Contains(text, "%s") {
			text = fmt.Sprintf(text, pgx.Identifier{schema}.Sanitize())
		}
		tag, err := thief.PgConn().Exec(t.Context(), text).ReadAll()
		if err == nil {
			succeeded++
			t.Errorf("past the node, %s succeeded: %v", text, tag)
		} else if leaks := house.Leaks(err.Error()); len(leaks) > 0 {
			t.Errorf("past the node, %s says %v", text, leaks)
		}
	}
	// What does succeed shows what the task shows.
	for _, text := range []string{
		`SELECT * FROM %s."sales.customers"`, `SELECT * FROM %s."sales.orders"`, `SELECT * FROM %s."sales.regions"`,
		`SELECT email::int FROM %s."sales.customers"`, `SELECT card::xml FROM %s."sales.customers"`,
		`SELECT * FROM pg_stats`, `SELECT * FROM pg_stat_activity`, `SELECT * FROM pg_stats_ext`, `SELECT * FROM pg_views`, `SELECT * FROM pg_proc`,
		`SELECT * FROM information_schema.columns`, `SELECT * FROM pg_settings`, `EXPLAIN (VERBOSE) SELECT * FROM %s."sales.customers" WHERE email = 'x'`,
	} {
		if strings.Contains(text, "%s") {
			text = fmt.Sprintf(text, pgx.Identifier{schema}.Sanitize())
		}
		results, err := thief.PgConn().Exec(t.Context(), text).ReadAll()
		var seen strings.Builder
		fmt.Fprint(&seen, err)
		for _, r := range results {
			for _, row := range r.Rows {
				seen.Write(append(bytes.Join(row, []byte(" ")), ' '))
			}
		}
		if leaks := house.Leaks(seen.String()); len(leaks) > 0 {
			t.Errorf("past the node, %s shows %v", text, leaks)
		}
	}
	t.Logf("%d of %d attempts succeeded", succeeded, len(attempts))
}

// TestNodeStopped leaves nothing at the target with which a person, or what a node had,
// could get in.
func TestNodeStopped(t *testing.T) {
	h := start(t)
	live := h.Connect(t, "alice", "report.vault-room")
	login := account(t, h, "report")
	_ = steal(t, h, login)
	h.Nodes[0].Stop()
	if _, err := live.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a session outlives its node")
	}
	house.Eventually(t, func() string { return "the session's login is gone" }, func() bool {
		return len(h.Target(t, fmt.Sprintf("SELECT FROM pg_roles WHERE rolname = '%s'", login))) == 0
	})
	if got := h.Target(t, fmt.Sprintf("SELECT FROM pg_stat_activity WHERE usename = '%s'", login)); len(got) > 0 {
		t.Error("what was logged in with it lives on")
	}
	for _, user := range []string{"alice", "report", "report.vault-room", login} {
		if _, err := pgx.Connect(t.Context(), h.PG.DSN("warehouse", user, h.DataToken(t, "alice"))); err == nil {
			t.Errorf("alice's token opens the target as %s", user)
		}
	}
}
