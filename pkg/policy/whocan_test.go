package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

func target(t *testing.T, s *Snapshot, verb, object string) *Target {
	t.Helper()
	x, err := s.Target(verb, object)
	if err != nil {
		t.Fatalf("%s %s: %v", verb, object, err)
	}
	return x
}

// lines are the ways to a target, as "who task rule [mask] {terms}".
func lines(s *Snapshot, t *Target) []string {
	all, _ := s.WhoCan(t, noon)
	var out []string
	for _, a := range all {
		text := fmt.Sprintf("%s %s %s", strings.Join(a.Subjects, "|"), a.Task, a.Right.Rule)
		if a.Right.Mask != "" {
			text += " [" + a.Right.Mask + "]"
		}
		if terms := slices.Concat(a.Terms, a.Right.Terms); len(terms) > 0 {
			text += " {" + strings.Join(terms, "; ") + "}"
		}
		out = append(out, text)
	}
	return out
}

const mfa = `when subject.mfa && request.time.getHours("Europe/Berlin") in [8,9,10,11,12,13,14,15,16,17,18]`

func TestWhoCan(t *testing.T) {
	s := compiled(t, worldObjects(t))
	everything := "group leads break-glass break-glass/permit[0] {1 of leads must approve the grant; 1 of leads must approve each session}"
	for _, c := range []struct {
		verb, object string
		want         []string
	}{
		{"select", "warehouse:sales.customers.email", []string{
			`group analysts|group leads|group contractors|claim department=sales sales-report sales-report/permit[1] [email (shown as "***")]`, everything,
		}},
		{"select", "warehouse:sales.customers.phone", []string{everything}},
		{"select", "warehouse:sales.customers", []string{
			`group analysts|group leads|group contractors|claim department=sales sales-report sales-report/permit[1] [email: email (shown as "***"), card: last4 (keeps 0 first, 4 last)]`, everything,
		}},
		{"delete", "warehouse:sales.orders", []string{
			"group analysts|group leads purge-order purge-order/permit[0] {" + mfa + "; 1 of leads must approve each statement; with a WHERE clause; at most 1 rows changed}", everything,
		}},
		{"select", "warehouse:sales.orders.id", []string{
			"group analysts|group leads purge-order purge-order/permit[0] {" + mfa + "}",
			"group analysts|group leads|group contractors|claim department=sales sales-report sales-report/permit[0]",
			"group analysts|group leads schema-change schema-change/permit[1] {1 of leads must approve each session}",
			everything,
			"workload nightly nightly-load nightly-load/permit[0]",
		}},
		{"Alter  Table", "warehouse:sales", []string{
			"group analysts|group leads schema-change schema-change/permit[0] {1 of leads must approve each session}", everything,
		}},
		{"alter table", "warehouse:hr", []string{everything}},
		{"call", "warehouse:sales.next_order", []string{everything, "workload nightly nightly-load nightly-load/functions"}},
		{"insert", "warehouse:audit.log.actor", []string{everything, "workload nightly audit-writer audit-writer/permit[0]"}},
	} {
		got, want := lines(s, target(t, s, c.verb, c.object)), c.want
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s %s:\n got %q\nwant %q", c.verb, c.object, got, want)
		}
	}
}

