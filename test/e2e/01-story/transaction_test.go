package story

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/test/e2e/house"
)

// state is the SQLSTATE of what a statement came to.
func state(ctx context.Context, c *pgx.Conn, sql string, args ...any) string {
	_, err := c.Exec(ctx, sql, args...)
	return house.State(err)
}

// TestTransactions: a refusal is to a transaction what any error is.
func TestTransactions(t *testing.T) {
	h := house.Start(t)
	for name, mode := range map[string]pgx.QueryExecMode{"simple": pgx.QueryExecModeSimpleProtocol, "extended": pgx.QueryExecModeCacheStatement, "unnamed": pgx.QueryExecModeExec} {
		t.Run(name, func(t *testing.T) {
			c := h.Connect(t, "alice", "sales-report", func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = mode })
			for i, step := range []struct {
				sql, state string
				status     byte
			}{
				{"SELECT count(*) FROM orders", "", 'I'},
				{"BEGIN", "", 'T'},
				{"SELECT count(*) FROM orders", "", 'T'},
				{"DROP TABLE orders", "42501", 'E'},
				{"SELECT count(*) FROM regions", "25P02", 'E'},
				{"DROP TABLE orders", "42501 25P02", 'E'},
				{"ROLLBACK", "", 'I'},
				{"BEGIN", "", 'T'},
				{"SAVEPOINT a", "", 'T'},
				{"SELECT * FROM hr.salaries", "42501", 'E'},
				{"ROLLBACK TO SAVEPOINT a", "", 'T'},
				{"SELECT count(*) FROM regions", "", 'T'},
				{"COMMIT", "", 'I'},
				{"BEGIN", "", 'T'},
				{"UPDATE sales.orders SET amount = 0", "42501", 'E'},
				{"COMMIT", "", 'I'}, // which rolls back
				{"SELECT count(*) FROM regions", "", 'I'},
			} {
				got := state(t.Context(), c, step.sql)
				if (got != step.state && (got == "" || !strings.Contains(step.state, got))) || c.PgConn().TxStatus() != step.status {
					t.Fatalf("step %d, %s: state %q and status %c, want %q and %c", i, step.sql, got, c.PgConn().TxStatus(), step.state, step.status)
				}
			}
		})
	}
	t.Run("several statements in one message", func(t *testing.T) {
		c := h.Connect(t, "alice", "sales-report")
		results, err := c.PgConn().Exec(t.Context(), "SELECT 1; DROP TABLE orders; SELECT 2").ReadAll()
		if house.State(err) != "42501" {
			t.Errorf("%v, %v", results, err)
		}
		results, err = c.PgConn().Exec(t.Context(), "SELECT 1; SELECT code FROM regions ORDER BY 1; SELECT 2").ReadAll()
		if err != nil || len(results) != 3 || len(results[1].Rows) != 6 {
			t.Errorf("%v, %v", results, err)
		}
	})
	if got := h.Target(t, "SELECT count(*), sum(amount) > 0 FROM sales.orders"); got[0][0] != "401" || got[0][1] != "t" {
		t.Errorf("orders at the target: %v", got)
	}
}

// TestPipeline: what a pipeline has after a refusal is skipped up to its Sync, as after
// any error, and what comes later goes on.
func TestPipeline(t *testing.T) {
	h := house.Start(t)
	c := h.Connect(t, "alice", "sales-report").PgConn()
	p := c.StartPipeline(t.Context())
	query := func(sql string, args ...[]byte) { p.SendQueryParams(sql, args, nil, nil, nil) }
	query("SELECT code FROM regions WHERE code = $1", []byte("DE"))
	query("DROP TABLE orders")
	query("SELECT 'skipped'")
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	query("SELECT email FROM customers WHERE id = 900001")
	query("SELECT count(*) FROM regions")
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	next := func() any {
		t.Helper()
		r, err := p.GetResults()
		if err != nil {
			return err
		}
		if rr, ok := r.(*pgconn.ResultReader); ok {
			res := rr.Read()
			if res.Err != nil {
				return res.Err
			}
			if len(res.Rows) == 1 {
				return string(res.Rows[0][0])
			}
			return len(res.Rows)
		}
		return r
	}
	if got := next(); got != "DE" {
		t.Errorf("first: %v", got)
	}
	var pg *pgconn.PgError
	if err, ok := next().(error); !ok || !errors.As(err, &pg) || pg.Code != "42501" || pg.Detail == "" || pg.Hint == "" {
		t.Errorf("second: %v", err)
	}
	if _, ok := next().(*pgconn.PipelineSync); !ok {
		t.Error("no Sync after the refusal")
	}
	if got := next(); got != "***" {
		t.Errorf("after the Sync: %v", got)
	}
	if got := next(); got != "6" {
		t.Errorf("last: %v", got)
	}
	if _, ok := next().(*pgconn.PipelineSync); !ok {
		t.Error("no second Sync")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	// A batch of pgx inside a transaction, with a refusal in the middle.
	conn := h.Connect(t, "alice", "sales-report")
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &pgx.Batch{}
	b.Queue("SELECT 1")
	b.Queue("SELECT salary FROM hr.salaries")
	b.Queue("SELECT 2")
	br := tx.SendBatch(t.Context(), b)
	err = br.Close()
	if house.State(err) != "42501" {
		t.Errorf("batch: %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	if s := state(t.Context(), conn, "SELECT 1"); s != "" {
		t.Errorf("after the batch: %s", s)
	}
}
