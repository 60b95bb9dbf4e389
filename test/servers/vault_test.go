package servers

import (
	"net/http"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

func TestVaultMakesUsers(t *testing.T) {
	pg, v := Postgres(t), Vault(t)
	token, err := v.SetUpLeases(t.Context(), "db/creds/reader")
	if err != nil {
		t.Fatal(err)
	}
	err = v.ServePostgres(t.Context(), "db", pg, "postgres", VaultRole{
		Name: "reader", Statements: `create role "{{name}}" login password '{{password}}' valid until '{{expiration}}'`,
	})
	if err != nil {
		t.Fatal(err)
	}
	data := v.Must(t, http.MethodGet, "db/creds/reader", nil)["data"].(map[string]any)
	conn, err := pgconn.Connect(t.Context(), pg.DSN("postgres", data["username"].(string), data["password"].(string)))
	if err != nil {
		t.Fatalf("the user that Vault made cannot log in: %v", err)
	}
	defer conn.Close(t.Context())
	v.Token = token
	if _, err := v.Do(t.Context(), http.MethodGet, "db/creds/reader", nil); err == nil {
		t.Error("the control plane's own token reads credentials")
	}
}
