package who

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/test/e2e/house"
)

// looked is the warehouse by another name, so that the house has something for its wall.
const looked = `
kind: Resource
metadata: {name: looked-at}
spec:
  protocol: postgres
  endpoint: {host: "${WAREHOUSE_HOST}", port: ${WAREHOUSE_PORT}, database: warehouse, tls: {mode: verify-full, ca: {pem: "${WAREHOUSE_CA}"}}}
  credential: {sealed: warehouse-catalog}
  level: {want: source, admin: {sealed: warehouse-admin}}
`

// TestAccounts: who uses an account around Postern is seen and told, and a new password
// ends that, while what goes through Postern goes on.
func TestAccounts(t *testing.T) {
	h := house.Start(t, house.Options{Wall: true, Extra: looked})
	h.Target(t, "GRANT warehouse_app TO warehouse_admin WITH ADMIN OPTION")
	world := func(rotated string) string {
		text := string(house.Must(os.ReadFile("../../../deploy/dev/world/20-warehouse.yaml"))(t))
		return strings.Replace(text, "level: {want: source}", "level: {want: source, admin: {sealed: warehouse-admin}}\n  rotatedSessions: "+rotated, 1)
	}
	h.Apply(t, "ada", world("keep"))
	direct := func() (*pgx.Conn, error) {
		c := house.Must(pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=warehouse_app dbname=warehouse application_name=legacy-report sslmode=disable", h.PG.Host, h.PG.Port)))(t)
		c.TLSConfig, c.Password = h.PG.TLS(), h.Password("warehouse_app")
		return pgx.ConnectConfig(t.Context(), c)
	}
	around := house.Must(direct())(t)
	defer around.Close(t.Context())
	through := h.Connect(t, "alice", "sales-report")
	if _, err := through.Exec(t.Context(), "SET application_name = 'something else'"); err != nil {
		t.Fatal(err)
	}

	seen := house.Poll(t, "the use around Postern is seen", func() (string, bool) {
		r := h.CLI(t, "ada", "accounts", "warehouse")
		return r.Out, strings.Contains(r.Out, "legacy-report")
	})
	if !strings.Contains(seen, "secret warehouse") || !strings.Contains(seen, "connected now") || strings.Contains(seen, "something else") || strings.Contains(seen, "with postern") {
		t.Errorf("the accounts:\n%s", seen)
	}
	house.Eventually(t, func() string { return "the audit log tells of it" }, func() bool {
		r := h.CLI(t, "ada", "audit", "log", "--object", "resource/warehouse", "--limit", "1000", "--format", "json")
		return strings.Contains(r.Out, "account.around") && strings.Contains(r.Out, `\"program\":\"legacy-report\"`)
	})
	if r := h.CLI(t, "ada", "accounts", "warehouse", "--refused", "1h"); !strings.Contains(r.Out, "who was refused is not known: ") {
		t.Errorf("a log that cannot be read: %s", r.All())
	}

	if r := h.CLI(t, "bob", "rotate", "warehouse"); r.Code != 3 {
		t.Errorf("who may not write secrets rotates one: %+v", r)
	}
	r := h.CLI(t, "ada", "rotate", "warehouse")
	if r.Code != 0 || !strings.Contains(r.Out, "account warehouse_app of secret warehouse") || !strings.Contains(r.Out, "has the old password: warehouse_app from 127.0.0.1 with legacy-report") ||
		!strings.Contains(r.Out, "live on") || strings.Contains(r.All(), h.Password("warehouse_app")) {
		t.Fatalf("the report: %+v", r)
	}
	var refused *pgconn.PgError
	if c, err := direct(); !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("the old password: %v, %v", c, err)
	}
	if err := through.Ping(t.Context()); err != nil {
		t.Errorf("a session that was live: %v", err)
	}
	if r := h.Psql(t, "alice", "sales-report", "SELECT 40 + 2;\n"); strings.TrimSpace(r.Out) != "42" {
		t.Errorf("a new session: %+v", r)
	}
	h.Apply(t, "ada", world("end"))
	house.Eventually(t, func() string { return "rotated once more, by the account's name, sessions end" }, func() bool {
		r := h.CLI(t, "ada", "rotate", "warehouse_app")
		return r.Code == 0 && strings.Contains(r.Out, "were ended")
	})
	house.Eventually(t, func() string { return "the session has ended" }, func() bool { return through.Ping(t.Context()) != nil })
	if r := h.Psql(t, "alice", "sales-report", "SELECT 40 + 2;\n"); strings.TrimSpace(r.Out) != "42" {
		t.Errorf("a new session after the second: %+v", r)
	}
	if r := h.CLI(t, "ada", "rotate", "nothing"); r.Code != 1 || !strings.Contains(r.Err, "is the login of a resource") {
		t.Errorf("an account that is not there: %+v", r)
	}
}
