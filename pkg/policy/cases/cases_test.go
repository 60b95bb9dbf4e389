package cases

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
)

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

const world = `
kind: Resource
metadata: {name: db}
spec:
  protocol: postgres
  endpoint: {host: 127.0.0.1, port: 5432, database: app, tls: {mode: disable}}
  credential: {sealed: db}
---
kind: Mask
metadata: {name: email}
spec: {method: redact, value: "***"}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}]}
---
kind: Task
metadata: {name: report}
spec:
  purpose: figures
  resources: {names: [db]}
  permit: [{table: app.people, verbs: [select], columns: [id, email], mask: {email: email}}]
  duration: 1h
---
kind: Task
metadata: {name: fix}
spec:
  purpose: mend
  resources: {names: [db]}
  permit: [{table: app.people, verbs: [update, delete], columns: [id], writeColumns: [email], requireWhere: true}]
  duration: 1h
---
kind: Binding
metadata: {name: all}
spec: {subjects: [{group: staff}], tasks: [report], when: 'request.time.getHours() < 18'}
---
kind: Binding
metadata: {name: desk}
spec: {subjects: [{group: desk}], tasks: [report], when: 'request.ticket != "" && request.region == "eu-1"'}
---
kind: Binding
metadata: {name: menders}
spec: {subjects: [{group: menders}], tasks: [report, fix], approval: {scope: grant, rule: leads}}
`

func compiled(t testing.TB) *policy.Snapshot {
	t.Helper()
	s := policytest.Compile(t, world)
	return s
}

