package story

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

// limited are tasks with one bound each.
const limited = `
apiVersion: postern/v1
kind: Task
metadata: {name: few-rows}
spec:
  purpose: look at a few
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  limits: {rows: 10}
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: few-bytes}
spec:
  purpose: look at a few
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  limits: {bytes: 1kB}
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: few-statements}
spec:
  purpose: ask a few times
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  limits: {statements: 3, per: grant}
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: one-session}
spec:
  purpose: one at a time
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  limits: {sessions: 1}
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: hasty}
spec:
  purpose: be quick
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  functions: {builtin: pure, allow: [pg_catalog.pg_sleep]}
  limits: {statementTimeout: 300ms, idle: 500ms}
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: short-session}
spec:
  purpose: be brief
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  limits: {session: 1s}
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: estimated}
spec:
  purpose: nothing large
  resources: {names: [warehouse]}
  permit:
    - {table: sales.orders, verbs: [select], columns: [id, customer_email], mask: {customer_email: email}, when: statement.estimatedRows < 20}
    - {table: sales.orders, verbs: [update], columns: [id], writeColumns: [status], when: statement.estimatedRows < 20}
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: limited}
spec:
  subjects: [{group: analysts}]
  tasks: [few-rows, few-bytes, few-statements, one-session, hasty, short-session, estimated]
`

// TestLimits: each bound of a task is kept, and told.
func TestLimits(t *testing.T) {
	t.Parallel()
	h := house.Start(t, house.Options{Extra: limited})
	simple := func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol }
	t.Run("rows", func(t *testing.T) {
		for _, change := range []func(*pgx.ConnConfig){simple, func(*pgx.ConnConfig) {}} {
			c := h.Connect(t, "alice", "few-rows", change)
			if s := state(t.Context(), c, "SELECT id FROM orders LIMIT 10"); s != "" {
				t.Errorf("ten rows: %s", s)
			}
			if s := state(t.Context(), c, "SELECT id FROM orders LIMIT 1"); s != "53400" {
				t.Errorf("an eleventh: %q", s)
			}
		}
		c := h.Connect(t, "alice", "few-rows")
		rows, err := c.Query(t.Context(), "SELECT id FROM orders")
		n := 0
		for err == nil && rows.Next() {
			n++
		}
		if err == nil {
			err = rows.Err()
		}
		if house.State(err) != "53400" || n > 10 {
			t.Errorf("%d rows, then %v", n, err)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		c := h.Connect(t, "alice", "few-bytes", simple)
		if s := state(t.Context(), c, "SELECT id FROM orders LIMIT 3"); s != "" {
			t.Errorf("a few: %s", s)
		}
		if s := state(t.Context(), c, "SELECT id FROM orders"); s != "53400" {
			t.Errorf("many: %q", s)
		}
	})
	t.Run("statements, over the sessions of a grant", func(t *testing.T) {
		one, two := h.Connect(t, "alice", "few-statements"), h.Connect(t, "alice", "few-statements", simple)
		for i, c := range []*pgx.Conn{one, two, one} {
			if s := state(t.Context(), c, "SELECT count(*) FROM orders"); s != "" {
				t.Errorf("statement %d: %s", i, s)
			}
		}
		for _, c := range []*pgx.Conn{one, two} {
			_, err := c.Exec(t.Context(), "SELECT count(*) FROM orders")
			if pg := house.PgError(t, err); pg.Code != "53400" || !strings.Contains(pg.Message, "3 statements") {
				t.Errorf("the fourth: %+v", pg)
			}
		}
	})
	t.Run("rows as the planner estimates them", func(t *testing.T) {
		h.PG.SQLIn(t, "warehouse", "ANALYZE sales.orders")
		for _, change := range []func(*pgx.ConnConfig){simple, func(*pgx.ConnConfig) {}} {
			c := h.Connect(t, "alice", "estimated", change)
			for _, try := range []struct{ text, want string }{
				{"SELECT id, customer_email FROM orders WHERE id = 1", ""},
				{"SELECT id, customer_email FROM orders", "42501"},
				{"SELECT id FROM orders LIMIT 5", ""},
				{"UPDATE orders SET status = 'x' WHERE id = 1", ""},
				{"UPDATE orders SET status = 'x' WHERE id > 0", "42501"},
				{"SELECT id FROM orders WHERE id = 2", ""},
				{"EXPLAIN SELECT id FROM orders WHERE id = 1", "42501"}, // a plan of a plan there is not
			} {
				if s := state(t.Context(), c, try.text); s != try.want {
					t.Errorf("%s: %q, want %q", try.text, s, try.want)
				}
			}
			if s := state(t.Context(), c, "SELECT id FROM orders WHERE id = $1", 3); s != "" {
				t.Errorf("with a parameter: %q", s)
			}
			if s := state(t.Context(), c, "SELECT id FROM orders WHERE id > $1", 3); s != "42501" {
				t.Errorf("many, with a parameter: %q", s)
			}
		}
	})
	t.Run("sessions", func(t *testing.T) {
		first := h.Connect(t, "alice", "one-session")
		if _, err := pgx.ConnectConfig(t.Context(), h.Config(t, h.DataToken(t, "alice"), "one-session")); house.State(err) != "53400" {
			t.Errorf("a second session: %v", err)
		}
		if err := first.Close(t.Context()); err != nil {
			t.Error(err)
		}
		house.Eventually(t, func() string { return "another may come" }, func() bool {
			c, err := pgx.ConnectConfig(t.Context(), h.Config(t, h.DataToken(t, "alice"), "one-session"))
			if err != nil {
				return false
			}
			return c.Close(t.Context()) == nil
		})
	})
	t.Run("a statement's time", func(t *testing.T) {
		c := h.Connect(t, "alice", "hasty")
		const long = "SELECT pg_sleep(3600)" // which ends by nothing else
		if s := state(t.Context(), c, long); s != "57014" {
			t.Errorf("%q", s)
		}
		for _, raise := range []string{"SET statement_timeout = 0", "SET statement_timeout = '400us'", "SET LOCAL statement_timeout = '1h'", "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; SET statement_timeout TO DEFAULT", "SET statement_timeout TO DEFAULT", "RESET statement_timeout", "RESET ALL"} {
			_, _ = c.Exec(t.Context(), raise, pgx.QueryExecModeSimpleProtocol)
			if s := state(t.Context(), c, long); s != "57014" {
				t.Fatalf("after %s: %s", raise, s)
			}
		}
	})
	t.Run("idle", func(t *testing.T) {
		began := time.Now()
		err := outcome(t, cut(h.Connect(t, "alice", "hasty")))
		if took := time.Since(began); house.State(err) != "57P05" || took < 400*time.Millisecond {
			t.Errorf("%v after %s", err, took)
		}
	})
	t.Run("a session's time", func(t *testing.T) {
		began := time.Now()
		err := outcome(t, cut(h.Connect(t, "alice", "short-session")))
		if took := time.Since(began); house.State(err) != "57P01" || took < 900*time.Millisecond {
			t.Errorf("%v after %s", err, took)
		}
	})
}
