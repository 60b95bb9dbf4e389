package wall

import (
	"slices"
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
		CREATE USER MAPPING FOR PUBLIC SERVER far; GRANT USAGE ON FOREIGN SERVER far, near TO PUBLIC;
		CREATE FUNCTION audit.noted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM * FROM orders; RETURN NEW; END';
		ALTER FUNCTION audit.noted() OWNER TO warehouse_admin; REVOKE EXECUTE ON FUNCTION audit.noted() FROM PUBLIC;
		CREATE TRIGGER noted AFTER INSERT ON audit.log FOR EACH ROW EXECUTE FUNCTION audit.noted();
		CREATE TABLE hr.quiet (i int); CREATE FUNCTION hr.quiet() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN PERFORM * FROM orders; RETURN NEW; END';
		REVOKE EXECUTE ON FUNCTION hr.quiet() FROM PUBLIC; CREATE TRIGGER quiet AFTER INSERT ON hr.quiet FOR EACH ROW EXECUTE FUNCTION hr.quiet();
		GRANT SET ON PARAMETER log_statement TO PUBLIC`)
	h.Apply(t, "ada", `
kind: Task
metadata: {name: sums}
spec:
  purpose: sums
  resources: {names: [vault-room]}
  functions: {builtin: pure, allow: [sales.total, sales.safe, sales.spelt]}
  permit: [{table: sales.regions, verbs: [select], columns: [code]}, {table: audit.log, verbs: [insert], writeColumns: [actor, action]}]
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
		`SELECT sales.total()`, `SELECT sales.safe()`, `INSERT INTO audit.log (actor, action) VALUES ('eve', 'peeks as the owner')`, `SET log_statement = none`, `SELECT lo_get(4242)`, `CREATE FOREIGN TABLE pg_temp.theirs (id int) SERVER far`,
	} {
		if _, err := thief.Exec(t.Context(), text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	login := account(t, h, "sums")
	h.Target(t, `GRANT SELECT ON hr.salaries TO postern_login; GRANT warehouse_rw TO "`+login+`"`)
	weak := []string{
		"sales.total()", "audit.noted()", "large object 4242 (SELECT)", "[foreign-server]", "log_statement (SET)", "table hr.salaries", "membership of " + login + " in warehouse_rw",
	}
	house.Eventually(t, func() string { return h.CLI(t, "ada", "doctor", "vault-room").All() }, func() bool {
		d := h.CLI(t, "ada", "doctor", "vault-room")
		return d.Code == 6 && !slices.ContainsFunc(weak, func(w string) bool { return !strings.Contains(d.Out, w) })
	})
	d := h.CLI(t, "ada", "doctor", "vault-room")
	for _, safe := range []string{"sales.safe()", "sales.spelt()", "hr.quiet()", "near "} {
		if strings.Contains(d.Out, safe) {
			t.Errorf("it warns of %s, which is safe: %s", safe, d.Out)
		}
	}
}
