package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

var (
	alice   = postern.Subject{Name: "alice", Groups: []string{"analysts"}, MFA: true}
	bob     = postern.Subject{Name: "bob", Groups: []string{"leads"}, MFA: true}
	carol   = postern.Subject{Name: "carol", Groups: []string{"contractors"}}
	ada     = postern.Subject{Name: "ada", Groups: []string{"admins"}}
	nightly = postern.Subject{Name: "nightly", Workload: "nightly"}
)

func TestOffersOfTheSampleCompany(t *testing.T) {
	s := compiled(t, worldObjects(t))
	for _, c := range []struct {
		who  postern.Subject
		at   time.Time
		want string
	}{
		{alice, noon, "purge-order sales-report schema-change"},
		{alice, noon.Add(8 * time.Hour), "sales-report schema-change"}, // outside of hours
		{bob, noon, "break-glass purge-order sales-report schema-change"},
		{carol, noon, "sales-report"},
		{ada, noon, ""},
		{nightly, noon, "audit-writer nightly-load"},
		{alice, time.Date(2027, 4, 1, 12, 0, 0, 0, time.UTC), "purge-order schema-change"}, // after the binding's end
		{postern.Subject{}, noon, ""},
		{alice, time.Time{}, "schema-change"}, // no clock: nothing that depends on it
		{postern.Subject{Name: "dan", Claims: map[string]any{"department": "sales"}}, noon, "sales-report"},
		{postern.Subject{Name: "eve", Claims: map[string]any{"department": []any{"sales"}}}, noon, ""},
		// A workload is no member of a group of people, whatever its token says.
		{postern.Subject{Name: "ci", Workload: "other", Groups: []string{"analysts"}}, noon, ""},
		// And nobody is a workload by name.
		{postern.Subject{Name: "nightly"}, noon, ""},
	} {
		offers := s.Offers(c.who, Request{Time: c.at})
		var got []string
		for _, o := range offers {
			got = append(got, string(o.Task))
			if again, err := s.Offer(c.who, o.Task, Request{Time: c.at}); err != nil || again.Binding != o.Binding {
				t.Errorf("%s: Offer(%s) is %v, %v", c.who.Name, o.Task, again, err)
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s at %v may take %v, want %s", c.who.Name, c.at, got, c.want)
		}
	}
}

// TestChances: whatever may be offered at some time is a chance, with its condition.
func TestChances(t *testing.T) {
	s := compiled(t, append(worldObjects(t), parse(t, []byte(`
kind: Binding
metadata: {name: a-asked}
spec: {subjects: [{group: analysts}], tasks: [sales-report], approval: {scope: grant, rule: leads}}
---
kind: Binding
metadata: {name: a-first}
spec: {subjects: [{group: analysts}], tasks: [audit-writer], approval: {scope: grant, rule: leads}}
---
kind: Binding
metadata: {name: b-office}
spec: {subjects: [{group: analysts}], tasks: [audit-writer], when: 'cidr("10.0.0.0/8").containsIP(request.ip)'}
---
{kind: Lock, metadata: {name: carol-left}, spec: {subject: carol, reason: contract ended}}
`))...))
	for _, c := range []struct {
		who  postern.Subject
		at   time.Time
		want string
	}{
		// The lead's yes is asked without a condition, and nobody in the office: both are chances.
		{alice, noon.Add(8 * time.Hour), "audit-writer/a-first audit-writer/b-office? purge-order/analysts-purge? sales-report/analysts-report schema-change/analysts-schema"},
		{alice, noon.AddDate(1, 0, 0), "audit-writer/a-first audit-writer/b-office? purge-order/analysts-purge? sales-report/a-asked schema-change/analysts-schema"},
		{carol, noon, ""},
		{ada, noon, ""},
	} {
		var got []string
		for _, o := range s.Chances(c.who, c.at) {
			one := string(o.Task) + "/" + o.Binding
			if o.When != "" {
				one += "?"
			}
			got = append(got, one)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s at %v has the chances %v, want %s", c.who.Name, c.at, got, c.want)
		}
	}
}

func TestOfferTerms(t *testing.T) {
	s := compiled(t, worldObjects(t))
	o, err := s.Offer(alice, "sales-report", Request{Time: noon})
	if err != nil {
		t.Fatal(err)
	}
	if o.Binding != "analysts-report" || o.Purpose != "monthly sales figures" || o.Duration != time.Hour || o.Approval != nil ||
		!slices.Equal(o.Resources, []postern.ResourceName{"warehouse"}) || !o.Expires.Equal(time.Date(2027, 3, 31, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("offer is %+v", o)
	}
}

func TestBestOffer(t *testing.T) {
	base := worldObjects(t)
	s := compiled(t, append(base, parse(t, []byte(`
kind: Binding
metadata: {name: a-asked}
spec: {subjects: [{group: analysts}], tasks: [sales-report], approval: {scope: grant, rule: leads}}
---
kind: Binding
metadata: {name: b-later}
spec: {subjects: [{group: analysts}], tasks: [audit-writer], approval: {scope: statement, rule: leads}}
---
kind: Binding
metadata: {name: a-first}
spec: {subjects: [{group: analysts}], tasks: [audit-writer], approval: {scope: grant, rule: leads}}
`))...))
	if o, _ := s.Offer(alice, "sales-report", Request{Time: noon}); o.Binding != "analysts-report" || o.Approval != nil {
		t.Errorf("the best offer of sales-report is %+v", o)
	}
	if o, _ := s.Offer(alice, "audit-writer", Request{Time: noon}); o.Binding != "b-later" || o.Approval == nil {
		t.Errorf("the best offer of audit-writer is %+v", o)
	}
}

func TestOfferRefusals(t *testing.T) {
	objects := append(worldObjects(t), parse(t, []byte(`{kind: Lock, metadata: {name: carol-left}, spec: {subject: carol, reason: contract ended}}`))...)
	s := compiled(t, objects)
	for _, c := range []struct {
		who                       postern.Subject
		task                      postern.TaskName
		at                        time.Time
		code                      postern.Code
		rule, reason, detail, tip string
	}{
		{alice, "audit-writer", noon, postern.CodeNoGrant, "audit-writer", `no binding offers task "audit-writer" to alice`, "", "your tasks: purge-order, sales-report, schema-change"},
		{alice, "nothing", noon, postern.CodeNoGrant, "nothing", `no binding offers task "nothing" to alice`, "", "your tasks"},
		{alice, "purge-order", noon.Add(8 * time.Hour), postern.CodeNoGrant, "analysts-purge", `binding "analysts-purge" does not offer task "purge-order" now`, "only when subject.mfa", "your tasks"},
		{carol, "sales-report", noon, postern.CodeKilled, "lock/carol-left", `subject "carol" is locked: contract ended`, "", "operators"},
		{ada, "sales-report", noon, postern.CodeNoGrant, "sales-report", "to ada", "", "no task is offered"},
		{bob, "sales-report", noon.AddDate(1, 0, 0), postern.CodeNoGrant, "analysts-report", "does not offer", "it ended at 2027-03-31 00:00 UTC", ""},
	} {
		_, err := s.Offer(c.who, c.task, Request{Time: c.at})
		r := postern.AsRefusal(err)
		if err == nil || r.Code != c.code || r.Rule != c.rule || !strings.Contains(r.Reason, c.reason) || !strings.Contains(r.Detail, c.detail) || !strings.Contains(r.Hint, c.tip) {
			t.Errorf("%s for %s: %+v", c.task, c.who.Name, r)
		}
	}
	if got := s.Offers(carol, Request{Time: noon}); len(got) != 0 {
		t.Errorf("who is locked is offered %v", got)
	}
}

func TestRoles(t *testing.T) {
	s := compiled(t, worldObjects(t))
	if got := s.Roles(ada); len(got) != 1 || got[0].Role != "admin" || len(got[0].Scope) != 0 || got[0].Binding != "admins" {
		t.Errorf("ada has %v", got)
	}
	if got := s.Roles(bob); len(got) != 1 || got[0].Role != "operator" || got[0].Scope["team"] != "sales" {
		t.Errorf("bob has %v", got)
	}
	if got := s.Roles(alice); len(got) != 0 {
		t.Errorf("alice has %v", got)
	}
	if got := s.Roles(postern.Subject{Name: "ci", Workload: "ci", Groups: []string{"admins"}}); len(got) != 0 {
		t.Errorf("a workload in a group of people has %v", got)
	}
}

func TestMatchWorkload(t *testing.T) {
	s := compiled(t, worldObjects(t))
	w := s.Workloads()[0]
	good := map[string]any{"repository_id": "42", "environment": "prod"}
	for _, c := range []struct {
		issuer   string
		audience []string
		claims   map[string]any
		want     bool
		err      bool
	}{
		{"https://ci.example", []string{"x", "https://postern.example"}, good, true, false},
		{"https://ci.example.evil", []string{"https://postern.example"}, good, false, false},
		{"https://ci.example", []string{"x"}, good, false, false},
		{"https://ci.example", nil, good, false, false},
		{"https://ci.example", []string{"https://postern.example"}, map[string]any{"repository_id": "42", "environment": "dev"}, false, false},
		{"https://ci.example", []string{"https://postern.example"}, map[string]any{"repository_id": 42.0, "environment": "prod"}, false, false},
		{"https://ci.example", []string{"https://postern.example"}, map[string]any{"repository_id": "42"}, false, true},
		{"https://ci.example", []string{"https://postern.example"}, nil, false, true},
		{"", nil, good, false, false},
	} {
		got, err := MatchWorkload(w, c.issuer, c.audience, c.claims)
		if got != c.want || (err != nil) != c.err {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
	broken := &typesv1.Workload{Spec: &typesv1.WorkloadSpec{Trust: &typesv1.WorkloadTrust{Issuer: "i", Audience: "a", When: "true"}}}
	if got, err := MatchWorkload(broken, "i", []string{"a"}, good); got || err == nil {
		t.Errorf("a condition that reads no claims matches: %v, %v", got, err)
	}
	if got, err := MatchWorkload(nil, "", []string{""}, good); got || err != nil {
		t.Errorf("no workload at all: %v, %v", got, err)
	}
}
