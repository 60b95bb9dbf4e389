package object_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

const two = `---
# the first
apiVersion: postern/v1
kind: Mask
metadata: {name: email, labels: {team: sales}}
spec: {method: redact, value: "***"}
---
kind: Task
metadata:
  name: report
spec:
  permit:
  - {table: sales.orders, verbs: [select], columns: [id], writeColumns: [id]}
  limits: {rows: 10000, bytes: 5MB}
---
# nothing but a comment
---
`

func parse(t *testing.T, text string) []*typesv1.Object {
	t.Helper()
	objects, err := object.ParseYAML(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func TestParseYAML(t *testing.T) {
	objects := parse(t, two)
	if len(objects) != 2 {
		t.Fatalf("%d objects, want 2", len(objects))
	}
	if got := object.Ref(objects[0]); got != "mask/email" {
		t.Errorf("the first is %s", got)
	}
	if got := objects[0].GetMask(); got.GetKind() != "Mask" || got.GetApiVersion() != object.APIVersion || got.GetSpec().GetValue() != "***" {
		t.Errorf("the first is %v", got)
	}
	if got := object.Labels(objects[0])["team"]; got != "sales" {
		t.Errorf("its label is %q", got)
	}
	task := objects[1].GetTask()
	if object.Ref(objects[1]) != "task/report" || task.GetSpec().GetLimits().GetRows() != 10000 || task.GetSpec().GetPermit()[0].GetWriteColumns()[0] != "id" {
		t.Errorf("the second is %v", task)
	}
}

// TestAliases: what people name once and use again is read.
func TestAliases(t *testing.T) {
	objects, err := object.ParseYAML(strings.NewReader("kind: Mask\nmetadata: {name: a, labels: {a: &x b & c, d: *x}}\nspec: {method: 'null'}\n"))
	if err != nil || len(objects) != 1 || object.Labels(objects[0])["d"] != "b & c" {
		t.Errorf("%v, %v", objects, err)
	}
}

func TestMarksBetweenDocuments(t *testing.T) {
	one := "kind: Mask\nmetadata: {name: a}\n"
	other := "kind: Mask\nmetadata: {name: b}\n"
	for name, text := range map[string]string{
		"a line":             one + "---\n" + other,
		"with spaces":        one + "---  \n" + other,
		"with a comment":     one + "--- # the next\n" + other,
		"with content":       one + "--- {kind: Mask, metadata: {name: b}}\n",
		"with CR LF":         strings.ReplaceAll(one+"---\n"+other, "\n", "\r\n"),
		"with an end":        one + "...\n---\n" + other,
		"with an end alone":  one + "...\n" + other,
		"after a BOM":        "\ufeff---\n" + one + "---\n" + other,
		"without a last EOL": one + "---\n" + strings.TrimSpace(other),
	} {
		objects, err := object.ParseYAML(strings.NewReader(text))
		if err != nil || len(objects) != 2 || object.Name(objects[1]) != "b" {
			t.Errorf("%s: %v, %v", name, objects, err)
		}
	}
	dashes := parse(t, "kind: Mask\nmetadata: {name: a}\nspec:\n  value: |\n    ---\n    -----BEGIN\n")
	if len(dashes) != 1 || dashes[0].GetMask().GetSpec().GetValue() != "---\n-----BEGIN\n" {
		t.Errorf("dashes within a text: %v", dashes)
	}
}

func TestParseYAMLRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"kind: Gizmo":             `document 1: kind "Gizmo" is not known; kinds: approvalrule, binding,`,
		"metadata: {name: x}":     "document 1: kind is missing",
		"[1, 2]":                  "is no object with kind, metadata and spec: the whole of it",
		"kind: Mask\nmetadata: x": "metadata is not what it must be",
		"kind: Mask\nmetadata: {name: a, labels: {a: &a " + strings.Repeat("x", 1<<20) + ", b: [" + strings.Repeat("*a, ", 100) + "]}}":                              "document 1: with what aliases stand for it is longer than 32 MiB",
		strings.Repeat("kind: Mask\nmetadata: {name: a, labels: {a: &a "+strings.Repeat("x", 1<<20)+", b: *a, c: *a, d: *a, e: *a, f: *a, g: *a, h: *a}}\n---\n", 5): "document 4: with what aliases",
		"kind: Mask\nmetadata: &a {name: a, labels: *a}": "document 1",
		"kind: Mask\nkind: Lock":                         "document 1:",
		"a: b: c":                                        "not YAML",
		"# one\n---\nkind: Mask\nmetadata: {name: m}\nspec: {methd: x}":         `document 2: Mask "m": line 5: spec.methd: unknown field`,
		"kind: Mask\n--- # two\nkind: Mask\nspec:\n\n  keepLast: a\n":           `document 2: Mask "": line 6: spec.keepLast: invalid value`,
		"kind: Mask\n---\n---\n\nkind: Mask\nspec: x\n  method: y\n":            "document 2: not YAML: error converting YAML to JSON: yaml: line 7: ",
		"kind: Mask\nmetadata: {name: m, name: n}":                              "document 1:",
		"kind: Task\nmetadata: {name: t}\nspec: {record: {storeRows: true}}":    `spec.record.storeRows: unknown field "storeRows"; there are `,
		"kind: Task\nmetadata: {name: t}\nspec: {permit: [{everything: true}]}": `spec.permit[0].everything: unknown field "everything"; there are `,
		"kind: Task\nmetadata: {name: t}\nspec: {resources: {names: [a, [b]]}}": `spec.resources.names[1]: `,
		"kind: Task\nmetadata: {name: t, labels: {x: 1, \u00e4: y}}":            `metadata.labels.x: invalid value`,
		"kind: Task\nmetadata: {name: t}\nspec: {masked: false}":                `unknown field "masked"`,
		"apiVersion: postern/v2\nkind: Mask\nmetadata: {name: m}":               `apiVersion is "postern/v2", want "postern/v1"`,
		"kind: Mask\nmetadata: {name: on}":                                      "put quotes around texts such as on",
		"kind: Mask\nmetadata: {name: 7}":                                       "put quotes",
		"kind: Mask\x00":                                                        "control character",
		"kind: Mask\rkind: Lock":                                                "control character",
		"kind: Mask\u2028---\u2028kind: Lock":                                   "unusual line break",
		"kind: Mask\u0085---\u0085kind: Lock":                                   "unusual line break",
		"\xff\xfek\x00i\x00":                                                    "not UTF-8",
		"kind: Task\nspec: {limits: {rows: many}}":                              `Task ""`,
		strings.Repeat("---\nkind: Mask\n", object.MaxDocuments+1):              "more than 10000 documents",
		"a: " + strings.Repeat("x", object.MaxBytes):                            "longer than 32 MiB",
	} {
		objects, err := object.ParseYAML(strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, %v; want %q", text, len(objects), err, want)
		}
	}
}

