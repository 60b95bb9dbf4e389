package postgres

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/dataplane/engine"
)

// Under a task that allows everything the target answers for itself: parameters of any
// type, names that the session does not know, notifications, and whole errors.
func TestEverythingIsAllowed(t *testing.T) {
	h := newHouse(t)
	h.door.Terms(func(tm *engine.Terms) { tm.Own = true })
	c, ctx := h.connect(t, ""), testContext(t)
	exec := func(text string) {
		t.Helper()
		if _, err := c.Exec(ctx, text, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	exec("CREATE DOMAIN pg_temp.even AS int CHECK (VALUE % 2 = 0)")
	var oid uint32
	if err := c.QueryRow(ctx, "SELECT 'pg_temp.even'::regtype::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	if r := c.PgConn().ExecParams(ctx, "SELECT $1", [][]byte{[]byte("4")}, []uint32{oid}, nil, nil).Read(); r.Err != nil || string(r.Rows[0][0]) != "4" {
		t.Errorf("a parameter of a domain: %v", r.Err)
	}

	if d, err := c.Prepare(ctx, "later", "FETCH ALL FROM cur"); err != nil || len(d.Fields) != 0 {
		t.Fatalf("of a cursor that is not there yet: %v", err)
	}
	exec("BEGIN; DECLARE cur CURSOR FOR SELECT 1")
	if r := c.PgConn().ExecPrepared(ctx, "later", nil, nil, nil).Read(); r.Err != nil || len(r.Rows) != 1 {
		t.Errorf("of a cursor: %d rows, %v", len(r.Rows), r.Err)
	}
	exec("FETCH NEXT FROM cur; COMMIT")
	exec("PREPARE p AS SELECT 2; EXECUTE p")

	exec("LISTEN here")
	exec("NOTIFY here, 'said'")
	if n, err := c.WaitForNotification(ctx); err != nil || n.Payload != "said" {
		t.Errorf("%v, %v", n, err)
	}

	_, err := c.Exec(ctx, "SELECT 1 / 0", pgx.QueryExecModeSimpleProtocol)
	if pg := (*pgconn.PgError)(nil); !errors.As(err, &pg) || pg.Routine == "" {
		t.Errorf("%+v", err)
	}
}
