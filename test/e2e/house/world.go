package house

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/test/servers"
)

// Sizes of the small company.
const (
	Customers = 120
	Orders    = 400
)

// Canary values stand in the target where a mask, or the lack of a permission, must
// keep them. None of them may ever reach a client.
const (
	CanaryEmail  = "canary@leak.example"
	CanaryCard   = "4929000011112222"
	CanaryPhone  = "+49 30 canary"
	CanaryNote   = "canary note"
	CanarySalary = "7654321"
	// CanaryID is the customer, and the order, that carry them.
	CanaryID = "900001"
)

// Canaries are all of them.
var Canaries = []string{CanaryEmail, CanaryCard, CanaryPhone, CanaryNote, CanarySalary}

const accounts = "warehouse_app warehouse_catalog warehouse_admin"

// root is the folder of go.mod.
func root(t testing.TB) string {
	t.Helper()
	dir := Must(os.Getwd())(t)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("not in a checkout of postern")
		}
		dir = up
	}
}

// smaller makes the sample company's SQL fill fewer rows.
func smaller(t testing.TB, text string) string {
	t.Helper()
	for _, r := range [][2]string{
		{"generate_series(1, 10000)", fmt.Sprintf("generate_series(1, %d)", Customers)},
		{"generate_series(1, 200000)", fmt.Sprintf("generate_series(1, %d)", Orders)},
		{"(i::bigint * 31) % 10000", fmt.Sprintf("(i::bigint * 31) %% %d", Customers)},
	} {
		if !strings.Contains(text, r[0]) {
			t.Fatalf("deploy/dev/sql/warehouse.sql no longer says %q", r[0])
		}
		text = strings.Replace(text, r[0], r[1], 1)
	}
	return text + fmt.Sprintf(`
		INSERT INTO sales.customers VALUES (%[1]s, 'Canary', '%[2]s', '%[3]s', '%[4]s', 'DE', now());
		INSERT INTO sales.orders VALUES (%[1]s, %[1]s, '%[2]s', 1.00, 'open', '%[5]s', now());
		INSERT INTO hr.salaries VALUES ('canary', %[6]s);
		ANALYZE`, CanaryID, CanaryEmail, CanaryPhone, CanaryCard, CanaryNote, CanarySalary)
}

func (h *House) startTarget(t testing.TB, settings map[string]string) {
	pg := servers.Postgres(t, servers.PGOptions{Settings: settings})
	sql := smaller(t, string(Must(os.ReadFile(filepath.Join(root(t), "deploy/dev/sql/warehouse.sql")))(t)))
	h.accounts = map[string]string{}
	roles := "CREATE ROLE warehouse_rw NOLOGIN;"
	for _, name := range strings.Fields(accounts) {
		h.accounts[name] = rand.Text()
		roles += fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s';", name, h.accounts[name])
	}
	pg.SQL(t, roles+"GRANT warehouse_rw TO warehouse_app; ALTER ROLE warehouse_app SET role TO warehouse_rw")
	pg.SQL(t, "CREATE DATABASE warehouse STRATEGY file_copy")
	pg.SQLIn(t, "warehouse", sql)
	// What a wall works as: no superuser, and the owner of all there is.
	pg.SQLIn(t, "warehouse", `ALTER ROLE warehouse_admin CREATEROLE; GRANT CREATE ON DATABASE warehouse TO warehouse_admin;
		GRANT warehouse_rw TO warehouse_admin; GRANT pg_signal_backend, pg_read_all_settings TO warehouse_admin;
		ALTER SCHEMA sales OWNER TO warehouse_admin; ALTER SCHEMA hr OWNER TO warehouse_admin; ALTER SCHEMA audit OWNER TO warehouse_admin;
		GRANT ALL ON SCHEMA sales TO warehouse_rw; ALTER TABLE audit.log OWNER TO warehouse_admin; ALTER TABLE hr.salaries OWNER TO warehouse_admin`)
	h.PG = pg
}

// Target runs SQL in the warehouse as its superuser, past Postern.
func (h *House) Target(t testing.TB, sql string) [][]string {
	t.Helper()
	return h.PG.SQLIn(t, "warehouse", sql)
}

// expand fills in what is only known now.
func (h *House) expand(text string) string {
	if h.PG == nil {
		return strings.ReplaceAll(text, "${ISSUER}", h.Issuer)
	}
	return strings.NewReplacer(
		"${ISSUER}", h.Issuer,
		"${WAREHOUSE_HOST}", h.PG.Host, "${WAREHOUSE_PORT}", fmt.Sprint(h.PG.Port),
		"${WAREHOUSE_CA}", strings.ReplaceAll(string(h.PG.CAPEM), "\n", `\n`),
		"${WAREHOUSE_CREDENTIAL}", "{sealed: warehouse}", "${WAREHOUSE_CATALOG}", "{sealed: warehouse-catalog}",
	).Replace(text)
}

// applyWorld applies the sample company through the public API, as ada.
func (h *House) applyWorld(t testing.TB) {
	t.Helper()
	req := &apiv1.ApplyRequest{}
	for secret, account := range map[string]string{"warehouse": "warehouse_app", "warehouse-catalog": "warehouse_catalog", "warehouse-admin": "warehouse_admin"} {
		o := object.Bare("secret", secret)
		o.GetSecret().Spec = &typesv1.SecretSpec{Data: map[string]string{"username": account, "password": h.accounts[account]}}
		req.Objects = append(req.Objects, o)
	}
	files := Must(filepath.Glob(filepath.Join(root(t), "deploy/dev/world/*.yaml")))(t)
	slices.Sort(files)
	if len(files) == 0 {
		t.Fatal("deploy/dev/world is empty")
	}
	for _, f := range files {
		if filepath.Base(f) == webWorld {
			continue // applied by applyWeb
		}
		if filepath.Base(f) == ordersWorld {
			if h.Orders != nil {
				req.Objects = append(req.Objects, h.ordersObjects(t, string(Must(os.ReadFile(f))(t)))...)
			}
			continue
		}
		req.Objects = append(req.Objects, h.Objects(t, string(Must(os.ReadFile(f))(t)))...)
	}
	Must(h.API("ada").Policy.Apply(t.Context(), Request(req)))(t)
}

// Objects reads YAML in which ${ISSUER} and the like are filled in.
func (h *House) Objects(t testing.TB, yaml string) []*typesv1.Object {
	t.Helper()
	return Must(object.ParseYAML(bytes.NewReader([]byte(h.expandOrders(h.expandWeb(h.expand(yaml)))))))(t)
}

// Apply applies YAML as a person.
func (h *House) Apply(t testing.TB, who, yaml string) {
	t.Helper()
	Must(h.API(who).Policy.Apply(t.Context(), Request(&apiv1.ApplyRequest{Objects: h.Objects(t, yaml)})))(t)
}

// Delete takes an object away as ada.
func (h *House) Delete(t testing.TB, kind, name string) {
	t.Helper()
	Must(h.API("ada").Policy.Delete(t.Context(), Request(&apiv1.DeleteRequest{Kind: kind, Name: name})))(t)
}

// Has ends the test unless a text has all of the parts.
func Has(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Fatalf("%q is missing in:\n%s", p, text)
		}
	}
}

// Leaks lists the canaries in a text.
func Leaks(text string) []string {
	return slices.DeleteFunc(slices.Clone(Canaries), func(c string) bool { return !strings.Contains(text, c) })
}

// Password is that of an account of the target, as it was made.
func (h *House) Password(account string) string { return h.accounts[account] }