func TestWhoCanKnowsWhoIsOut(t *testing.T) {
	world := worldObjects(t)
	locked := compiled(t, append(world, parse(t, []byte("kind: Lock\nmetadata: {name: out}\nspec: {workload: nightly, reason: stop}"))...))
	all, notes := locked.WhoCan(target(t, locked, "insert", "warehouse:audit.log"), noon)
	if len(all) != 1 || all[0].Task != "break-glass" || len(notes) != 1 || notes[0] != "workload nightly is locked by out" {
		t.Errorf("a locked workload: %v %q", all, notes)
	}
	s := compiled(t, world)
	if all, notes := s.WhoCan(target(t, s, "insert", "warehouse:audit.log"), noon.AddDate(2, 0, 0)); len(all) != 1 || len(notes) != 1 {
		t.Errorf("a workload that is over: %v %q", all, notes)
	}
	if all, _ := s.WhoCan(target(t, s, "select", "warehouse:sales.regions.id"), noon.AddDate(2, 0, 0)); len(all) != 1 {
		t.Errorf("a binding that ended: %v", all)
	}
	all, notes = func() ([]Access, []string) {
		s := compiled(t, append(worldObjects(t), parse(t, []byte("kind: Lock\nmetadata: {name: stop}\nspec: {resource: warehouse, reason: stop}"))...))
		return s.WhoCan(target(t, s, "select", "warehouse:sales.regions"), noon)
	}()
	if len(all) != 0 || len(notes) != 1 {
		t.Errorf("a locked resource: %v %q", all, notes)
	}
	for verb, object := range map[string]string{
		"select": "warehouse:customers", "delete": "warehouse:sales.orders.id", "fetch": "warehouse:sales.orders",
		"drop table": "warehouse:sales.orders", "insert": "nowhere:sales.orders", "update": "warehouse:pg_catalog.pg_class", "truncate": "warehouse:",
	} {
		if x, err := s.Target(verb, object); err == nil {
			t.Errorf("%s %s is %v", verb, object, x)
		}
	}
}

// TestWhoCanIsWhatDecideSays holds every answer against the judgement of the plainest
// statement: what is listed without conditions is not denied, what is not listed is.
func TestWhoCanIsWhatDecideSays(t *testing.T) {
	for _, extra := range []string{"", extraTasks} {
		objects := append(worldObjects(t), parse(t, []byte(extra))...)
		s := compiled(t, objects)
		people := map[string]postern.Subject{
			"group analysts": {Name: "a", Groups: []string{"analysts"}, MFA: true}, "group leads": {Name: "l", Groups: []string{"leads"}, MFA: true},
			"group contractors": {Name: "c", Groups: []string{"contractors"}}, "claim department=sales": {Name: "d", Claims: map[string]any{"department": "sales"}},
			"workload nightly": {Name: "nightly", Workload: "nightly"},
		}
		asked := 0
		for _, x := range everyTarget(t, s, objects) {
			all, _ := s.WhoCan(x, noon)
			for who, sub := range people {
				for _, b := range s.bindings {
					for _, name := range b.tasks {
						asked++
						listed := slices.IndexFunc(all, func(a Access) bool {
							return a.Binding == b.name && a.Task == name && slices.Contains(a.Subjects, who)
						})
						g := &postern.Grant{ID: "g", Subject: sub, Task: name, End: noon.Add(time.Hour)}
						d := s.Decide(Query{Grant: g, Resource: x.Resource, Facts: x.Facts(), Request: Request{Time: noon}})
						can := d.Verdict != postern.VerdictDeny && b.offers(&sub, Request{Time: noon}) == nil
						if can && listed < 0 {
							t.Errorf("%s may %s by %s of %s, and is not listed", who, x, name, b.name)
						}
						if listed >= 0 && !can && !slices.ContainsFunc(slices.Concat(all[listed].Terms, all[listed].Right.Terms), func(s string) bool { return strings.HasPrefix(s, "when ") }) {
							t.Errorf("%s is listed for %s by %s of %s, and is refused: %s", who, x, name, b.name, d.Reason)
						}
					}
				}
			}
		}
		if asked < 1000 {
			t.Fatalf("only %d questions were asked", asked)
		}
	}
}

const extraTasks = `
kind: Task
metadata: {name: two-ways}
spec:
  purpose: two permits for one table
  resources: {names: [warehouse]}
  permit:
    - {table: sales.orders, verbs: [select], columns: [id, status], when: 'request.region == "eu-1"'}
    - {table: sales.orders, verbs: [select, update], columns: [id, amount], writeColumns: [amount], when: '"x" in subject.groups'}
    - {table: sales.orders, verbs: [select], columns: [id, status, amount, note]}
    - {table: sales.tasks, verbs: [delete], columns: [id], rows: 'owner == subject.id'}
  duration: 1h
---
kind: Binding
metadata: {name: two-ways}
spec: {subjects: [{group: contractors}, {group: leads}], tasks: [two-ways, audit-writer]}
`