func TestYAMLRoundTrips(t *testing.T) {
	for _, o := range parse(t, two) {
		text, err := object.YAML(o)
		if err != nil {
			t.Fatal(err)
		}
		again := parse(t, string(text))
		if len(again) != 1 || !proto.Equal(o, again[0]) {
			t.Errorf("%s came back as %v from\n%s", object.Ref(o), again, text)
		}
	}
	if _, err := object.YAML(&typesv1.Object{}); err == nil {
		t.Error("an empty object has a text")
	}
}

func TestKinds(t *testing.T) {
	kinds := object.Kinds()
	want := []string{"approvalrule", "binding", "lock", "mask", "node", "resource", "rolebinding", "secret", "task", "workload"}
	if !slices.Equal(kinds, want) {
		t.Errorf("kinds are %v", kinds)
	}
	for _, k := range kinds {
		o := object.Bare(k, "x")
		if object.Ref(o) != k+"/x" || object.Kind(o) != k {
			t.Errorf("bare %s is %v", k, o)
		}
	}
	if object.Bare("gizmo", "x") != nil {
		t.Error("an unknown kind is made")
	}
}

func TestNothing(t *testing.T) {
	for _, o := range []*typesv1.Object{nil, {}} {
		if object.Kind(o) != "" || object.Name(o) != "" || object.Meta(o) != nil || object.Labels(o) != nil || object.Ref(o) != "/" {
			t.Errorf("%v is something", o)
		}
		object.Normalize(o)
	}
}

