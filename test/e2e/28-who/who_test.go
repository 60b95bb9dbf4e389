// Package who holds what policy says of itself to what the house does: who may do what,
// what a change would do, and the tests that are kept beside the tasks.
package who

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

const sampleCases = "../../../deploy/dev/world/tests"

// TestPolicyAnswers asks one house about its policy.
func TestPolicyAnswers(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true, HTTP: true})
	t.Run("who-can", func(t *testing.T) { whoCan(t, h) })
	t.Run("cases", func(t *testing.T) { casesRun(t, h) })
	t.Run("diff", func(t *testing.T) { diff(t, h) })
}

func whoCan(t *testing.T, h *house.House) {
	ask := func(who string, args ...string) house.Result {
		return h.CLI(t, who, append([]string{"who-can"}, args...)...)
	}
	email := ask("ada", "select", "warehouse:sales.customers.email")
	if email.Code != 0 {
		t.Fatal(email.All())
	}
	for _, want := range []string{"group analysts, group leads", "group contractors", "sales-report/permit[1]", `masked by email (shown as "***")`} {
		if !strings.Contains(email.Out, want) {
			t.Errorf("%q is missing:\n%s", want, email.Out)
		}
	}
	if r := ask("ada", "select", "warehouse:sales.customers.phone"); strings.TrimSpace(r.Out) != "nobody" {
		t.Errorf("a column that no task has: %s", r.All())
	}
	// Who is not listed is refused, and who is listed gets it.
	if r := h.Psql(t, "carol", "sales-report", "SELECT phone FROM customers LIMIT 1;\n"); !strings.Contains(r.All(), "42501") {
		t.Errorf("nobody was listed, and carol got: %s", r.All())
	}
	if r := h.Psql(t, "carol", "sales-report", "SELECT email FROM customers LIMIT 1;\n"); !strings.Contains(r.Out, "***") {
		t.Errorf("contractors were listed, and carol got: %s", r.All())
	}
	var answer struct {
		Access []struct{ Holders, Subjects []string }
	}
	if err := json.Unmarshal([]byte(ask("ada", "select", "warehouse:sales.customers.email", "--format", "json").Out), &answer); err != nil {
		t.Fatal(err)
	}
	holds := ""
	for _, a := range answer.Access {
		holds += strings.Join(a.Subjects, ",") + "=" + strings.Join(a.Holders, ",") + ";"
	}
	if !strings.Contains(holds, "group contractors=carol;") {
		t.Errorf("carol has the task now, and the answer says: %s", holds)
	}
	if r := ask("ada", "exec", "web-1:uptime"); !strings.Contains(r.Out, "web-status/permit[0]") {
		t.Errorf("a command on a host: %s", r.All())
	}
	if r := ask("ada", "select", "warehouse:customers"); r.Code != 1 || !strings.Contains(r.All(), "schema.table") {
		t.Errorf("a mistake: %d %s", r.Code, r.All())
	}
	if r := ask("carol", "select", "warehouse:sales.customers.email"); r.Code != 3 {
		t.Errorf("carol may read policy: %d %s", r.Code, r.All())
	}
	// An operator of sales is told of what is sales's, and of nothing else.
	if r := ask("bob", "exec", "web-1:uptime"); r.Code != 1 || !strings.Contains(r.All(), "there is no resource") {
		t.Errorf("a host of another team: %d %s", r.Code, r.All())
	}
}

