package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	controlconfig "github.com/posterngate/postern/controlplane/config"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/test/servers"
)

//go:embed sql/warehouse.sql
var warehouseSQL string

// warehouse is the sample PostgreSQL, and how Postern logs in to it.
type warehouse struct {
	pg        *servers.PG
	accounts  map[string]string // password by account, where secrets are sealed
	tokenFile string            // Vault's, where Vault lends
	vaultAddr string
	vaultCA   string
	stops     []func()
}

// The accounts that Postern uses: one for sessions, one that reads names and types.
const (
	appAccount     = "warehouse_app"
	catalogAccount = "warehouse_catalog"
)

// startWarehouse starts PostgreSQL with its data kept, fills it the first time, and
// makes the accounts.
func (h *house) startWarehouse(ctx context.Context) error {
	w := &warehouse{}
	h.warehouse = w
	pg, stop, err := servers.StartPostgres(ctx, filepath.Join(h.dir, "warehouse"), servers.PGOptions{}, h.log)
	if err != nil {
		return err
	}
	w.pg, w.stops = pg, append(w.stops, stop)
	have, err := pg.Exec(ctx, "postgres", "SELECT 1 FROM pg_database WHERE datname = 'warehouse'")
	if err != nil {
		return err
	}
	if len(have) == 0 {
		if err := w.fill(ctx); err != nil {
			return err
		}
	}
	if h.vault {
		return w.startVault(ctx, h)
	}
	return w.seal(ctx, filepath.Join(h.dir, "accounts.json"))
}

// fill makes the database. What an earlier start has left that was broken off on the way, by
// Ctrl-C say, is made anew.
func (w *warehouse) fill(ctx context.Context) error {
	for _, s := range []string{
		"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'warehouse_rw') THEN CREATE ROLE warehouse_rw NOLOGIN; END IF; END $$",
		"DROP DATABASE IF EXISTS filling WITH (FORCE)",
		"CREATE DATABASE filling",
	} {
		if _, err := w.pg.Exec(ctx, "postgres", s); err != nil {
			return err
		}
	}
	if _, err := w.pg.Exec(ctx, "filling", warehouseSQL); err != nil {
		return err
	}
	_, err := w.pg.Exec(ctx, "postgres", "ALTER DATABASE filling RENAME TO warehouse")
	return err
}

// seal makes the two accounts with passwords that are kept beside the data.
func (w *warehouse) seal(ctx context.Context, file string) error {
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		w.accounts = map[string]string{appAccount: randomPassword(), catalogAccount: randomPassword()}
		if b, err = json.Marshal(w.accounts); err != nil {
			return err
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if err := json.Unmarshal(b, &w.accounts); err != nil {
			return err
		}
	}
	_, err = w.pg.Exec(ctx, "postgres", fmt.Sprintf(`
		DO $$ BEGIN
			IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[1]s') THEN CREATE ROLE %[1]s LOGIN IN ROLE warehouse_rw; END IF;
			IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '%[2]s') THEN CREATE ROLE %[2]s LOGIN; END IF;
		END $$;
		ALTER ROLE %[1]s PASSWORD '%[3]s';
		ALTER ROLE %[1]s SET role TO warehouse_rw;
		ALTER ROLE %[2]s PASSWORD '%[4]s'`, appAccount, catalogAccount, w.accounts[appAccount], w.accounts[catalogAccount]))
	return err
}

// startVault has a real Vault make an account for each session.
func (w *warehouse) startVault(ctx context.Context, h *house) error {
	v, stop, err := servers.StartVault(ctx, filepath.Join(h.dir, "vault"), h.ports.Vault, h.log)
	if err != nil {
		return err
	}
	w.stops = append(w.stops, stop)
	const valid = `VALID UNTIL '{{expiration}}'`
	if err := v.ServePostgres(ctx, "database", w.pg, "warehouse",
		servers.VaultRole{Name: "warehouse", Statements: `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' ` + valid + ` IN ROLE warehouse_rw; ALTER ROLE "{{name}}" SET role TO warehouse_rw;`},
		servers.VaultRole{Name: "warehouse-catalog", Statements: `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' ` + valid},
	); err != nil {
		return err
	}
	token, err := v.SetUpLeases(ctx, "database/creds/warehouse", "database/creds/warehouse-catalog")
	if err != nil {
		return err
	}
	w.vaultAddr, w.vaultCA, w.tokenFile = v.Addr, v.CAFile, filepath.Join(h.dir, "vault-token")
	return os.WriteFile(w.tokenFile, []byte(token), 0o600)
}

func (w *warehouse) vaultConfig() *controlconfig.Vault {
	if w.tokenFile == "" {
		return nil
	}
	return &controlconfig.Vault{Address: w.vaultAddr, CA: w.vaultCA, TokenFile: w.tokenFile, TokenRole: servers.VaultTokenRole}
}

// secrets are the sealed logins; none where Vault lends.
func (w *warehouse) secrets() []*typesv1.Object {
	var all []*typesv1.Object
	for name, account := range map[string]string{"warehouse": appAccount, "warehouse-catalog": catalogAccount} {
		if w.accounts == nil {
			continue
		}
		o := object.Bare("secret", name)
		o.GetSecret().Spec = &typesv1.SecretSpec{Data: map[string]string{"username": account, "password": w.accounts[account]}}
		all = append(all, o)
	}
	return all
}

// expand fills in what is only known now.
func (w *warehouse) expand(text string) string {
	credential, catalog := "{sealed: warehouse}", "{sealed: warehouse-catalog}"
	if w.tokenFile != "" {
		credential, catalog = "{vault: {mount: database, role: warehouse}}", "{vault: {mount: database, role: warehouse-catalog}}"
	}
	return strings.NewReplacer(
		"${WAREHOUSE_HOST}", w.pg.Host, "${WAREHOUSE_PORT}", fmt.Sprint(w.pg.Port),
		"${WAREHOUSE_CA}", strings.ReplaceAll(string(w.pg.CAPEM), "\n", `\n`),
		"${WAREHOUSE_CREDENTIAL}", credential, "${WAREHOUSE_CATALOG}", catalog,
	).Replace(text)
}

func (w *warehouse) stop() {
	for i := len(w.stops) - 1; i >= 0; i-- {
		w.stops[i]()
	}
}
