package policy

import (
	"bytes"
	"os"
	"testing"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// noon is a Wednesday at which every condition of the sample company holds.
var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

var version = postern.Version{Epoch: "e1", Revision: 7}

func parse(t testing.TB, text []byte) []*typesv1.Object {
	t.Helper()
	objects, err := object.ParseYAML(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func worldObjects(t testing.TB) []*typesv1.Object {
	t.Helper()
	text, err := os.ReadFile("testdata/world.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, text)
}

// compiled compiles what must compile.
func compiled(t testing.TB, objects []*typesv1.Object) *Snapshot {
	t.Helper()
	s, rejected := Compile(version, objects)
	for _, r := range rejected {
		t.Errorf("rejected %s: %s", r.Object, r.Reason)
	}
	return s
}

func lookupIn(objects []*typesv1.Object) func(kind, name string) *typesv1.Object {
	return func(kind, name string) *typesv1.Object {
		for _, o := range objects {
			if object.Kind(o) == kind && object.Name(o) == name {
				return o
			}
		}
		return nil
	}
}

func TestWorldIsValidAndCompiles(t *testing.T) {
	objects := worldObjects(t)
	for _, o := range objects {
		for _, v := range Validate(o, lookupIn(objects)) {
			t.Errorf("%s: %s: %s", object.Ref(o), v.Field, v.Reason)
		}
	}
	s := compiled(t, objects)
	if s.Version() != version {
		t.Errorf("version is %v, want %v", s.Version(), version)
	}
	if _, ok := s.Resource("warehouse"); !ok {
		t.Error("resource warehouse is missing")
	}
	if len(s.Workloads()) != 1 {
		t.Errorf("%d workloads, want 1", len(s.Workloads()))
	}
}

func TestTerms(t *testing.T) {
	s := compiled(t, worldObjects(t))
	got, ok := s.Terms("sales-report")
	want := Terms{
		Purpose: "monthly sales figures", Duration: time.Hour, StatementTimeout: 30 * time.Second, Idle: 10 * time.Minute,
		Rows: 10000, Bytes: 5_000_000, Statements: -1, Sessions: 2, PerGrant: true, RecordRead: Local, RecordWrite: Disk,
		ResultRows: 200, MaxStaleness: time.Minute, SessionGrace: 5 * time.Minute, ReadOnly: true,
	}
	if !ok || got != want {
		t.Errorf("sales-report:\n got %+v\nwant %+v", got, want)
	}
	got, _ = s.Terms("nightly-load")
	if got.ReadOnly || !got.Pool || got.RecordRead != Async || got.RecordWrite != Local || got.Rows != -1 || got.Statements != 1000 || got.PerGrant {
		t.Errorf("nightly-load: %+v", got)
	}
	got, _ = s.Terms("break-glass")
	if !got.Unrestricted || got.ReadOnly || got.RecordRead != Remote {
		t.Errorf("break-glass: %+v", got)
	}
	if _, ok := s.Terms("nothing"); ok {
		t.Error("a task that does not exist has terms")
	}
	if (Terms{}).RecordRead != Remote {
		t.Error("the zero mode must be the strictest")
	}
}

func TestResourceOf(t *testing.T) {
	objects := append(worldObjects(t), parse(t, []byte(`
kind: Resource
metadata: {name: lake, labels: {team: sales}}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5433, database: lake, tls: {mode: disable}}, credential: {vault: {mount: database, role: lake}}}
---
kind: Task
metadata: {name: far}
spec:
  resources: {names: [warehouse, elsewhere]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  duration: 1h
`))...)
	s := compiled(t, objects)
	for _, c := range []struct {
		task postern.TaskName
		name postern.ResourceName
		want postern.ResourceName
		code postern.Code
	}{
		{"sales-report", "", "warehouse", 0},
		{"sales-report", "warehouse", "warehouse", 0},
		{"sales-report", "lake", "", postern.CodeNoGrant},
		{"schema-change", "", "", postern.CodeNoGrant}, // two by label
		{"schema-change", "lake", "lake", 0},
		{"far", "", "", postern.CodeNoGrant}, // one is elsewhere, and still ambiguous
		{"far", "warehouse", "warehouse", 0},
		{"far", "elsewhere", "", postern.CodeUnavailable},
		{"nothing", "", "", postern.CodeNoGrant},
	} {
		got, err := s.ResourceOf(c.task, c.name)
		if got != c.want {
			t.Errorf("%s.%s is %q, want %q", c.task, c.name, got, c.want)
		}
		if c.want != "" {
			if err != nil {
				t.Errorf("%s.%s: %v", c.task, c.name, err)
			}
			continue
		}
		if r := postern.AsRefusal(err); err == nil || r.Code != c.code || r.Reason == "" {
			t.Errorf("%s.%s: %v (%v), want %v", c.task, c.name, err, r.Code, c.code)
		}
	}
}

func TestCompileRejectsOnlyWhatIsBroken(t *testing.T) {
	objects := worldObjects(t)
	for _, o := range objects {
		if m := o.GetMask(); m.GetMetadata().GetName() == "last4" {
			m.Spec.Method = "scramble"
		}
	}
	s, rejected := Compile(version, objects)
	var names []string
	for _, r := range rejected {
		names = append(names, r.Object)
	}
	if len(names) != 2 || names[0] != "mask/last4" || names[1] != "task/sales-report" {
		t.Errorf("rejected %v, want mask/last4 and the task that needs it", names)
	}
	if _, ok := s.Terms("sales-report"); ok {
		t.Error("a task whose mask is broken must not be served")
	}
	if _, ok := s.Terms("audit-writer"); !ok {
		t.Error("the rest must apply")
	}
	if _, err := s.Offer(postern.Subject{Name: "alice", Groups: []string{"analysts"}}, "sales-report", Request{Time: noon}); err == nil {
		t.Error("a rejected task must not be offered")
	}
}

func TestDuplicatesAreRejected(t *testing.T) {
	objects := worldObjects(t)
	s, rejected := Compile(version, append(objects, objects[0], nil, &typesv1.Object{}))
	if len(rejected) != 1 || rejected[0].Object != "resource/warehouse" {
		t.Errorf("rejected %v", rejected)
	}
	if _, ok := s.Resource("warehouse"); !ok {
		t.Error("the first one must stay")
	}
}