// everyTarget is each table with each verb and each column that anybody has named, and some
// that nobody has.
func everyTarget(t *testing.T, s *Snapshot, objects []*typesv1.Object) []*Target {
	columns := map[string]map[string]bool{"hr.people": {"salary": true}}
	for _, o := range objects {
		for _, p := range o.GetTask().GetSpec().GetPermit() {
			if p.GetTable() == "" {
				continue
			}
			if columns[p.GetTable()] == nil {
				columns[p.GetTable()] = map[string]bool{"unknown": true}
			}
			for _, c := range append(slices.Clone(p.GetColumns()), p.GetWriteColumns()...) {
				columns[p.GetTable()][c] = true
			}
		}
	}
	var out []*Target
	for table, names := range columns {
		for _, verb := range []string{"delete", "truncate"} {
			out = append(out, target(t, s, verb, "warehouse:"+table))
		}
		for c := range names {
			for _, verb := range []string{"select", "insert", "update"} {
				out = append(out, target(t, s, verb, "warehouse:"+table+"."+c))
			}
		}
	}
	for _, c := range commands {
		out = append(out, target(t, s, c, "warehouse:sales"), target(t, s, c, "warehouse:hr"))
	}
	return append(out, target(t, s, "call", "warehouse:sales.next_order"), target(t, s, "call", "warehouse:sales.other"))
}

