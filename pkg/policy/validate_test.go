package policy

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

func TestValidateTable(t *testing.T) {
	text, err := os.ReadFile("testdata/validate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Also, Object json.RawMessage
		Want         []string
	}
	if err := yaml.UnmarshalStrict(text, &cases); err != nil {
		t.Fatal(err)
	}
	world := worldObjects(t)
	for i, c := range cases {
		objects := world
		if c.Also != nil {
			objects = append(slices.Clip(world), parse(t, c.Also)...)
		}
		o := parse(t, c.Object)[0]
		found := Validate(o, lookupIn(objects))
		var got []string
		for _, v := range found {
			got = append(got, v.Field+": "+v.Reason)
		}
		if !slices.EqualFunc(got, c.Want, violates) {
			t.Errorf("case %d, %s:\n got %s\nwant %s", i+1, object.Ref(o), strings.Join(got, "\n     "), strings.Join(c.Want, "\n     "))
		}
	}
}

// violates reports whether got is "field: ... text ..." for want "field: text".
func violates(got, want string) bool {
	field, text, _ := strings.Cut(want, ": ")
	return strings.HasPrefix(got, field+": ") && strings.Contains(got[len(field)+2:], text)
}

func TestWhatIsInvalidDoesNotCompile(t *testing.T) {
	for _, o := range parse(t, []byte(`
kind: Task
metadata: {name: filtered}
spec:
  resources: {names: [warehouse]}
  permit: [{table: sales.customers, verbs: [select], columns: [id], rows: "country = subject.claims.country"}]
  duration: 1h
---
kind: Resource
metadata: {name: walled}
spec: {protocol: postgres, endpoint: {host: db, port: 1, database: d}, credential: {sealed: s}, level: {want: native}}
---
kind: ApprovalRule
metadata: {name: nobody}
spec: {}
---
kind: Binding
metadata: {name: unasked}
spec: {subjects: [{group: g}], tasks: [t], approval: {scope: grant, rule: nobody}}
`)) {
		s, rejected := Compile(version, []*typesv1.Object{o})
		if len(rejected) != 1 || rejected[0].Object != object.Ref(o) || rejected[0].Reason == "" {
			t.Errorf("%s: rejected %v", object.Ref(o), rejected)
		}
		if len(s.tasks)+len(s.resources)+len(s.rules)+len(s.bindings) > 0 {
			t.Errorf("%s is in the snapshot", object.Ref(o))
		}
	}
}

func TestValidateOfNothing(t *testing.T) {
	if len(Validate(&typesv1.Object{}, lookupIn(nil))) == 0 {
		t.Error("an object without a kind is valid")
	}
}

func TestReferrers(t *testing.T) {
	objects := append(worldObjects(t), parse(t, []byte(`{kind: Lock, metadata: {name: l}, spec: {resource: warehouse, reason: x}}`))...)
	for _, c := range []struct {
		kind, name string
		want       []string
	}{
		{"task", "sales-report", []string{"binding/analysts-report"}},
		{"mask", "email", []string{"task/sales-report"}},
		{"approvalrule", "leads", []string{"binding/analysts-purge", "binding/leads-break-glass", "task/break-glass", "task/schema-change"}},
		{"workload", "nightly", []string{"binding/nightly"}},
		{"secret", "warehouse-catalog", []string{"resource/warehouse"}},
		{"secret", "warehouse-rw", []string{"resource/warehouse"}},
		{"resource", "warehouse", []string{"task/audit-writer", "task/break-glass", "task/nightly-load", "task/purge-order", "task/sales-report"}},
		{"resource", "email", nil},
	} {
		if got := Referrers(c.kind, c.name, objects); !slices.Equal(got, c.want) {
			t.Errorf("%s/%s is referred to by %v, want %v", c.kind, c.name, got, c.want)
		}
	}
}
