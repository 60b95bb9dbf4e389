package fleet

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/servers"
)

// PasswordLetters are all that the passwords of users that Vault makes consist of, and
// PasswordLength how long they are: so that a password can be recognised anywhere
// without having been seen.
const (
	PasswordLetters = "QZ"
	PasswordLength  = 64
)

// startWarehouse starts PostgreSQL and fills it with the sample company's data.
func (f *Fleet) startWarehouse(ctx context.Context, t testing.TB, log func(string)) error {
	root, err := servers.ModuleRoot()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(root, "deploy/dev/sql/warehouse.sql"))
	if err != nil {
		return err
	}
	pg, stop, err := servers.StartPostgres(ctx, filepath.Join(f.Dir, "warehouse"), f.opts.Postgres, log)
	if err != nil {
		return err
	}
	t.Cleanup(stop)
	f.PG = pg
	if _, err := pg.Exec(ctx, "postgres", "CREATE ROLE warehouse_rw NOLOGIN"); err != nil {
		return err
	}
	if _, err := pg.Exec(ctx, "postgres", "CREATE DATABASE warehouse"); err != nil {
		return err
	}
	_, err = pg.Exec(ctx, "warehouse", string(text))
	return err
}

func (f *Fleet) startVault(ctx context.Context, t testing.TB, log func(string)) error {
	v, stop, err := servers.StartVault(ctx, filepath.Join(f.Dir, "vault"), 0, log)
	if err != nil {
		return err
	}
	t.Cleanup(stop)
	f.Vault = v
	return nil
}

// The accounts of deploy/dev, and one whose password lies in Vault's KV.
const (
	AppAccount     = "warehouse_app"
	CatalogAccount = "warehouse_catalog"
	KVAccount      = "warehouse_kv"
)

// Password is that of an account with a password of its own.
func (f *Fleet) Password(account string) string { return f.accounts[account] }

// setUpAccounts makes the logins that Postern lends, and Vault's part in them.
func (f *Fleet) setUpAccounts(ctx context.Context) error {
	f.accounts = map[string]string{}
	for _, a := range []string{AppAccount, CatalogAccount, KVAccount} {
		f.accounts[a] = "canary-" + rand.Text()
		text := fmt.Sprintf("CREATE ROLE %[1]s LOGIN PASSWORD '%[2]s'", a, f.accounts[a])
		if a != CatalogAccount {
			text += fmt.Sprintf("; GRANT warehouse_rw TO %[1]s; ALTER ROLE %[1]s SET role TO warehouse_rw", a)
		}
		if _, err := f.PG.Exec(ctx, "postgres", text); err != nil {
			return err
		}
	}
	if f.Vault == nil {
		return nil
	}
	const valid = `VALID UNTIL '{{expiration}}'`
	if err := f.Vault.ServePostgres(ctx, "database", f.PG, "warehouse",
		servers.VaultRole{Name: "warehouse", Statements: `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' ` + valid + ` IN ROLE warehouse_rw; ALTER ROLE "{{name}}" SET role TO warehouse_rw;`},
		servers.VaultRole{Name: "warehouse-catalog", Statements: `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' ` + valid},
	); err != nil {
		return err
	}
	for path, body := range map[string]map[string]any{
		"sys/policies/password/canary": {"policy": fmt.Sprintf("length = %d\nrule \"charset\" { charset = %q }\n", PasswordLength, PasswordLetters)},
		"secret/data/warehouse":        {"data": map[string]any{"username": KVAccount, "password": f.accounts[KVAccount]}},
	} {
		if _, err := f.Vault.Do(ctx, http.MethodPost, path, body); err != nil {
			return err
		}
	}
	if _, err := f.Vault.Do(ctx, http.MethodPost, "database/config/warehouse", map[string]any{
		"plugin_name": "postgresql-database-plugin", "password_policy": "canary",
	}); err != nil {
		return err
	}
	var err error
	f.vaultToken, err = f.Vault.SetUpLeases(ctx, "database/creds/warehouse", "database/creds/warehouse-catalog", "secret/data/warehouse")
	return err
}

// SessionUsers are those of sessions, without those that read the catalogue.
func (f *Fleet) SessionUsers(t testing.TB) []string {
	t.Helper()
	return f.users(t, `SELECT m.rolname FROM pg_auth_members a JOIN pg_roles r ON r.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
		WHERE r.rolname = 'warehouse_rw' AND m.rolname LIKE 'v-%' ORDER BY 1`)
}

func (f *Fleet) users(t testing.TB, sql string) (users []string) {
	t.Helper()
	for _, r := range f.PG.SQL(t, sql) {
		users = append(users, r[0])
	}
	return users
}

// VaultLeases counts the leases of sessions that Vault knows of.
func (f *Fleet) VaultLeases(t testing.TB) int {
	t.Helper()
	out, err := f.Vault.Do(context.Background(), "LIST", "sys/leases/lookup/database/creds/warehouse", nil)
	if err != nil && strings.Contains(err.Error(), "404") {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	data, _ := out["data"].(map[string]any)
	keys, _ := data["keys"].([]any)
	return len(keys)
}

// worldFile is the sample company of deploy/dev with its places filled in.
func (f *Fleet) worldFile(t testing.TB) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Root(t), "deploy/dev/world/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no sample company: %v", err)
	}
	slices.Sort(files)
	var all []string
	for name, account := range map[string]string{"warehouse": AppAccount, "warehouse-catalog": CatalogAccount} {
		all = append(all, fmt.Sprintf("apiVersion: postern/v1\nkind: Secret\nmetadata: {name: %s}\nspec: {data: {username: %s, password: %s}}\n", name, account, f.accounts[account]))
	}
	for _, file := range files {
		if base := filepath.Base(file); base == "50-web.yaml" || base == "60-orders.yaml" {
			continue // there is no host in this fleet
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(b))
	}
	if f.opts.World != "" {
		all = append(all, f.opts.World)
	}
	return f.File(t, "world.yaml", f.Expand(strings.Join(all, "\n---\n")))
}

// Expand fills in what the sample company's files leave open.
func (f *Fleet) Expand(text string) string {
	credential, catalog := "{sealed: warehouse}", "{sealed: warehouse-catalog}"
	if f.Vault != nil {
		credential, catalog = "{vault: {mount: database, role: warehouse}}", "{vault: {mount: database, role: warehouse-catalog}}"
	}
	return strings.NewReplacer(
		"${WAREHOUSE_HOST}", f.PG.Host, "${WAREHOUSE_PORT}", fmt.Sprint(f.PG.Port),
		"${WAREHOUSE_CA}", strings.ReplaceAll(string(f.PG.CAPEM), "\n", `\n`),
		"${WAREHOUSE_CREDENTIAL}", credential, "${WAREHOUSE_CATALOG}", catalog,
		"${ISSUER}", f.Issuer,
	).Replace(text)
}
