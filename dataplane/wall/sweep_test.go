package wall

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/test/servers"
)

// TestSweep: what is in use is left to the next sweep, and what a role of a task that is gone may do is
// taken even where the role must stay.
func TestSweep(t *testing.T) {
	pg := servers.Postgres(t)
	conn := asWall(t, pg, "postgres")
	schema, role := policy.WallPrefix("r")+"t_1", policy.WallPrefix("r")+"t_gone"
	pg.SQL(t, `CREATE SCHEMA "`+schema+`"; CREATE VIEW "`+schema+`".v AS SELECT 1; CREATE TABLE t (a int); CREATE ROLE "`+role+`"; GRANT SELECT ON t TO "`+role+`"`)
	pg.SQL(t, "CREATE DATABASE beside")
	pg.SQLIn(t, "beside", `SET ROLE "`+role+`"; SELECT lo_create(0)`)
	cfg, err := pgx.ParseConfig(pg.SuperDSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	reader := dial(t, cfg)
	for _, text := range []string{"BEGIN", `SELECT * FROM "` + schema + `".v`} {
		if _, err := reader.Exec(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	there := func() string {
		return pg.SQL(t, "SELECT count(*) FROM pg_namespace WHERE nspname = '"+schema+"'")[0][0]
	}
	if err := sweep(t.Context(), conn, "r", nil, nil); !hasCode(err, "2BP01") || hasCode(err, lockNotAvailable) || there() != "1" {
		t.Errorf("what is in use: %v, %s schemas", err, there())
	}
	if may := pg.SQL(t, `SELECT has_table_privilege('`+role+`', 't', 'SELECT')`)[0][0]; may != "f" {
		t.Error("the role of a task that is gone may still read")
	}
	pg.SQLIn(t, "beside", `DROP OWNED BY "`+role+`"`)
	if _, err := reader.Exec(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := sweep(t.Context(), conn, "r", nil, nil); err != nil || there() != "0" {
		t.Errorf("what is in use no more: %v, %s schemas", err, there())
	}
}
