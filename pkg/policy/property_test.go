package policy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

func TestZeroDenies(t *testing.T) {
	s := compiled(t, worldObjects(t))
	grant := func() *postern.Grant {
		return &postern.Grant{ID: "g-1", Subject: alice, Task: "sales-report", End: noon.Add(time.Hour)}
	}
	good := func() Query {
		return Query{Grant: grant(), Resource: "warehouse", Facts: &sql.Facts{Complete: true, Statements: []sql.Statement{{Verb: sql.Select, Effect: postern.EffectRead}}}, Request: Request{Time: noon}}
	}
	if d := s.Decide(good()); d.Verdict != postern.VerdictAllow {
		t.Fatalf("the whole query: %+v", d)
	}
	for name, spoil := range map[string]func(*Query){
		"no query":           func(q *Query) { *q = Query{} },
		"no grant":           func(q *Query) { q.Grant = nil },
		"the zero grant":     func(q *Query) { q.Grant = &postern.Grant{} },
		"no grant id":        func(q *Query) { q.Grant.ID = "" },
		"no subject":         func(q *Query) { q.Grant.Subject = postern.Subject{} },
		"no task":            func(q *Query) { q.Grant.Task = "" },
		"no end":             func(q *Query) { q.Grant.End = time.Time{} },
		"no time":            func(q *Query) { q.Request.Time = time.Time{} },
		"no resource":        func(q *Query) { q.Resource = "" },
		"no facts":           func(q *Query) { q.Facts = nil },
		"the zero facts":     func(q *Query) { q.Facts = &sql.Facts{} },
		"the zero statement": func(q *Query) { q.Facts.(*sql.Facts).Statements[0] = sql.Statement{} },
		"a newer policy": func(q *Query) {
			q.Grant.MinVersion = postern.Version{Epoch: version.Epoch, Revision: version.Revision + 1}
		},
		"a policy of old days": func(q *Query) { q.Grant.MinVersion = postern.Version{Epoch: "e0", Revision: 1} },
	} {
		q := good()
		spoil(&q)
		if d := s.Decide(q); d.Verdict != postern.VerdictDeny || d.Reason == "" {
			t.Errorf("%s: %+v", name, d)
		}
	}
	q := good()
	q.Grant.MinVersion = postern.Version{Epoch: version.Epoch, Revision: version.Revision + 1}
	q.Covered = q.Grant.MinVersion
	if d := s.Decide(q); d.Verdict != postern.VerdictAllow {
		t.Errorf("a newer policy that the node has covered: %+v", d)
	}
	for _, none := range []*Snapshot{{}, compiled(t, nil)} {
		if d := none.Decide(good()); d.Verdict != postern.VerdictDeny {
			t.Errorf("an empty snapshot: %+v", d)
		}
		if d := none.DecideConnect(good()); d.Verdict != postern.VerdictDeny {
			t.Errorf("an empty snapshot lets in: %+v", d)
		}
	}
}

// A random statement that is allowed reads and writes listed columns alone, and every
// masked column that it may see comes with its mask.
func TestRandomFactsNeverPassAColumn(t *testing.T) {
	s := compiled(t, worldObjects(t))
	readable := map[string][]string{
		"sales.orders":    {"id", "customer_id", "customer_email", "amount", "status", "created_at"},
		"sales.customers": {"id", "name", "email", "card", "country", "created_at"},
		"sales.regions":   {"id", "name"},
	}
	masked := map[string][]string{"sales.orders": {"customer_email"}, "sales.customers": {"email", "card"}}
	r := rand.New(rand.NewPCG(1, 2))
	allowed := 0
	for range 30_000 {
		f := randomFacts(r)
		q := Query{Grant: &postern.Grant{ID: "g", Subject: alice, Task: "sales-report", End: noon.Add(time.Hour)}, Resource: "warehouse", Facts: f, Request: Request{Time: noon}}
		d := s.Decide(q)
		if d.Verdict != postern.VerdictAllow {
			continue
		}
		allowed++
		for _, st := range f.Statements {
			for _, u := range st.Settings {
				if u.Write && u.Name != "jit" && u.Name != "TimeZone" && (u.Name != "statement_timeout" || !u.Known || u.Value != "1s") {
					t.Fatalf("writes %+v: %+v", u, d)
				}
			}
			for _, table := range st.Tables {
				name := table.String()
				if slices.ContainsFunc(table.Read, func(c string) bool { return !slices.Contains(readable[name], c) }) {
					t.Fatalf("read %v of %s: %+v", table.Read, name, d)
				}
				if len(table.Write) > 0 || len(table.Verbs) == 0 || slices.ContainsFunc(table.Verbs, func(v sql.Verb) bool { return v != sql.Select }) {
					t.Fatalf("%v on %s, writing %v: %+v", table.Verbs, name, table.Write, d)
				}
				for _, c := range masked[name] {
					if !maskedIn(d, table.Schema, table.Name, c) {
						t.Fatalf("%s.%s without its mask: %+v", name, c, d)
					}
				}
				if table.AllColumns && !slices.ContainsFunc(d.Obligations, func(o postern.Obligation) bool { return o.Table.Schema+"."+o.Table.Table == name }) {
					t.Fatalf("* on %s without a list: %+v", name, d)
				}
			}
		}
	}
	if allowed < 100 {
		t.Fatalf("only %d of the random statements were allowed, which proves little", allowed)
	}
}

