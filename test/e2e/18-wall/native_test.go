package wall

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// TestNative shows the same through the views as through the gateway's own rewriting.
func TestNative(t *testing.T) {
	h := start(t)
	for _, text := range []string{
		"SELECT id, name, email, card FROM customers WHERE id < 4 OR id = " + house.CanaryID + " ORDER BY id;\n",
		"SELECT * FROM orders WHERE id < 3 ORDER BY id;\n",
		"SELECT r.name, count(*), sum(o.amount) FROM orders o JOIN customers c ON c.id = o.customer_id JOIN sales.regions r ON r.code = c.country GROUP BY r.name ORDER BY 1;\n",
		"SELECT count(*) FROM customers WHERE email LIKE '%@%';\n",
		"\\copy (SELECT id, email FROM customers WHERE id < 3) TO STDOUT\n",
		"SELECT note FROM orders;\n",
		"SELECT salary FROM hr.salaries;\n",
	} {
		source, native := h.Psql(t, "alice", "sales-report", text), h.Psql(t, "alice", "report.vault-room", text)
		if want := strings.ReplaceAll(source.All(), "sales-report", "report"); native.All() != want {
			t.Errorf("%s\nat level native:\n%s\nat level source:\n%s", text, native.All(), want)
		}
		if leaks := house.Leaks(native.All()); len(leaks) > 0 {
			t.Errorf("%s shows %v", text, leaks)
		}
	}
	shown := house.Poll(t, "the recording says level L3", func() (string, bool) {
		r := h.CLI(t, "bob", "sessions", "list", "--task", "report", "--since", "1h", "--format", "json")
		_, id, _ := strings.Cut(r.Out, `"id": "`)
		id, _, _ = strings.Cut(id, `"`)
		r = h.CLI(t, "bob", "sessions", "replay", id)
		return r.All(), strings.Contains(r.Out, "level L3")
	})
	t.Log(shown)
}

// TestChanges lets a task change what it may, and nothing else, at the target itself.
func TestChanges(t *testing.T) {
	h := start(t)
	c := h.Connect(t, "alice", "clerk.vault-room")
	for _, text := range []string{
		"UPDATE orders SET status = 'void' WHERE id = 1",
		"DELETE FROM orders WHERE id = 2 RETURNING *",
		"INSERT INTO audit.log (actor, action) VALUES ('alice', 'tried')",
		"SELECT id, status FROM orders WHERE status = 'void' ORDER BY id LIMIT 1",
		"SELECT id, status FROM orders WHERE id = 3 FOR UPDATE",
	} {
		if _, err := c.Exec(t.Context(), text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if got := h.Target(t, "SELECT (SELECT status FROM sales.orders WHERE id = 1), (SELECT count(*) FROM sales.orders WHERE id = 2), (SELECT count(*) FROM audit.log)"); strings.Join(got[0], " ") != "void 0 1" {
		t.Errorf("the target has %v", got)
	}
	thief := steal(t, h, account(t, h, "clerk"))
	for _, text := range []string{
		"SELECT amount FROM sales.orders", "SELECT * FROM sales.orders", "UPDATE sales.orders SET amount = 0", "INSERT INTO sales.orders (id) VALUES (3)",
		"SELECT * FROM audit.log", "INSERT INTO audit.log (actor, action, detail) VALUES ('a', 'b', '{}')", "DELETE FROM audit.log", "TRUNCATE sales.orders",
		"SELECT * FROM sales.customers", "SELECT * FROM hr.salaries",
	} {
		if _, err := thief.Exec(t.Context(), text); house.State(err) != "42501" {
			t.Errorf("past the node, %s: %v", text, err)
		}
	}
	if _, err := thief.Exec(t.Context(), "UPDATE sales.orders SET status = 'open' WHERE id = 1"); err != nil {
		t.Errorf("what the task permits: %v", err)
	}
}

// TestEstimates: what a rule reads of the planner is known at level native, too.
func TestEstimates(t *testing.T) {
	h := start(t)
	h.Apply(t, "ada", `
kind: Task
metadata: {name: few}
spec:
  purpose: a few orders
  resources: {names: [vault-room]}
  permit: [{table: sales.orders, verbs: [select], columns: [id], when: statement.estimatedRows < 20}]
  duration: 1h
---
kind: Binding
metadata: {name: few}
spec: {subjects: [{group: analysts}], tasks: [few]}
`)
	c := h.Connect(t, "alice", "few.vault-room")
	if _, err := c.Exec(t.Context(), "SELECT id FROM orders WHERE id = 3"); err != nil {
		t.Error(err)
	}
	if _, err := c.Exec(t.Context(), "SELECT id FROM orders"); house.State(err) != "42501" {
		t.Errorf("all of them: %v", err)
	}
}