func casesRun(t *testing.T, h *house.House) {
	files := house.Must(filepath.Abs(sampleCases))(t)
	if r := h.CLI(t, "ada", "policy", "test", files); r.Code != 0 {
		t.Errorf("the sample company's own cases: %s", r.All())
	}
	// The same from files alone, where nobody is asked.
	var texts []string
	for _, kind := range []string{"resource", "task", "binding", "mask", "approvalrule", "workload"} {
		texts = append(texts, h.CLI(t, "ada", "get", kind, "--format", "yaml").Out)
	}
	dir := t.TempDir()
	all := filepath.Join(dir, "all.yaml")
	if err := os.WriteFile(all, []byte(strings.Join(texts, "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	alone := h.Person(t)
	alone.Env = []string{"POSTERN_ADDR=https://127.0.0.1:1"}
	if r := alone.Run(t, "", "policy", "test", "-f", all, "--without-statements", files); r.Code != 0 || !strings.Contains(r.Out, "24 of 24") {
		t.Errorf("from files alone: %d %s", r.Code, r.All())
	}
	if r := alone.Run(t, "", "policy", "test", "-f", all, files); r.Code != 1 || !strings.Contains(r.Out, "not run: ") {
		t.Errorf("statements that nobody can judge: %d %s", r.Code, r.All())
	}
	wrong := filepath.Join(dir, "wrong.yaml")
	text := "cases:\n- name: wishful\n  subject: {name: carol, groups: [contractors]}\n  can: delete warehouse:sales.orders\n  want: {verdict: allow}\n"
	if err := os.WriteFile(wrong, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.CLI(t, "ada", "policy", "test", wrong); r.Code != 1 || !strings.Contains(r.Out, `verdict is "deny", want "allow"`) {
		t.Errorf("a case that fails: %d %s", r.Code, r.All())
	}
}

const wider = `
kind: Binding
metadata: {name: contractors-report, labels: {team: sales}}
spec: {subjects: [{group: contractors}], tasks: [sales-report, purge-order]}
---
kind: Mask
metadata: {name: email}
spec: {method: redact, value: "hidden"}
`

func diff(t *testing.T, h *house.House) {
	file := filepath.Join(t.TempDir(), "wider.yaml")
	if err := os.WriteFile(file, []byte(wider), 0o600); err != nil {
		t.Fatal(err)
	}
	r := h.CLI(t, "ada", "policy", "diff", "-f", file)
	for _, want := range []string{
		"+ group contractors: delete sales.orders on warehouse by purge-order\n    now: with a WHERE clause; at most 1 rows changed; 1 of leads must approve each statement\n",
		"+ group contractors: select sales.orders (id, status) on warehouse by purge-order\n",
		"~ group analysts: select sales.customers (email) on warehouse by sales-report\n    was: masked by email (shown as \"***\")\n    now: masked by email (shown as \"hidden\")\n",
	} {
		if !strings.Contains(r.Out, want) {
			t.Errorf("missing %q in:\n%s", want, r.All())
		}
	}
	if strings.Contains(r.Out, "- ") || strings.Contains(r.Out, "nightly") {
		t.Errorf("nothing is taken away, and nobody else is concerned:\n%s", r.Out)
	}
	// Nothing was written.
	if r := h.Psql(t, "carol", "purge-order", "SELECT id FROM orders LIMIT 1;\n"); r.Code == 0 {
		t.Errorf("comparing gave carol the task: %s", r.All())
	}
	if r := h.CLI(t, "ada", "policy", "diff", "--remove", "binding/nightly"); r.Code != 0 || !strings.Contains(r.Out, "- workload nightly: insert audit.log (action, actor, detail) on warehouse by audit-writer") {
		t.Errorf("a binding that goes: %s", r.All())
	}
	same := filepath.Join(t.TempDir(), "same.yaml")
	if err := os.WriteFile(same, []byte(h.CLI(t, "ada", "get", "task", "sales-report", "--format", "yaml").Out), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.CLI(t, "ada", "policy", "diff", "-f", same); !strings.Contains(r.Out, "nobody may do more, less, or on other terms") {
		t.Errorf("the policy that is in force: %s", r.All())
	}
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	if err := os.WriteFile(broken, []byte("kind: Mask\nmetadata: {name: email}\nspec: {method: guess}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := h.CLI(t, "ada", "policy", "diff", "-f", broken); r.Code != 1 || !strings.Contains(r.Out, "! mask/email does not compile") || !strings.Contains(r.Out, "- group analysts") {
		t.Errorf("a mask that does not compile: %d %s", r.Code, r.All())
	}
}