func TestCases(t *testing.T) {
	s := compiled(t)
	for name, c := range map[string]struct {
		text string
		want string // the ways in which it differs
	}{
		"masked":                {"subject: {name: a, groups: [staff]}\n  can: select db:app.people.email\n  want: {verdict: allow, mask: email, rule: 'report/permit[0]'}", ""},
		"not masked":            {"subject: {name: a, groups: [staff]}\n  can: select db:app.people.id\n  want: {verdict: allow, mask: none}", ""},
		"another mask":          {"subject: {name: a, groups: [staff]}\n  can: select db:app.people.id\n  want: {verdict: allow, mask: email}", `mask is "none", want "email"`},
		"another verdict":       {"subject: {name: a, groups: [staff]}\n  can: select db:app.people.note\n  want: {verdict: allow}", `verdict is "deny", want "allow"`},
		"nobody":                {"subject: {name: a}\n  can: select db:app.people.id\n  want: {verdict: deny, reason: no binding}", ""},
		"too late":              {"subject: {name: a, groups: [staff]}\n  at: 2026-11-25T19:00:00Z\n  can: select db:app.people.id\n  want: {verdict: deny}", ""},
		"without a ticket":      {"subject: {name: a, groups: [desk]}\n  region: eu-1\n  can: select db:app.people.id\n  want: {verdict: deny}", ""},
		"for a ticket":          {"subject: {name: a, groups: [desk]}\n  region: eu-1\n  reason: 'OPS-7: a look'\n  can: select db:app.people.id\n  want: {verdict: allow}", ""},
		"a named task":          {"subject: {name: a, groups: [staff]}\n  task: fix\n  can: delete db:app.people\n  want: {verdict: deny, rule: fix}", ""},
		"people for the grant":  {"subject: {name: m, groups: [menders]}\n  can: update db:app.people.email\n  want: {verdict: hold, approval: leads, rule: menders}", ""},
		"denied in any case":    {"subject: {name: m, groups: [menders]}\n  can: update db:app.people.id\n  want: {verdict: deny}", ""},
		"the task that allows":  {"subject: {name: b, groups: [staff, menders]}\n  can: select db:app.people.id\n  want: {verdict: allow, rule: 'report/permit[0]'}", ""},
		"no such resource":      {"subject: {name: a}\n  can: select x:app.people\n  want: {verdict: deny}", `error: there is no resource "x" that compiles`},
		"a statement":           {"subject: {name: a, groups: [staff]}\n  task: report\n  statement: SELECT 1\n  want: {verdict: allow}", "error: " + ErrNotRun.Error()},
		"a statement, no offer": {"subject: {name: a}\n  task: report\n  statement: SELECT 1\n  want: {verdict: deny}", ""},
	} {
		f, err := Parse([]byte("cases:\n- " + c.text + "\n"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, differs, err := f.Cases[0].Run(t.Context(), s, noon, nil)
		got := strings.Join(differs, "; ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestStatementsAreAsked(t *testing.T) {
	f, err := Parse([]byte("cases:\n- subject: {name: m, groups: [menders]}\n  task: report\n  statement: SELECT email FROM app.people\n  want: {verdict: hold, approval: leads, masked: {app.people.email: email}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	asked := ""
	_, differs, err := f.Cases[0].Run(t.Context(), compiled(t), noon, func(_ context.Context, c *Case, task postern.TaskName, r postern.ResourceName) (Outcome, error) {
		asked = string(task) + "." + string(r) + " " + c.Statement
		return Outcome{Verdict: "allow", Masked: map[string]string{"app.people.email": "email"}}, nil
	})
	if err != nil || len(differs) > 0 || asked != "report.db SELECT email FROM app.people" {
		t.Errorf("%v %q %q", err, differs, asked)
	}
	lost := errors.New("lost")
	if _, _, err := f.Cases[0].Run(t.Context(), compiled(t), noon, func(context.Context, *Case, postern.TaskName, postern.ResourceName) (Outcome, error) {
		return Outcome{}, lost
	}); !errors.Is(err, lost) {
		t.Errorf("an answer that is lost: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":         "",
		"no subject":      "cases: [{can: select a:b.c, want: {verdict: deny}}]",
		"both":            "cases: [{subject: {name: a}, can: x, statement: y, task: t, want: {verdict: deny}}]",
		"neither":         "cases: [{subject: {name: a}, want: {verdict: deny}}]",
		"no verdict":      "cases: [{subject: {name: a}, can: x}]",
		"another verdict": "cases: [{subject: {name: a}, can: x, want: {verdict: perhaps}}]",
		"unknown keys":    "cases: [{subject: {name: a}, can: x, wants: {verdict: deny}}]",
		"no task":         "cases: [{subject: {name: a}, statement: x, want: {verdict: deny}}]",
		"too long":        "# " + strings.Repeat("x", MaxBytes),
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	_, err := Parse([]byte("cases:\n- {subject: {name: a}, can: x, want: {verdict: deny}}\n- {name: b, subjct: {name: a}, can: x, want: {verdict: deny}}\n"))
	if err == nil || !strings.Contains(err.Error(), "case 2 (b): ") || !strings.Contains(err.Error(), `"subjct"`) {
		t.Errorf("of a key that there is not it says %v", err)
	}
}

// TestSampleCompany: the files beside the sample company's tasks can be read.
func TestSampleCompany(t *testing.T) {
	for _, name := range []string{"sales", "web", "orders"} {
		text, err := os.ReadFile("../../../deploy/dev/world/tests/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("cases:\n- subject: {name: a, groups: [staff]}\n  can: select db:app.people.email\n  want: {verdict: allow}\n"))
	f.Add([]byte("cases:\n- subject: {name: m, groups: [menders], claims: {x: [1, {y: z}]}}\n  task: report\n  statement: uptime\n  want: {verdict: deny}\n"))
	s := compiled(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := Parse(text)
		if err != nil {
			return
		}
		for i := range file.Cases {
			c := &file.Cases[i]
			out, _, err := c.Run(t.Context(), s, noon, nil)
			if err == nil && out.Verdict == "allow" && !slices.Contains(c.Subject.Groups, "staff") && !slices.Contains(c.Subject.Groups, "desk") {
				t.Errorf("somebody else was let through: %+v", c)
			}
		}
	})
}
