package wall

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/wait"
)

// TestFirstWalls: the first two walls of a server both find no role of all logins, and both
// get by.
func TestFirstWalls(t *testing.T) {
	pg := servers.Postgres(t)
	pg.SQL(t, "CREATE DATABASE one")
	pg.SQL(t, "CREATE DATABASE two")
	first := func(database string, do func(tx pgx.Tx) error) error {
		conn, err := pgx.Connect(t.Context(), pg.SuperDSN(database))
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		return inTx(t.Context(), conn, do)
	}
	g := run.New(t.Context())
	err := first("one", func(pgx.Tx) error {
		g.Go("second", func(context.Context) error { return first("two", func(pgx.Tx) error { return nil }) })
		wait.For(t, "the second wall waits for the first", func() bool {
			return pg.SQL(t, "SELECT count(*) FROM pg_locks WHERE NOT granted")[0][0] != "0"
		})
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
