package who

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	controlconfig "github.com/posterngate/postern/controlplane/config"
	"github.com/posterngate/postern/test/e2e/house"
	"github.com/posterngate/postern/test/servers"
)

// vaulted are the warehouse under accounts whose passwords lie in Vault: in KV, and as a
// static role, whose sessions end with the password.
const vaulted = `
kind: Resource
metadata: {name: by-kv}
spec:
  protocol: postgres
  endpoint: {host: "${WAREHOUSE_HOST}", port: ${WAREHOUSE_PORT}, database: warehouse, tls: {mode: verify-full, ca: {pem: "${WAREHOUSE_CA}"}}}
  credential: {vault: {mount: kv, path: app}}
  catalog: {sealed: warehouse-catalog}
  level: {want: source, admin: {sealed: warehouse-admin}}
  pin: {search_path: [sales]}
---
kind: Resource
metadata: {name: by-role}
spec:
  protocol: postgres
  endpoint: {host: "${WAREHOUSE_HOST}", port: ${WAREHOUSE_PORT}, database: warehouse, tls: {mode: verify-full, ca: {pem: "${WAREHOUSE_CA}"}}}
  credential: {vault: {mount: db, staticRole: app}}
  catalog: {sealed: warehouse-catalog}
  level: {want: source, admin: {sealed: warehouse-admin}}
  rotatedSessions: end
  pin: {search_path: [sales]}
---
kind: Resource
metadata: {name: by-loan}
spec:
  protocol: postgres
  endpoint: {host: "${WAREHOUSE_HOST}", port: ${WAREHOUSE_PORT}, database: warehouse, tls: {mode: verify-full, ca: {pem: "${WAREHOUSE_CA}"}}}
  credential: {vault: {mount: db, role: loan}}
  catalog: {sealed: warehouse-catalog}
  pin: {search_path: [sales]}
---
kind: Task
metadata: {name: shared-loan}
spec:
  purpose: connect for each question
  resources: {names: [by-loan]}
  permit: [{table: sales.regions, verbs: [select], columns: [code]}]
  functions: {builtin: pure, allow: [pg_catalog.pg_backend_pid]}
  credential: {reuse: pool}
  duration: 1h
---
kind: Task
metadata: {name: vaulted}
spec:
  purpose: log in by what Vault keeps
  resources: {names: [by-kv, by-role]}
  permit: [{table: sales.regions, verbs: [select], columns: [code]}]
  duration: 1h
---
kind: Binding
metadata: {name: vaulted}
spec: {subjects: [{group: analysts}], tasks: [vaulted, shared-loan]}
`