func maskedIn(d postern.Decision, schema, table, column string) bool {
	for _, o := range d.Obligations {
		if o.Table == nil || o.Table.Schema != schema || o.Table.Table != table {
			continue
		}
		for _, c := range o.Table.Columns {
			if c.Name == column && c.Mask != nil {
				return true
			}
		}
	}
	return false
}

func randomFacts(r *rand.Rand) *sql.Facts {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	some := func(most int, words ...string) []string {
		var out []string
		for range r.IntN(most + 1) {
			out = append(out, pick(words...))
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	columns := []string{"id", "id", "name", "status", "email", "card", "customer_email", "note", "salary"}
	f := &sql.Facts{Complete: r.IntN(20) > 0}
	for range 1 + r.IntN(2) {
		st := sql.Statement{Verb: sql.Verb(pick("select", "select", "select", "insert", "update", "declare", "prepare", "transaction", "define", "")), Command: pick("", "SELECT", "DROP TABLE"), Effect: postern.Effect(r.IntN(6))}
		for range r.IntN(3) {
			name := pick("orders", "customers", "regions", "regions", "salaries")
			table := sql.Table{
				Schema: pick("sales", "sales", "sales", "sales", "hr", ""), Name: name, System: r.IntN(9) == 0, Read: some(3, columns...),
				AllColumns: r.IntN(4) == 0, Target: r.IntN(8) == 0,
			}
			for _, v := range some(2, "select", "select", "select", "update", "define", "delete") {
				table.Verbs = append(table.Verbs, sql.Verb(v))
			}
			if r.IntN(8) == 0 {
				table.Write, table.TargetReads = some(2, columns...), some(2, columns...)
				table.Verbs = append(table.Verbs, sql.Insert)
			}
			st.Tables = append(st.Tables, table)
		}
		if r.IntN(4) == 0 {
			st.Functions = append(st.Functions, sql.Function{Schema: pick("pg_catalog", "app"), Name: pick("now", "set_config"), Pure: r.IntN(2) == 0})
		}
		if r.IntN(4) == 0 {
			st.Settings = append(st.Settings, sql.SettingUse{
				Name: pick("jit", "TimeZone", "search_path", "role", "client_encoding", "statement_timeout"), Write: r.IntN(2) == 0,
				Value: pick("on", "UTF8", "1s"), Known: r.IntN(2) == 0,
			})
		}
		f.Statements = append(f.Statements, st)
	}
	return f
}

func TestASnapshotIsSafeForConcurrentUse(t *testing.T) {
	objects := worldObjects(t)
	s := compiled(t, objects)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7))
			for range 200 {
				for _, task := range []postern.TaskName{"sales-report", "purge-order", "nightly-load"} {
					g := &postern.Grant{ID: "g", Subject: alice, Task: task, End: noon.Add(time.Hour)}
					s.Decide(Query{Grant: g, Resource: "warehouse", Facts: randomFacts(r), Request: Request{Time: noon}})
				}
				s.Offers(alice, Request{Time: noon})
			}
			if _, rejected := Compile(version, objects); len(rejected) > 0 {
				t.Error("compiling the same objects at once fails")
			}
		})
	}
	wg.Wait()
}

