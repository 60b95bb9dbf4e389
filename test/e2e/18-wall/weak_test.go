package wall

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// TestWeak: past the node, each of these shows a session what its task does not permit, and
// doctor tells of each.
func TestWeak(t *testing.T) {
	h := start(t)
	h.Target(t, `CREATE FUNCTION sales.total() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN (SELECT count(*) FROM orders); END';
		CREATE FUNCTION sales.safe() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = sales, pg_temp AS 'BEGIN RETURN (SELECT count(*) FROM orders); END';
		CREATE FUNCTION sales.spelt() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS 'BEGIN RETURN (SELECT count(*) FROM sales.orders); END';
		ALTER FUNCTION sales.total() OWNER TO warehouse_admin; ALTER FUNCTION sales.safe() OWNER TO warehouse_admin; ALTER FUNCTION sales.spelt() OWNER TO warehouse_admin;
		REVOKE EXECUTE ON FUNCTION sales.total(), sales.safe(), sales.spelt() FROM PUBLIC;
		SELECT lo_from_bytea(4242, 'secret'); GRANT SELECT ON LARGE OBJECT 4242 TO PUBLIC;
		CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; CREATE SERVER near FOREIGN DATA WRAPPER postgres_fdw;
		CREATE USER MAPPING FOR PUBLIC SERVER far; GRANT USAGE ON FOREIGN SERVER far, near TO PUBLIC`)
	h.Apply(t, "ada", `
kind: Task
metadata: {name: sums}
spec:
  purpose: sums
  resources: {names: [vault-room]}
  functions: {builtin: pure, allow: [sales.total, sales.safe, sales.spelt]}
  permit: [{table: sales.regions, verbs: [select], columns: [code]}]
  duration: 1h
---
kind: Binding
metadata: {name: sums}
spec: {subjects: [{group: analysts}], tasks: [sums]}
`)
	_ = h.Connect(t, "alice", "sums.vault-room")
	thief := steal(t, h, account(t, h, "sums"))
	for _, text := range []string{
		`CREATE FUNCTION pg_temp.peek() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM hr.salaries); END'`,
		`CREATE TEMP VIEW orders AS SELECT pg_temp.peek()`,
		`SELECT sales.total()`, `SELECT sales.safe()`, `SELECT lo_get(4242)`, `CREATE FOREIGN TABLE pg_temp.theirs (id int) SERVER far`,
	} {
		if _, err := thief.Exec(t.Context(), text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	house.Eventually(t, func() string { return h.CLI(t, "ada", "doctor", "vault-room").All() }, func() bool {
		d := h.CLI(t, "ada", "doctor", "vault-room")
		return d.Code == 6 && strings.Contains(d.Out, "sales.total()") && strings.Contains(d.Out, "large object 4242 (SELECT)") && strings.Contains(d.Out, "[foreign-server]")
	})
	if d := h.CLI(t, "ada", "doctor", "vault-room"); strings.Contains(d.Out, "sales.safe()") || strings.Contains(d.Out, "sales.spelt()") || strings.Contains(d.Out, "near ") {
		t.Errorf("it warns of what is safe: %s", d.Out)
	}
}