// TestRotateInVault: a password that lies in Vault is replaced there and at the server; the
// old one fails, sessions live on or end as their resource says, and who still tries the
// old one is told, with address and program.
func TestRotateInVault(t *testing.T) {
	v := servers.Vault(t)
	token := house.Must(v.SetUpLeases(t.Context(), "kv/data/app", "db/static-creds/app", "db/creds/loan"))(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	h := house.Start(t, house.Options{
		Wall: true, Extra: vaulted, Target: map[string]string{"logging_collector": "on", "log_destination": "jsonlog"},
		Control: func(c *controlconfig.Config) {
			c.Vault = &controlconfig.Vault{Address: v.Addr, CA: v.CAFile, TokenFile: file}
		},
	})
	h.Target(t, `CREATE ROLE app_kv LOGIN PASSWORD 'old-of-kv' IN ROLE warehouse_rw; CREATE ROLE app_role LOGIN PASSWORD 'first' IN ROLE warehouse_rw;
		GRANT app_kv, app_role TO warehouse_admin WITH ADMIN OPTION; GRANT pg_monitor, pg_read_server_files TO warehouse_admin; GRANT EXECUTE ON FUNCTION pg_current_logfile(text), pg_stat_file(text), pg_read_binary_file(text, bigint, bigint) TO warehouse_admin`)
	v.Must(t, http.MethodPost, "sys/mounts/kv", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	house.Eventually(t, func() string { return "the KV engine is ready" }, func() bool {
		_, err := v.Do(t.Context(), http.MethodPost, "kv/data/app", map[string]any{"data": map[string]any{"username": "app_kv", "password": "old-of-kv", "note": "ours"}})
		return err == nil
	})
	if err := v.ServePostgres(t.Context(), "db", h.PG, "warehouse", servers.VaultRole{
		Name: "loan", Statements: `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE warehouse_rw`,
	}); err != nil {
		t.Fatal(err)
	}
	v.Must(t, http.MethodPost, "db/static-roles/app", map[string]any{"db_name": "warehouse", "username": "app_role", "rotation_period": "24h"})
	h.Serves(t, "warehouse", "by-kv", "by-role", "by-loan")

	direct := func(account, password string) (*pgx.Conn, error) {
		c := house.Must(pgx.ParseConfig(fmt.Sprintf("host=%s port=%d user=%s dbname=warehouse application_name=legacy-report sslmode=disable", h.PG.Host, h.PG.Port, account)))(t)
		c.TLSConfig, c.Password = h.PG.TLS(), password
		return pgx.ConnectConfig(t.Context(), c)
	}
	refused := func(what string, err error) {
		t.Helper()
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "28P01" {
			t.Errorf("%s: %v", what, err)
		}
	}
	secretOf := func(path, key string) string {
		data := v.Must(t, http.MethodGet, path, nil)["data"].(map[string]any)
		if inner, ok := data["data"].(map[string]any); ok {
			data = inner
		}
		text, _ := data[key].(string)
		return text
	}
	kv, role := h.Connect(t, "alice", "vaulted.by-kv"), h.Connect(t, "alice", "vaulted.by-role")
	for _, c := range []*pgx.Conn{kv, role} {
		if _, err := c.Exec(t.Context(), "SELECT code FROM regions"); err != nil {
			t.Fatal(err)
		}
	}
	around := house.Must(direct("app_kv", "old-of-kv"))(t)
	defer around.Close(t.Context())
	house.Poll(t, "the use around Postern is seen", func() (string, bool) {
		r := h.CLI(t, "ada", "accounts", "by-kv")
		return r.Out, strings.Contains(r.Out, "legacy-report")
	})

	if r := h.CLI(t, "ada", "rotate", "kv/app"); r.Code == 0 || !strings.Contains(r.All(), `path "kv/data/app" { capabilities = ["read", "create", "update"] }`) {
		t.Errorf("without the right to: %+v", r)
	}
	own := secretOf("sys/policies/acl/"+servers.VaultPolicy, "policy")
	v.Must(t, http.MethodPost, "sys/policies/acl/"+servers.VaultPolicy, map[string]any{"policy": own + `
		path "kv/data/app" { capabilities = ["read", "create", "update"] }
		path "db/static-roles/app" { capabilities = ["read"] }
		path "db/rotate-role/app" { capabilities = ["create", "update"] }`})

	r := h.CLI(t, "ada", "rotate", "kv/app")
	if r.Code != 0 || !strings.Contains(r.Out, "account app_kv") || !strings.Contains(r.Out, "has the old password: app_kv from 127.0.0.1 with legacy-report") || !strings.Contains(r.Out, "live on") || strings.Contains(r.All(), "old-of-kv") {
		t.Fatalf("%+v", r)
	}
	_, err := direct("app_kv", "old-of-kv")
	refused("the old password in KV", err)
	if secretOf("kv/data/app", "password") == "old-of-kv" || secretOf("kv/data/app", "note") != "ours" || secretOf("kv/data/app", "next") != "" {
		t.Errorf("KV has %v", v.Must(t, http.MethodGet, "kv/data/app", nil)["data"].(map[string]any)["metadata"])
	}
	house.Must(direct("app_kv", secretOf("kv/data/app", "password")))(t).Close(t.Context())
	if _, err := kv.Exec(t.Context(), "SELECT code FROM regions"); err != nil {
		t.Errorf("a session that was live: %v", err)
	}
	if r := h.Psql(t, "alice", "vaulted.by-kv", "SELECT count(code) FROM regions;\n"); strings.TrimSpace(r.Out) != "6" {
		t.Errorf("a new session: %+v", r)
	}
	last := ""
	house.Eventually(t, func() string { return "who tries the old one is told: " + last }, func() bool {
		last = h.CLI(t, "ada", "accounts", "by-kv", "--refused", "1h").All()
		return strings.Contains(last, "refused 1 times: app_kv from 127.0.0.1 with legacy-report")
	})

	old := secretOf("db/static-creds/app", "password")
	house.Must(direct("app_role", old))(t).Close(t.Context())
	if r := h.CLI(t, "ada", "rotate", "by-role"); r.Code != 0 || !strings.Contains(r.Out, "account app_role") || !strings.Contains(r.Out, "were ended") {
		t.Fatalf("%+v", r)
	}
	_, err = direct("app_role", old)
	refused("the old password of the static role", err)
	house.Eventually(t, func() string { return "the session has ended" }, func() bool { return role.Ping(t.Context()) != nil })
	if r := h.Psql(t, "alice", "vaulted.by-role", "SELECT count(code) FROM regions;\n"); strings.TrimSpace(r.Out) != "6" {
		t.Errorf("a new session after that: %+v", r)
	}
	t.Run("a stolen loan that sessions share ends by what blast says", func(t *testing.T) { sharedLoan(t, h) })
}
