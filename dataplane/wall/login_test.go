package wall

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/servers"
)

// asWall is a connection as a wall has it, of a superuser.
func asWall(t *testing.T, pg *servers.PG, database string) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(pg.SuperDSN(database))
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams, cfg.DefaultQueryExecMode = settings, pgx.QueryExecModeExec
	return dial(t, cfg)
}

func dial(t *testing.T, cfg *pgx.ConnConfig) *pgx.Conn {
	t.Helper()
	c, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// thief makes a login of a task, and logs in with it past every node.
func thief(t *testing.T, pg *servers.PG, conn *pgx.Conn, w policy.Wall, login, database string) *pgx.Conn {
	t.Helper()
	verifier, err := secret.ScramVerifier([]byte("stolen"))
	if err != nil {
		t.Fatal(err)
	}
	if err := makeLogin(t.Context(), conn, w, nil, login, verifier, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	cfg, err := pgx.ParseConfig(pg.DSN(database, login, "stolen"))
	if err != nil {
		t.Fatal(err)
	}
	return dial(t, cfg)
}

// TestDropLogin: nothing that a session does at the target keeps its login.
func TestDropLogin(t *testing.T) {
	pg := servers.Postgres(t)
	conn := asWall(t, pg, "postgres")
	pg.SQL(t, "CREATE DATABASE beside")
	w := policy.Wall{Task: "t", Role: "postern_ab_t_t", Owner: "postern_ab_o_t", Schema: "postern_ab_t_1"}
	if err := build(t.Context(), conn, w, nil, nil); err != nil {
		t.Fatal(err)
	}
	for name, one := range map[string]struct {
		database string
		texts    []string
	}{
		"nothing":                            {"postgres", nil},
		"its own row":                        {"postgres", []string{"BEGIN", "ALTER ROLE CURRENT_USER PASSWORD 'mine'"}},
		"its own settings":                   {"postgres", []string{"BEGIN", "ALTER ROLE CURRENT_USER SET work_mem = '1MB'"}},
		"a large object":                     {"postgres", []string{"SELECT lo_create(0)"}},
		"a large object of another database": {"beside", []string{"SELECT lo_create(0)"}},
	} {
		t.Run(name, func(t *testing.T) {
			login := "postern_ab_l_abcdefgh"
			c := thief(t, pg, conn, w, login, one.database)
			for _, text := range one.texts {
				if _, err := c.Exec(t.Context(), text); err != nil {
					t.Fatal(text, err)
				}
			}
			if err := dropLogin(t.Context(), conn, login); err != nil {
				t.Error(err)
			}
			if n := pg.SQL(t, "SELECT count(*) FROM pg_roles WHERE rolname = '"+login+"'")[0][0]; n != "0" {
				t.Error("the login is still there")
			}
			if _, err := c.Exec(t.Context(), "SELECT 1"); err == nil {
				t.Error("its session lives on")
			}
		})
	}
}
