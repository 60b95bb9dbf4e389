package fields

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"sigs.k8s.io/yaml"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// TestImageIsTheCode: what is told of fields is what this program reads and writes.
func TestImageIsTheCode(t *testing.T) {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(image, set); err != nil {
		t.Fatal(err)
	}
	set.GetFile()[0].SourceCodeInfo = nil
	if code := protodesc.ToFileDescriptorProto(typesv1.File_postern_types_v1_object_proto); len(set.GetFile()) != 1 || !proto.Equal(set.GetFile()[0], code) {
		t.Error("object.binpb is of other definitions: make generate")
	}
}

func TestKinds(t *testing.T) {
	var names []string
	for _, k := range Kinds() {
		names = append(names, k.Name)
	}
	if got, want := strings.Join(names, " "), strings.Join(object.Kinds(), " "); got != want {
		t.Errorf("kinds are %s, want %s", got, want)
	}
}

// TestEveryFieldIsTold walks all that can be written: each has a type and says what it means.
func TestEveryFieldIsTold(t *testing.T) {
	n := 0
	var walk func(path string, f Field)
	walk = func(path string, f Field) {
		n++
		at, err := At(path)
		if err != nil || at.Type != f.Type || at.Doc != f.Doc {
			t.Errorf("%s is found as %+v, %v", path, at, err)
		}
		if words := strings.Fields(f.Type); len(words) == 0 || strings.HasSuffix(f.Type, "of ") || words[0] == "by" || f.Doc == "" {
			t.Errorf("%s: type %q, %q", path, f.Type, f.Doc)
		}
		for _, below := range f.Fields() {
			walk(path+"."+below.Name, below)
		}
	}
	for _, k := range Kinds() {
		walk(k.Name, k)
	}
	if n < 300 {
		t.Errorf("only %d fields", n)
	}
}

func TestPaths(t *testing.T) {
	for path, want := range map[string]string{
		"task.spec.permit":             "list of Permit",
		"Task.spec.permit.mask":        "text by name",
		"resource.spec.pin":            "any value by name",
		"resource.spec.classify":       "list by name",
		"lock.spec.expires":            "time",
		"task.metadata.uid":            "text",
		"task.spec.permit.maxAffected": "number",
	} {
		f, err := At(path)
		if err != nil || f.Type != want {
			t.Errorf("%s is %q, %v; want %q", path, f.Type, err, want)
		}
		if f.Output != (path == "task.metadata.uid") {
			t.Errorf("%s: output only is %v", path, f.Output)
		}
	}
	for path, want := range map[string]string{
		"":                       `no kind ""; there are approvalrule, binding,`,
		"tusk":                   `no kind "tusk"`,
		"task.spec.permits":      `task.spec has no field "permits"; there are purpose,`,
		"task.spec.purpose.why":  "task.spec.purpose is text, and has no fields",
		"task.spec.permit.mask.": "is text by name, and has no fields",
	} {
		if _, err := At(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", path, err, want)
		}
	}
}

func compiled(t *testing.T, schema map[string]any) *jsonschema.Schema {
	t.Helper()
	js, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(js))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("postern.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("postern.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checked(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	js, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(js))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

var filledIn = regexp.MustCompile(`\$\{[A-Z_]+_(PORT|CREDENTIAL|CATALOG)\}`)

// TestSchemaTakesTheSampleCompany: an editor finds no fault with what is applied every day.
func TestSchemaTakesTheSampleCompany(t *testing.T) {
	s := compiled(t, Schema())
	files, err := filepath.Glob("../../../deploy/dev/world/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(filledIn.ReplaceAllStringFunc(string(text), func(name string) string {
			if strings.HasSuffix(name, "_PORT}") {
				return "1"
			}
			return "{}"
		}), "\n---\n") {
			if err := checked(t, s, doc); err != nil {
				t.Errorf("%s: %v\n%s", file, err, doc)
			}
		}
	}
}

// TestSchemaIsTheReader: what the schema says of a text is what is said of it when it is applied.
func TestSchemaIsTheReader(t *testing.T) {
	s := compiled(t, Schema())
	for _, c := range []struct {
		text string
		good bool
	}{
		{"{apiVersion: postern/v1, kind: Task, metadata: {name: a}, spec: {duration: 1h}}", true},
		{"{kind: Task, metadata: {name: a}, spec: {permit: [{table: a.b, maxAffected: 3}]}}", true},
		{"{kind: Task, metadata: {name: a}, spec: {permit: [{table: a.b, maxAffected: '3'}]}}", true},
		{"{kind: Task, metadata: {name: a}, spec: {permit: [{table: a.b, maxAffected: three}]}}", false},
		{"{kind: Task, metadata: {name: a}, spec: {permit: {table: a.b}}}", false},
		{"{kind: Task, metadata: {name: a}, spec: {permits: []}}", false},
		{"{kind: Task, metadata: {name: a}, spec: {duration: 1}}", false},
		{"{kind: Tusk, metadata: {name: a}}", false},
		{"{apiVersion: postern/v2, kind: Task, metadata: {name: a}}", false},
		{"{kind: Lock, metadata: {name: a}, spec: {subject: bob, expires: 2030-01-01T00:00:00Z}}", true},
		{"{kind: Resource, metadata: {name: a}, spec: {pin: {search_path: [a], x: 1}, classify: {a.b.c: [pii]}}}", true},
		{"{kind: Resource, metadata: {name: a}, spec: {classify: {a.b.c: pii}}}", false},
	} {
		bySchema := checked(t, s, c.text)
		_, byReader := object.ParseYAML(strings.NewReader(c.text))
		if (bySchema == nil) != c.good || (byReader == nil) != c.good {
			t.Errorf("%s: good is %v; schema: %v; reader: %v", c.text, c.good, bySchema, byReader)
		}
	}
}

func TestSchemaOfAPart(t *testing.T) {
	f, err := At("task.spec.permit")
	if err != nil {
		t.Fatal(err)
	}
	s := compiled(t, f.Schema())
	if err := checked(t, s, "[{table: a.b, verbs: [select]}]"); err != nil {
		t.Error(err)
	}
	if err := checked(t, s, "[{table: a.b, verb: select}]"); err == nil {
		t.Error("a field that there is not is taken")
	}
}