// FuzzCompile compiles, validates and asks whatever YAML can say; nothing may panic,
// and what is invalid may not be in force.
func FuzzCompile(f *testing.F) {
	f.Add([]byte("kind: Task\nmetadata: {name: t}\nspec: {resources: {names: [r]}, permit: [{table: s.t, verbs: [select], columns: [a]}], duration: 1h, when: 'subject.mfa'}"))
	f.Add([]byte("kind: Lock\nmetadata: {name: l}\nspec: {subject: alice, node: x}"))
	f.Add([]byte("kind: Resource\nspec: {pin: {a: [1, x]}, classify: {a.b.c: [x, 1]}, level: {want: native}}"))
	f.Add([]byte("kind: Workload\nspec: {trust: {issuer: i, audience: a, when: 'claims.x.y[0] > 1'}}"))
	f.Add([]byte("kind: Binding\nspec: {subjects: [{}], tasks: [t, t], when: 'request.time.getHours(\"x\") > 1', expires: 0001-01-01T00:00:00Z}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, err := object.ParseYAML(bytes.NewReader(text))
		if err != nil {
			return
		}
		s, _ := Compile(version, objects)
		for _, o := range objects {
			alone := []*typesv1.Object{o}
			if _, rejected := Compile(version, alone); len(rejected) > 0 && len(Validate(o, lookupIn(alone))) == 0 {
				t.Errorf("%s is rejected and yet valid", object.Ref(o))
			}
			Validate(o, lookupIn(objects))
			Referrers(object.Kind(o), object.Name(o), objects)
			if w := o.GetWorkload(); w != nil {
				if ok, err := MatchWorkload(w, w.GetSpec().GetTrust().GetIssuer(), []string{w.GetSpec().GetTrust().GetAudience()}, map[string]any{"x": "y"}); ok && err != nil {
					t.Error("a match with an error")
				}
			}
			task := postern.TaskName(object.Name(o))
			for name := range s.resources {
				q := Query{Grant: &postern.Grant{ID: "g", Subject: alice, Task: task, End: noon.Add(time.Hour)}, Resource: name, Request: Request{Time: noon}}
				if d := s.Decide(q); d.Verdict != postern.VerdictDeny && !s.tasks[task].terms.Unrestricted {
					t.Errorf("%s allows what was not understood: %+v", task, d)
				}
				s.DecideConnect(q)
			}
		}
		s.Offers(alice, Request{Time: noon})
		s.Roles(alice)
	})
}

// onePerPath is a query for each of the paths that an application takes all day.
func onePerPath() map[string]Query {
	out := map[string]Query{}
	for _, c := range []struct {
		name  string
		task  postern.TaskName
		table sql.Table
	}{
		{"plain", "sales-report", sql.Table{Schema: "sales", Name: "regions", Verbs: []sql.Verb{sql.Select}, Read: []string{"id", "name"}}},
		{"masked", "sales-report", sql.Table{Schema: "sales", Name: "orders", Verbs: []sql.Verb{sql.Select}, Read: []string{"customer_email", "id"}}},
		{"update", "nightly-load", sql.Table{Schema: "sales", Name: "orders", Verbs: []sql.Verb{sql.Update}, Target: true, Read: []string{"id"}, TargetReads: []string{"id"}, Write: []string{"status"}}},
	} {
		out[c.name] = Query{
			Grant:    &postern.Grant{ID: "g", Subject: alice, Task: c.task, End: noon.Add(time.Hour)},
			Resource: "warehouse", Request: Request{Time: noon},
			Facts: &sql.Facts{Complete: true, Statements: []sql.Statement{{Verb: sql.Select, Effect: postern.EffectRead, Tables: []sql.Table{c.table}}}},
		}
	}
	return out
}

func TestDecideAllocatesNothing(t *testing.T) {
	s := compiled(t, worldObjects(t))
	for name, q := range onePerPath() {
		if n := testing.AllocsPerRun(100, func() {
			if d := s.Decide(q); d.Verdict != postern.VerdictAllow {
				t.Fatalf("%s: %+v", name, d)
			}
		}); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	s := compiled(b, worldObjects(b))
	for name, q := range onePerPath() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Decide(q)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	objects := worldObjects(b)
	for i := range 1000 {
		objects = append(objects, parse(b, fmt.Appendf(nil, "kind: Task\nmetadata: {name: t-%d}\nspec: {resources: {names: [warehouse]}, permit: [{table: s.t, verbs: [select], columns: [a, b, c]}], duration: 1h}", i))...)
	}
	b.ResetTimer()
	b.ReportAllocs()
	for b.Loop() {
		Compile(version, objects)
	}
}
