package wall

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

// TestRows gives each subject a view of their own rows, and nobody another's.
func TestRows(t *testing.T) {
	h := start(t)
	h.Target(t, "UPDATE sales.customers SET name = 'bob' WHERE id = 7")
	for _, text := range []string{"SELECT id, email FROM customers ORDER BY id;\n", "SELECT count(*) FROM customers WHERE email = '***';\n", "SELECT email FROM customers WHERE id = 7;\n"} {
		source, native := h.Psql(t, "alice", "regional.warehouse", text), h.Psql(t, "alice", "regional.vault-room", text)
		if native.All() != source.All() || native.Code != 0 {
			t.Errorf("%s\nat level native:\n%s\nat level source:\n%s", text, native.All(), source.All())
		}
	}
	if got := h.Psql(t, "bob", "regional.vault-room", "SELECT id FROM customers WHERE id = 7;\n"); got.Out != "7\n" {
		t.Errorf("bob sees %s", got.All())
	}

	bob := h.Connect(t, "bob", "regional.vault-room")
	var n int
	if err := bob.QueryRow(t.Context(), "SELECT count(*) FROM customers").Scan(&n); err != nil {
		t.Fatal(err)
	}
	thief := steal(t, h, account(t, h, "regional")) // bob's, who came last
	views := h.Target(t, `SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname LIKE 'postern\_%\_regional\_%' AND relkind = 'v'`)
	if len(views) != 2 {
		t.Fatalf("views %v", views)
	}
	readable := 0
	for _, v := range views {
		var seen int
		switch err := thief.QueryRow(t.Context(), "SELECT count(*) FROM "+pgx.Identifier(v).Sanitize()).Scan(&seen); {
		case err == nil && seen == n:
			readable++
		case err == nil:
			t.Errorf("view %v shows %d rows of %d", v, seen, n)
		case house.State(err) != "42501":
			t.Error(err)
		}
	}
	if readable != 1 {
		t.Errorf("bob's login reads %d of the two subjects' views", readable)
	}
	// A condition that fails on a hidden row must not be asked about it.
	_, err := thief.Exec(t.Context(), fmt.Sprintf("SELECT id FROM %s WHERE 1 / (id - 2) > 0", pgx.Identifier(views[0]).Sanitize()))
	if err != nil && strings.Contains(err.Error(), "zero") {
		t.Error("a hidden row made a statement fail")
	}
}