func TestReadingChangesNothing(t *testing.T) {
	o := &typesv1.Object{Kind: &typesv1.Object_Task{Task: &typesv1.Task{}}}
	if object.Name(o) != "" || object.Labels(o) != nil || object.Ref(o) != "task/" {
		t.Error("it has a name")
	}
	if _, err := object.HashOf(o); err != nil {
		t.Error(err)
	}
	if o.GetTask().Metadata != nil {
		t.Error("reading made metadata, which races where objects are shared")
	}
	if object.Meta(o); o.GetTask().Metadata == nil {
		t.Error("Meta made none")
	}
}

// TestCheckName: a name has one form, so that two that differ in case are never one
// (CVE-2025-5999).
func TestCheckName(t *testing.T) {
	for _, good := range []string{"a", "0", "sales-report", "a1-b2", strings.Repeat("a", object.MaxName)} {
		if err := object.CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "Admin", "a_b", "a.b", "a--b", "a b", "ä", "a\n", "a/b", strings.Repeat("a", object.MaxName+1)} {
		if object.CheckName(bad) == nil {
			t.Errorf("%q is a name", bad)
		}
	}
}

func TestHashes(t *testing.T) {
	objects := parse(t, two)
	first, err := object.HashOf(objects[0])
	if err != nil {
		t.Fatal(err)
	}
	same := proto.CloneOf(objects[0])
	object.Meta(same).Etag, object.Meta(same).CreatedBy = "7", "ada"
	if h, _ := object.HashOf(same); h != first {
		t.Error("an etag changes the hash")
	}
	if p := object.Plain(same); object.Meta(p).Etag != "" || object.Labels(p)["team"] != "sales" || object.Meta(same).Etag != "7" {
		t.Errorf("plain is %v of %v", p, same)
	}
	object.Meta(same).Labels = nil
	if h, _ := object.HashOf(same); h == first {
		t.Error("labels do not change the hash")
	}
	if h, _ := object.HashOf(objects[1]); h == first {
		t.Error("two objects have one hash")
	}
}

// FuzzParseYAML reads anything; what it reads can be written and read again, and is the
// same.
func FuzzParseYAML(f *testing.F) {
	f.Add([]byte(two))
	f.Add([]byte("kind: Lock\nmetadata: {name: l}\nspec: {subject: &a alice, reason: *a}\n...\n--- {kind: Secret}"))
	f.Add([]byte("kind: Resource\nspec: {pin: {a: [1, true, null]}, classify: {a.b.c: [x]}}"))
	f.Add([]byte("kind: Node\nspec: {hpkeKey: AAAA, endpoints: {postgres: 'a:1'}}\r\n---\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, err := object.ParseYAML(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, o := range objects {
			if object.Kind(o) == "" {
				t.Fatal("an object without a kind")
			}
			out, err := object.YAML(o)
			if err != nil {
				t.Fatalf("%s cannot be written: %v", object.Ref(o), err)
			}
			again, err := object.ParseYAML(bytes.NewReader(out))
			if err != nil || len(again) != 1 || !proto.Equal(o, again[0]) {
				t.Fatalf("%v came back as %v, %v, from\n%s", o, again, err, out)
			}
		}
	})
}
