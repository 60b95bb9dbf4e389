// Package wall shows level native on a real PostgreSQL: what the target itself refuses to
// a session's login, whatever stands in front of it.
package wall

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// world is the sample warehouse once more, at level native, with tasks of its own.
const world = `
kind: Resource
metadata: {name: vault-room}
spec:
  protocol: postgres
  endpoint: {host: "${WAREHOUSE_HOST}", port: ${WAREHOUSE_PORT}, database: warehouse, tls: {mode: verify-full, ca: {pem: "${WAREHOUSE_CA}"}}}
  credential: {sealed: warehouse}
  catalog: {sealed: warehouse-catalog}
  level: {want: native, admin: {sealed: warehouse-admin}}
  pin: {search_path: [sales]}
---
kind: Task
metadata: {name: report}
spec:
  purpose: monthly sales figures
  resources: {names: [vault-room]}
  permit:
    - {table: sales.orders, verbs: [select], columns: [id, customer_id, customer_email, amount, status, created_at], mask: {customer_email: email}}
    - {table: sales.customers, verbs: [select], columns: [id, name, email, card, country, created_at], mask: {email: email, card: card}}
    - {table: sales.regions, verbs: [select], columns: [code, name]}
  duration: 1h
  record: {resultRows: 20}
---
kind: Task
metadata: {name: clerk}
spec:
  purpose: work on orders
  resources: {names: [vault-room]}
  permit:
    - {table: sales.orders, verbs: [select, update, delete], columns: [id, status], writeColumns: [status]}
    - {table: audit.log, verbs: [insert], writeColumns: [actor, action]}
  duration: 1h
---
kind: Task
metadata: {name: regional}
spec:
  purpose: customers of one's own country
  resources: {names: [vault-room, warehouse]}
  permit:
    - {table: sales.customers, verbs: [select], columns: [id, email], mask: {email: email}, rows: 'country == "JP" && phone != subject.id || name == subject.id'}
  duration: 1h
---
kind: Task
metadata: {name: anything}
spec:
  purpose: break glass
  resources: {names: [vault-room]}
  permit: [{unrestricted: true}]
  duration: 1h
---
kind: Binding
metadata: {name: vault-room}
spec: {subjects: [{group: analysts}, {group: leads}], tasks: [report, clerk, regional, anything]}
`

func start(t *testing.T) *house.House {
	t.Helper()
	return house.Start(t, house.Options{Extra: world, Wall: true})
}

// account is the login of the newest session of a task.
func account(t *testing.T, h *house.House, task string) string {
	t.Helper()
	return house.Poll(t, "a session of "+task+" is logged in", func() (string, bool) {
		rows := h.Target(t, `SELECT usename FROM pg_stat_activity JOIN pg_auth_members m ON m.member = usesysid JOIN pg_roles r ON r.oid = m.roleid
			WHERE application_name LIKE 'postern/s-%' AND r.rolname LIKE '%\_t\_`+task+`' ORDER BY backend_start DESC LIMIT 1`)
		if len(rows) == 0 {
			return "", false
		}
		return rows[0][0], true
	})
}

// steal logs in as a session's login past the node, as a thief would who has its
// password. Everything else about the login stays as it is.
func steal(t *testing.T, h *house.House, login string) *pgx.Conn {
	t.Helper()
	password := rand.Text()
	h.Target(t, fmt.Sprintf(`ALTER ROLE "%s" PASSWORD '%s'`, login, password))
	c, err := pgx.Connect(t.Context(), h.PG.DSN("warehouse", login, password))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// walls are the roles and schemas that stand at the target, but for logins.
func walls(t *testing.T, h *house.House) string {
	t.Helper()
	var out []string
	for _, r := range h.Target(t, `SELECT rolname::text FROM pg_roles WHERE rolname ~ '^postern_[0-9a-f]{8}_[to]_' UNION ALL SELECT nspname FROM pg_namespace WHERE nspname LIKE 'postern\_%' ORDER BY 1`) {
		out = append(out, r[0])
	}
	return strings.Join(out, " ")
}