func TestWhoCanAtAHost(t *testing.T) {
	s := compiled(t, parse(t, []byte(webWorld)))
	for object, want := range map[string]int{
		"exec web-1:/usr/bin/systemctl restart shop": 1, "exec web-1:systemctl restart shop": 1, "exec web-1:/usr/bin/systemctl stop shop": 0,
		"read web-1:/srv/www/a/b": 1, "write web-1:/srv/www/a": 0, "read web-1:/etc/shadow": 0, "shell web-1": 1, "connect web-1:db:5432": 1, "connect web-1:db:22": 0,
	} {
		verb, on, _ := strings.Cut(object, " ")
		if got := lines(s, target(t, s, verb, on)); len(got) != want {
			t.Errorf("%s: %q, want %d", object, got, want)
		}
	}
	for _, bad := range []string{"exec web-1:a; b", "exec web-1:", "read web-1:x", "shell web-1:x", "select web-1:a.b", "connect web-1:db"} {
		verb, on, _ := strings.Cut(bad, " ")
		if _, err := s.Target(verb, on); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

const webWorld = `
kind: Resource
metadata: {name: web-1}
spec:
  protocol: ssh
  endpoint: {host: web-1.internal, port: 22, ssh: {hostKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti"]}}
  credential: {sealed: web-1}
---
kind: Task
metadata: {name: web}
spec:
  purpose: the web servers
  resources: {names: [web-1]}
  permit:
    - {channel: exec, argv: [/usr/bin/systemctl, restart, "*"]}
    - {channel: files, verbs: [read], paths: ["/srv/www/**"]}
    - {channel: guard}
    - {channel: forward, verbs: [connect], destinations: ["db:5432"]}
  duration: 1h
---
kind: Binding
metadata: {name: web}
spec: {subjects: [{group: ops}], tasks: [web]}
`

func TestCompare(t *testing.T) {
	before := worldObjects(t)
	for name, c := range map[string]struct {
		with string
		gone []string
		want []string
	}{
		"nothing": {},
		"a column and a mask": {
			with: narrower,
		},
		"a binding goes": {gone: []string{"binding/nightly"}, want: []string{
			"- workload nightly: call built-in functions without side effects of audit-writer",
			"- workload nightly: insert audit.log(action,actor,detail) of audit-writer",
		}},
		"a lock": {with: "kind: Lock\nmetadata: {name: out}\nspec: {subject: carol, reason: left}", want: []string{"- subject carol: locked"}},
		"a workload's tokens": {
			with: "kind: Workload\nmetadata: {name: nightly}\nspec: {owner: ada, expires: 2027-03-31T00:00:00Z, trust: {issuer: \"https://ci.example\", audience: \"https://postern.example\", when: 'claims.any == true'}}",
			want: []string{"~ workload nightly: is trusted"},
		},
		"who is asked later": {
			with: "kind: ApprovalRule\nmetadata: {name: leads}\nspec: {all: [{group: leads, atLeast: 1}], distinct: true, notRequester: true, timeout: 15m, require: [reason], escalate: {after: 1s, group: everybody}}",
			want: []string{"~ approval rule leads: asks", "~ group analysts: delete sales.orders of purge-order"},
		},
		"when people are asked": {
			with: "kind: ApprovalRule\nmetadata: {name: leads}\nspec: {all: [{group: leads, atLeast: 1}], distinct: true, notRequester: true, timeout: 15m}",
			want: []string{"~ approval rule leads: asks"},
		},
		"a ticket": {
			with: "kind: Binding\nmetadata: {name: nightly}\nspec: {subjects: [{workload: nightly}], tasks: [audit-writer], bound: {hook: tickets}}",
			want: []string{"~ workload nightly: insert audit.log(action,actor,detail) of audit-writer"},
		},
		"an approval rule": {with: "kind: ApprovalRule\nmetadata: {name: leads}\nspec: {all: [{group: leads, atLeast: 2}], require: [reason]}"},
		"a role":           {with: "kind: RoleBinding\nmetadata: {name: new}\nspec: {role: viewer, subjects: [{group: leads}]}", want: []string{"+ group leads: role viewer"}},
	} {
		t.Run(name, func(t *testing.T) {
			var after []*typesv1.Object
			changed := map[string]bool{}
			var with []*typesv1.Object
			if c.with != "" {
				with = parse(t, []byte(c.with))
			}
			for _, o := range with {
				changed[object.Ref(o)] = true
			}
			for _, o := range before {
				if !changed[object.Ref(o)] && !slices.Contains(c.gone, object.Ref(o)) {
					after = append(after, o)
				}
			}
			was, is := compiled(t, before), compiled(t, append(after, with...))
			got := changes(Compare(was, is, noon))
			back := Compare(is, was, noon)
			if len(back) != len(got) {
				t.Errorf("the way back has %d changes, and the way there %d", len(back), len(got))
			}
			for _, w := range c.want {
				if !slices.Contains(got, w) {
					t.Errorf("missing %q in %q", w, got)
				}
			}
			switch name {
			case "nothing":
				if len(got) > 0 {
					t.Errorf("changes of nothing: %q", got)
				}
			case "a column and a mask":
				want := []string{
					"+ claim department=sales: select sales.customers(phone) of sales-report",
					"~ claim department=sales: select sales.customers(email) of sales-report",
					"- claim department=sales: select sales.customers(card) of sales-report",
				}
				if len(got) != 12 || !slices.Equal(got[:3], want) {
					t.Errorf("%q", got)
				}
			case "an approval rule":
				for _, g := range got {
					if !strings.HasPrefix(g, "~ ") {
						t.Errorf("%q is no change of terms", g)
					}
				}
				if len(got) == 0 {
					t.Error("a rule that asks for more is no change")
				}
			}
		})
	}
}

// changes are one line each.
func changes(all []Change) []string {
	var out []string
	for _, c := range all {
		text := map[string]string{Allowed: "+", Denied: "-", Changed: "~"}[c.Effect] + " " + c.Who + ": " + c.Verb
		if c.On != "" {
			text += " " + c.On
		}
		if len(c.Columns) > 0 {
			text += "(" + strings.Join(c.Columns, ",") + ")"
		}
		if c.Task != "" {
			text += " of " + string(c.Task)
		}
		out = append(out, text)
	}
	return out
}

// narrower is sales-report with another column, and another mask.
const narrower = `
kind: Task
metadata: {name: sales-report}
spec:
  purpose: monthly sales figures
  resources: {names: [warehouse]}
  permit:
    - {table: sales.orders, verbs: [select], columns: [id, customer_id, customer_email, amount, status, created_at], mask: {customer_email: email}}
    - {table: sales.customers, verbs: [select], columns: [id, name, email, phone, country, created_at], mask: {email: last4}}
    - {table: sales.regions, verbs: [select], columns: [id, name]}
  functions: {builtin: pure, allow: []}
  limits: {rows: 10000, bytes: 5MB, statementTimeout: 30s, idle: 10m, sessions: 2, per: grant}
  duration: 1h
  record: {read: local, write: disk, resultRows: 200}
  credential: {reuse: never}
  staleness: {maxStaleness: 60s, sessionGrace: 5m}
`
