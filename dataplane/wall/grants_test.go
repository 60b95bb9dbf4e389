package wall

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/servers"
)

// TestSettle: whatever somebody gives a role by hand, it has just what it should have afterwards.
func TestSettle(t *testing.T) {
	pg := servers.Postgres(t)
	conn := asWall(t, pg, "postgres")
	pg.SQL(t, `CREATE ROLE r; CREATE ROLE "postern_ab_o_t"; CREATE TABLE t (a int, b int); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';
		CREATE PROCEDURE p(int) LANGUAGE sql AS 'SELECT 1'; CREATE SEQUENCE s`)
	want := grants{
		{kind: "table", schema: "public", name: "t", column: "a", privilege: "SELECT"}: true,
		{kind: "table", schema: "public", name: "t", column: "b", privilege: "UPDATE"}: true,
		{kind: "schema", name: "public", privilege: "USAGE"}:                           true,
	}
	nothing := func(string) bool { return false }
	settled := func() error {
		return inTx(t.Context(), conn, func(tx pgx.Tx) error { return settle(t.Context(), tx, "r", "postern_ab_o_t", want, nothing) })
	}
	for _, drift := range []string{
		"SELECT 1", "GRANT SELECT, UPDATE, DELETE ON t TO r", "GRANT ALL ON t TO r WITH GRANT OPTION", "GRANT SELECT (a) ON t TO r WITH GRANT OPTION",
		"GRANT USAGE ON SCHEMA public TO r WITH GRANT OPTION; SET ROLE r; GRANT USAGE ON SCHEMA public TO r", "REVOKE SELECT (a) ON t FROM r",
		"GRANT SELECT (a) ON t TO r WITH GRANT OPTION; SET ROLE r; GRANT SELECT (a) ON t TO PUBLIC",
		"GRANT EXECUTE ON FUNCTION f TO r", "GRANT EXECUTE ON PROCEDURE p TO r", "GRANT ALL ON SEQUENCE s TO r",
	} {
		pg.SQL(t, drift)
		if err := settled(); err != nil {
			t.Errorf("after %s: %v", drift, err)
		}
		var have grants
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) (err error) {
			have, err = readGrants(t.Context(), tx, "r")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for g := range want {
			if !have[g] {
				t.Errorf("after %s: %+v is missing", drift, g)
			}
		}
		if len(have) != len(want) {
			t.Errorf("after %s: %v", drift, have)
		}
		if open := pg.SQL(t, "SELECT has_column_privilege('public', 't', 'a', 'SELECT')")[0][0]; open != "f" {
			t.Errorf("after %s: what the role gave to others stays", drift)
		}
	}
	for _, beside := range []struct{ give, take, name string }{
		{"GRANT USAGE ON LANGUAGE plpgsql TO r", "REVOKE USAGE ON LANGUAGE plpgsql FROM r", "language plpgsql"},
		{"SELECT lo_create(4242); GRANT SELECT ON LARGE OBJECT 4242 TO r", "REVOKE SELECT ON LARGE OBJECT 4242 FROM r", "large object 4242"},
		{"GRANT SET ON PARAMETER session_replication_role TO r", "REVOKE SET ON PARAMETER session_replication_role FROM r", "parameter session_replication_role"},
		{"GRANT CONNECT ON DATABASE template1 TO r", "REVOKE CONNECT ON DATABASE template1 FROM r", "database template1"},
		{"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r", "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM r", "default privileges"},
	} {
		pg.SQL(t, beside.give)
		if err := settled(); err == nil || !strings.Contains(err.Error(), beside.name) {
			t.Errorf("%s: %v", beside.give, err)
		}
		pg.SQL(t, beside.take)
		if err := settled(); err != nil {
			t.Errorf("after %s: %v", beside.take, err)
		}
	}
}
