// Package levels holds the levels of guarantee to one promise: a person sees the same
// masked values, whichever level keeps the masks.
package levels

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

const query = "SELECT id, name, email, card FROM customers WHERE id < 4 OR id = " + house.CanaryID + " ORDER BY id;\n"

// toResult applies the warehouse at level result, and waits until that holds.
func toResult(t *testing.T, h *house.House) {
	t.Helper()
	world := string(house.Must(os.ReadFile("../../../deploy/dev/world/20-warehouse.yaml"))(t))
	changed := strings.Replace(world, "level: {want: source}", "level: {want: result}", 1)
	if changed == world {
		t.Fatal("the sample warehouse no longer says its level")
	}
	h.Apply(t, "ada", changed)
	house.Eventually(t, func() string { return "level result holds" }, func() bool {
		return strings.Contains(h.Psql(t, "alice", "sales-report", "SELECT upper(email) FROM customers WHERE id = 1;\n").All(), "42501")
	})
}

// TestResultLevel masks on the way back what level source masks in the statement.
func TestResultLevel(t *testing.T) {
	h := house.Start(t, house.Options{HTTP: true, Extra: rawWorld})
	if r := h.CLI(t, "bob", "doctor", "raw-report"); !strings.Contains(r.All(), "storeRaw keeps nothing here") {
		t.Errorf("nobody is told that nothing is kept at level source: %s", r.All())
	}
	h.Target(t, "ALTER SYSTEM SET log_statement = 'all'")
	h.Target(t, "SELECT pg_reload_conf()")
	source := h.Psql(t, "alice", "sales-report", query)
	if source.Code != 0 || !strings.Contains(source.Out, "***") || strings.Contains(source.All(), house.CanaryEmail) {
		t.Fatalf("at level source: %s", source.All())
	}
	live := h.Connect(t, "alice", "sales-report")
	const prepared = "SELECT email, card FROM customers WHERE id = $1"
	read := func() (email, card string, err error) {
		err = live.QueryRow(t.Context(), prepared, 1).Scan(&email, &card)
		return email, card, err
	}
	email, card, err := read()
	if err != nil {
		t.Fatal(err)
	}

	toResult(t, h)
	result := h.Psql(t, "alice", "sales-report", query)
	if result.All() != source.All() {
		t.Fatalf("at level result:\n%s\nat level source:\n%s", result.All(), source.All())
	}
	// What was prepared is not what would be sent now; the driver prepares it again.
	var stale *pgconn.PgError
	if _, _, err := read(); !errors.As(err, &stale) || stale.Code != "0A000" {
		t.Fatalf("a statement that was prepared at another level: %v", err)
	}
	if e, c, err := read(); e != email || c != card || err != nil {
		t.Fatalf("a session of before shows %q, %q (%v), and before %q, %q", e, c, err, email, card)
	}
	refused := h.Psql(t, "alice", "sales-report", "SELECT lower(email) FROM customers;\nSELECT count(*) FROM customers WHERE email LIKE 'a%';\nSELECT * FROM customers;\nCOPY customers (id, email) TO STDOUT;\n")
	if n := strings.Count(refused.All(), "42501"); n != 4 {
		t.Fatalf("%d of 4 were refused:\n%s", n, refused.All())
	}

	shown := house.Poll(t, "the recording at level result has its rows", func() (string, bool) {
		var sessions []struct{ ID string }
		r := h.CLI(t, "bob", "sessions", "list", "--task", "sales-report", "--format", "json", "--since", "1h")
		if err := json.Unmarshal([]byte(r.Out), &sessions); err != nil {
			t.Fatalf("%v\n%s", err, r.All())
		}
		for _, s := range sessions[:min(len(sessions), 4)] { // the newest
			shown := h.CLI(t, "bob", "sessions", "replay", s.ID).All()
			if strings.Contains(shown, "level L1") && strings.Contains(shown, "Canary") {
				return shown, true
			}
		}
		return "", false
	})
	if !strings.Contains(shown, "email*") || !strings.Contains(shown, "***") {
		t.Errorf("the record does not say what was masked:\n%s", shown)
	}
	if strings.Contains(shown, house.CanaryEmail) || strings.Contains(shown, house.CanaryCard) {
		t.Fatalf("the record has what was masked:\n%s", shown)
	}
	if log := h.PG.Log(); !strings.Contains(log, strings.TrimSuffix(strings.TrimSpace(query), ";")) || strings.Contains(log, "lower(email)") {
		t.Fatal("the target got something else than the person's own text")
	}
	raw(t, h)
}
