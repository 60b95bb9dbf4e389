package story

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

const (
	leadsNow = `
apiVersion: postern/v1
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 2}], distinct: true, timeout: 5m}
`
	shorterNow = `
apiVersion: postern/v1
kind: Task
metadata: {name: sales-report, labels: {team: sales}}
spec:
  purpose: monthly sales figures
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id, status]}]
  duration: 1s
`
)

// TestTightened: whom people have let in goes on while the rule takes what they said, and
// who has a task for no longer than it is given now.
func TestTightened(t *testing.T) {
	t.Parallel()
	h := house.Start(t)
	type connected struct {
		c   *pgx.Conn
		err error
	}
	done := make(chan connected, 1)
	cfg := h.Config(t, h.DataToken(t, "alice"), "schema-change")
	cfg.ConnectTimeout = house.Patience
	go func() {
		c, err := pgx.ConnectConfig(t.Context(), cfg)
		done <- connected{c, err}
	}()
	if err := answer(t, h, pending(t, h), true); err != nil {
		t.Fatal(err)
	}
	got := <-done
	if got.err != nil {
		t.Fatal(got.err)
	}
	let, other := got.c, h.Connect(t, "alice", "sales-report")
	t.Cleanup(func() { _ = let.Close(t.Context()) })
	ended := func(c *pgx.Conn, why string) {
		t.Helper()
		var err error
		house.Eventually(t, func() string { return "the session is ended" }, func() bool {
			_, err = c.Exec(t.Context(), "SELECT id FROM sales.orders WHERE id = 1", pgx.QueryExecModeSimpleProtocol)
			return err != nil
		})
		if pg := house.PgError(t, err); !strings.Contains(pg.Message, why) || pg.Code != "57P01" && pg.Code != "42501" {
			t.Errorf("%+v; want %q", pg, why)
		}
	}
	h.Apply(t, "ada", strings.Replace(leadsNow, "atLeast: 2", "atLeast: 1", 1)) // asks for no more
	for _, c := range []*pgx.Conn{let, other} {
		if s := state(t.Context(), c, "SELECT id FROM sales.orders WHERE id = 1", pgx.QueryExecModeSimpleProtocol); s != "" {
			t.Errorf("before it is tightened: %s", s)
		}
	}
	h.Apply(t, "ada", leadsNow)
	ended(let, `the approval rule "leads" asks for more than was said`)
	if s := state(t.Context(), other, "SELECT id FROM sales.orders WHERE id = 1", pgx.QueryExecModeSimpleProtocol); s != "" {
		t.Errorf("a session that nobody is asked for: %s", s)
	}
	h.Apply(t, "ada", shorterNow)
	ended(other, `task "sales-report" is given for 1s now`)
}
