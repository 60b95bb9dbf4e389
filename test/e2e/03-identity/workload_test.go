package identity

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/e2e/house"
)

// TestWorkload: automation shows its own token, takes one task, and loads its rows.
func TestWorkload(t *testing.T) {
	h := house.Start(t)
	p := h.Person(t) // nobody signs in here
	file := filepath.Join(p.Home, "token")
	if err := os.WriteFile(file, []byte(h.DataToken(t, "nightly")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const load = "INSERT INTO sales.orders (id, customer_id, customer_email, amount, status, created_at) VALUES (800001, 1, 'x@example.com', 5, 'open', now());"

	token := strings.TrimSpace(ok(t, p.Run(t, "", "grant", "nightly-load", "--token-file", file)).Out)
	if !strings.HasPrefix(token, "pst_") || len(token) > 120 {
		t.Errorf("the grant token is %q", token)
	}
	if r := h.PsqlWith(t, token, "nightly-load", load); r.Out != "INSERT 0 1\n" {
		t.Fatalf("%+v", r)
	}
	if got := h.Target(t, "SELECT status FROM sales.orders WHERE id = 800001"); len(got) != 1 || got[0][0] != "open" {
		t.Errorf("%v", got)
	}
	for _, c := range []struct{ what, token, task, script, says string }{
		{"its task does not read emails", token, "nightly-load", "SELECT customer_email FROM sales.orders;", "42501"},
		{"its task does not delete", token, "nightly-load", "DELETE FROM sales.orders;", "42501"},
		{"a grant token is for one task", token, "audit-writer", "SELECT 1;", `this grant token is for task "nightly-load", not for "audit-writer"`},
		{"even if the workload may take the other", h.DataToken(t, "nightly"), "sales-report", "SELECT 1;", `sales-report`},
		{"a person may not take it", h.DataToken(t, "alice"), "nightly-load", "SELECT 1;", `nightly-load`},
	} {
		r := h.PsqlWith(t, c.token, c.task, c.script)
		if !strings.Contains(r.Err, c.says) || strings.Contains(r.Out, "@") {
			t.Errorf("%s: %+v", c.what, r)
		}
	}
	t.Run("formats", func(t *testing.T) {
		r := ok(t, p.Run(t, "", "grant", "nightly-load", "--token-file", file, "--format", "env"))
		house.Has(t, r.Out, "export PGUSER='nightly-load.warehouse'", "export PGPASSWORD='pst_")
		r = ok(t, p.Run(t, "", "grant", "nightly-load", "--token-file", file, "--format", "pgpass"))
		house.Has(t, r.Out, ":*:nightly-load.warehouse:pst_")
		var cred struct {
			Kind   string
			Status struct {
				Token               string
				ExpirationTimestamp time.Time
			}
		}
		r = ok(t, p.Run(t, "", "grant", "nightly-load", "--ttl", "5m", "--token-file", file, "--format", "exec-credential"))
		if err := json.Unmarshal([]byte(r.Out), &cred); err != nil || cred.Kind != "ExecCredential" || time.Until(cred.Status.ExpirationTimestamp) > 5*time.Minute+time.Second {
			t.Errorf("%v: %s", err, r.Out)
		}
		r = ok(t, p.Run(t, "", "grant", "nightly-load", "--token-file", file, "--format", "json"))
		var js struct{ Grant struct{ Task string } }
		if err := json.Unmarshal([]byte(r.Out), &js); err != nil || js.Grant.Task != "nightly-load" {
			t.Errorf("%v: %s", err, r.Out)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		if r := p.Run(t, "", "grant", "sales-report", "--token-file", file); r.Code == 0 || r.Out != "" {
			t.Errorf("a task that is not its own: %+v", r)
		}
		if r := p.Run(t, "", "grant", "nightly-load", "--token-file", filepath.Join(p.Home, "none")); r.Code == 0 || !strings.Contains(r.Err, "none") {
			t.Errorf("a file that is not there: %+v", r)
		}
		if err := os.WriteFile(file, []byte(h.DataToken(t, "alice")), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := p.Run(t, "", "grant", "nightly-load", "--token-file", file); r.Code != 3 || r.Out != "" {
			t.Errorf("a person's token: %+v", r)
		}
	})
	t.Run("what has ended", func(t *testing.T) {
		house.Has(t, ok(t, h.CLI(t, "ada", "lock", "--workload", "nightly", "--reason", "incident")).Out, "lock-")
		house.Eventually(t, func() string { return "the workload is kept out" }, func() bool {
			return strings.Contains(h.PsqlWith(t, token, "nightly-load", "SELECT 1;").Err, "incident")
		})
		if r := h.PsqlWith(t, h.DataToken(t, "nightly"), "nightly-load", "SELECT 1;"); !strings.Contains(r.Err, "incident") {
			t.Errorf("%+v", r)
		}
	})
}

// TestClearErrors: who comes in the wrong way is told what is wrong and what to do.
func TestClearErrors(t *testing.T) {
	h := house.Start(t)
	alice := h.DataToken(t, "alice")
	for _, c := range []struct {
		what, token, task string
		says              []string
	}{
		{"the API's token", h.APIToken(t, "alice"), "sales-report", []string{"wrong audience", "postern token"}},
		{"no token", "", "sales-report", nil},
		{"a password", "alice", "sales-report", []string{"postern token"}},
		{"a task that does not exist", alice, "sales-repotr", []string{"sales-repotr", "your tasks: "}},
		{"somebody else's task", h.DataToken(t, "carol"), "purge-order", []string{"purge-order"}},
		{"the admin has no task", h.DataToken(t, "ada"), "sales-report", []string{"sales-report"}},
		{"no name of a task", alice, "Sales Report", nil},
	} {
		r := h.PsqlWith(t, c.token, strings.ReplaceAll(c.task, " ", "-"), "SELECT 1;")
		if r.Code != 2 || r.Out != "" {
			t.Errorf("%s: %+v", c.what, r)
		}
		for _, s := range c.says {
			if !strings.Contains(r.Err, s) {
				t.Errorf("%s is not told %q:\n%s", c.what, s, r.Err)
			}
		}
		if c.token != "" && strings.Contains(r.Err, c.token) && c.token != "alice" {
			t.Errorf("%s: the token is shown", c.what)
		}
	}
}
