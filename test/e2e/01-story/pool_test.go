package story

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

// pooledTask shares the connections of a grant.
const pooledTask = `
apiVersion: postern/v1
kind: Task
metadata: {name: dashboard, labels: {team: sales}}
spec:
  purpose: a page that connects for each question
  resources: {names: [warehouse]}
  permit:
    - {table: sales.customers, verbs: [select], columns: [id, name, email, card], mask: {email: email, card: card}}
    - {table: sales.orders, verbs: [select], columns: [id, amount]}
  functions: {builtin: pure, allow: [pg_catalog.pg_backend_pid, pg_catalog.pg_sleep]}
  credential: {reuse: pool}
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: dashboards}
spec:
  subjects: [{group: analysts}, {group: leads}]
  tasks: [dashboard]
`

// TestPool: sessions of one grant have connections one after the other, and nobody else has.
func TestPool(t *testing.T) {
	t.Parallel()
	h := house.Start(t, house.Options{Extra: pooledTask})
	served := map[string]map[int]bool{"alice": {}, "bob": {}}
	process := func(t *testing.T, who string, c *pgx.Conn) (pid int) {
		t.Helper()
		if err := c.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
			t.Fatal(err)
		}
		served[who][pid] = true
		return pid
	}
	// again has somebody connect until a process serves two sessions in a row: in the first
	// one runs leave, and what is returned is the second.
	again := func(t *testing.T, who string, leave ...string) (c *pgx.Conn, pid int) {
		t.Helper()
		before := 0
		house.Poll(t, "a connection is used again", func() (bool, bool) {
			c = h.Connect(t, who, "dashboard")
			if pid = process(t, who, c); pid == before {
				return true, true
			}
			for _, text := range leave {
				if s := state(t.Context(), c, text); s != "" {
					t.Errorf("%s: %s", text, s)
				}
			}
			before = pid
			return true, c.Close(t.Context()) != nil
		})
		return c, pid
	}
	t.Run("nothing is left, and masks hold", func(t *testing.T) {
		c, pid := again(t, "alice", "SET timezone = 'Asia/Tokyo'", "SELECT id FROM orders LIMIT 1")
		var zone, name, email, card string
		if err := c.QueryRow(t.Context(), "SHOW timezone").Scan(&zone); err != nil || zone == "Asia/Tokyo" {
			t.Errorf("the time zone is %s: %v", zone, err)
		}
		if err := c.QueryRow(t.Context(), "SELECT name, email, card FROM customers WHERE id = $1", 900001).Scan(&name, &email, &card); err != nil || email != "***" || card != "************2222" {
			t.Errorf("%s %s %s: %v", name, email, card, err)
		}
		id := named(t, h, pid)
		_ = c.Close(t.Context())
		house.Poll(t, "the record says whose connection it was", func() (bool, bool) {
			r := h.CLI(t, "bob", "sessions", "replay", id)
			return true, strings.Contains(r.Out, fmt.Sprintf("process %d at the resource, used before", pid))
		})
	})
	t.Run("nobody else has it", func(t *testing.T) {
		for _, who := range []string{"alice", "bob", "alice", "bob"} {
			c, _ := again(t, who)
			_ = c.Close(t.Context())
		}
		for pid := range served["bob"] {
			if served["alice"][pid] {
				t.Errorf("process %d served alice and bob", pid)
			}
		}
	})
	t.Run("the target knows each session", func(t *testing.T) {
		c, _ := again(t, "alice")
		d := h.Connect(t, "alice", "dashboard")
		process(t, "alice", d)
		house.Poll(t, "the target knows these two and nobody else", func() (bool, bool) { // those that have left may be on their way
			names := map[string]bool{}
			for _, row := range h.Target(t, "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'postern/s-%'") {
				names[row[0]] = true
			}
			return true, len(names) == 2
		})
		_, _ = c.Close(t.Context()), d.Close(t.Context())
	})
	t.Run("as many as come", func(t *testing.T) {
		var all []*pgx.Conn
		seen := map[int]bool{}
		for range 12 {
			c := h.Connect(t, "alice", "dashboard")
			pid := process(t, "alice", c)
			if seen[pid] {
				t.Fatalf("process %d serves two sessions", pid)
			}
			seen[pid] = true
			all = append(all, c)
		}
		for _, c := range all {
			_ = c.Close(t.Context())
		}
		house.Poll(t, "the rest is closed", func() (bool, bool) {
			left := 0
			for _, row := range h.Target(t, "SELECT pid FROM pg_stat_activity WHERE pid IS NOT NULL") {
				if seen[number(row[0])] {
					left++
				}
			}
			return true, left <= 8
		})
	})
	t.Run("a kill reaches a connection that is used again", func(t *testing.T) {
		c, pid := again(t, "alice")
		id := named(t, h, pid)
		done := make(chan error, 1)
		go func() {
			_, err := c.Exec(t.Context(), "SELECT pg_sleep(600)")
			done <- err
		}()
		r := h.CLI(t, "ada", "sessions", "kill", id, "--reason", "case 7")
		if r.Code != 0 {
			t.Fatalf("%s", r.All())
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), "case 7") {
			t.Errorf("the killed session ends with %v", err)
		}
		gone(t, h, pid)
	})
	t.Run("a lock closes what waits", func(t *testing.T) {
		c, pid := again(t, "alice")
		_ = c.Close(t.Context())
		h.Apply(t, "ada", "{apiVersion: postern/v1, kind: Lock, metadata: {name: out}, spec: {subject: alice, reason: left}}")
		gone(t, h, pid)
	})
}

// named is the session that the target knows a process by.
func named(t *testing.T, h *house.House, pid int) string {
	t.Helper()
	rows := h.Target(t, fmt.Sprintf("SELECT substr(application_name, length('postern/') + 1) FROM pg_stat_activity WHERE pid = %d", pid))
	if len(rows) != 1 {
		t.Fatalf("process %d: %v", pid, rows)
	}
	return rows[0][0]
}

func gone(t *testing.T, h *house.House, pid int) {
	t.Helper()
	house.Poll(t, "the process is gone", func() (bool, bool) {
		return true, len(h.Target(t, fmt.Sprintf("SELECT 1 FROM pg_stat_activity WHERE pid = %d", pid))) == 0
	})
}

func number(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}
