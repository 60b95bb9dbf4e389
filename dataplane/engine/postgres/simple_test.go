package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
)

// denyDrops denies what says "drop" and allows the rest.
func denyDrops(text string, _ any) postern.Decision {
	if strings.Contains(strings.ToLower(text), "drop") {
		return postern.Decision{Rule: "t/permit", Reason: `task "t" does not allow DROP TABLE`, Detail: "allowed: select", Hint: "ask for another task"}
	}
	return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
}

func wantCode(t *testing.T, err error, code string) *pgconn.PgError {
	t.Helper()
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		t.Fatalf("want SQLSTATE %s, got %v", code, err)
	}
	if pe.Code != code {
		t.Fatalf("want SQLSTATE %s, got %s: %s (%s)", code, pe.Code, pe.Message, pe.Detail)
	}
	return pe
}

func TestAllowAndDeny(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Decide = denyDrops })
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeDescribeExec} {
		t.Run(mode.String(), func(t *testing.T) {
			c := h.connect(t, "")
			ctx := testContext(t)
			for range 3 {
				var n int
				if err := c.QueryRow(ctx, "select count(*) from orders where id <= $1", mode, 10).Scan(&n); err != nil || n != 10 {
					t.Fatalf("n=%d err=%v", n, err)
				}
				_, err := c.Exec(ctx, "drop table orders", mode)
				pe := wantCode(t, err, "42501")
				if pe.Message != `postern: task "t" does not allow DROP TABLE` || pe.Detail != "rule t/permit: allowed: select" || pe.Hint != "ask for another task" {
					t.Fatalf("the refusal says %+v", pe)
				}
			}
			if h.door.Last().Sent("drop table") {
				t.Fatal("a denied statement was sent")
			}
		})
	}
}

// TestDeniedInTransaction is the promise that both sides agree on a transaction after a
// denial, whatever the protocol.
func TestDeniedInTransaction(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Decide = denyDrops })
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		t.Run(mode.String(), func(t *testing.T) {
			c := h.connect(t, "")
			ctx := testContext(t)
			tx, err := c.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(ctx, "update orders set note = 'changed' where id = 1", mode); err != nil {
				t.Fatal(err)
			}
			_, err = tx.Exec(ctx, "drop table orders", mode)
			wantCode(t, err, "42501")
			if s := c.PgConn().TxStatus(); s != 'E' {
				t.Fatalf("the client sees transaction status %c", s)
			}
			_, err = tx.Exec(ctx, "select 1", mode)
			wantCode(t, err, "25P02")
			tag, err := c.Exec(ctx, "commit")
			if err != nil || tag.String() != "ROLLBACK" {
				t.Fatalf("commit of a failed transaction: %v %v", tag, err)
			}
			if got := shared.pg.SQL(t, "select note from sales.orders where id = 1")[0][0]; got != "n" {
				t.Fatalf("the change stands: %q", got)
			}
		})
	}
}

// TestDeniedInPipeline is the same for an implicit transaction of the extended protocol.
func TestDeniedInPipeline(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Decide = denyDrops })
	c := h.connect(t, "")
	ctx := testContext(t)
	pipe := c.PgConn().StartPipeline(ctx)
	pipe.SendQueryParams("update orders set note = 'piped' where id = 2", nil, nil, nil, nil)
	pipe.SendQueryParams("drop table orders", nil, nil, nil, nil)
	pipe.SendQueryParams("update orders set note = 'piped' where id = 3", nil, nil, nil, nil)
	if err := pipe.Sync(); err != nil {
		t.Fatal(err)
	}
	pipe.SendQueryParams("update orders set note = 'second' where id = 4", nil, nil, nil, nil)
	if err := pipe.Sync(); err != nil {
		t.Fatal(err)
	}
	var codes []string
	tags := 0
	for range 20 {
		r, err := pipe.GetResults()
		var pe *pgconn.PgError
		switch {
		case errors.As(err, &pe):
			codes = append(codes, pe.Code)
			continue
		case err != nil:
			t.Fatal(err)
		case r == nil:
		}
		if rr, ok := r.(*pgconn.ResultReader); ok {
			if _, err := rr.Close(); err != nil {
				if errors.As(err, &pe) {
					codes = append(codes, pe.Code)
				}
			} else {
				tags++
			}
		}
		if r == nil {
			break
		}
	}
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	if len(codes) != 1 || codes[0] != "42501" {
		t.Fatalf("errors %v", codes)
	}
	if tags != 2 {
		t.Fatalf("%d results, want the first and the one of the second segment", tags)
	}
	rows := shared.pg.SQL(t, "select id, note from sales.orders where id in (2, 3, 4) order by id")
	if rows[0][1] != "n" || rows[1][1] != "n" || rows[2][1] != "second" {
		t.Fatalf("after the pipeline: %v", rows)
	}
	var one int
	if err := c.QueryRow(ctx, "select 1").Scan(&one); err != nil || one != 1 {
		t.Fatalf("the session is not usable: %v", err)
	}
}

func TestSyntaxErrorIsTheTargetsOwn(t *testing.T) {
	h := newHouse(t)
	c := h.connect(t, "")
	_, err := c.Exec(testContext(t), "selec 1", pgx.QueryExecModeSimpleProtocol)
	pe := wantCode(t, err, "42601")
	if pe.Position != 1 || !strings.Contains(pe.Message, "syntax error") {
		t.Fatalf("%+v", pe)
	}
}
