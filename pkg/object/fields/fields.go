// Package fields tells what people may write in an object: the fields of each kind, what they
// hold and what they mean. All of it comes from the definitions in proto/ and their comments.
package fields

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	_ "github.com/posterngate/postern/pkg/gen/postern/types/v1" // what the definitions import
)

// image is object.proto with its comments, which the descriptors in generated code are without.
//
//go:embed object.binpb
var image []byte

var file = sync.OnceValue(func() protoreflect.FileDescriptor {
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(image, set); err != nil {
		panic(fmt.Sprintf("fields: object.binpb: %v", err)) // it was built with the program
	}
	f, err := protodesc.NewFile(set.GetFile()[0], protoregistry.GlobalFiles)
	if err != nil {
		panic(fmt.Sprintf("fields: object.binpb: %v", err))
	}
	return f
})

// A Field is one key of an object's YAML.
type Field struct {
	Name string
	// Type is what it holds, for people: "text", "list of Permit", "text by name".
	Type string
	// Doc is what it means; paragraphs end with a line feed.
	Doc string
	// About is what the message that it holds is.
	About string
	// Output is whether Postern alone sets it.
	Output bool

	holds protoreflect.FieldDescriptor
}

// Kinds are all kinds, by name.
func Kinds() []Field {
	var kinds []Field
	all := file().Messages().ByName("Object").Oneofs().ByName("kind").Fields()
	for i := range all.Len() {
		kinds = append(kinds, kindOf(all.Get(i)))
	}
	slices.SortFunc(kinds, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return kinds
}

func kindOf(d protoreflect.FieldDescriptor) Field {
	f := fieldOf(d)
	f.Name, f.Doc, f.About = strings.ToLower(string(d.Message().Name())), f.About, ""
	return f
}

// At is the field at a path such as task.spec.permit, of which the first part is a kind. Names
// are those of YAML; lists and values that stand by name add nothing to a path.
func At(path string) (Field, error) {
	parts := strings.Split(path, ".")
	kinds := Kinds()
	i := slices.IndexFunc(kinds, func(k Field) bool { return strings.EqualFold(k.Name, parts[0]) })
	if i < 0 {
		return Field{}, fmt.Errorf("there is no kind %q; there are %s", parts[0], names(kinds))
	}
	at := kinds[i]
	for n, part := range parts[1:] {
		before := strings.Join(parts[:n+1], ".")
		below := at.Fields()
		if len(below) == 0 {
			return Field{}, fmt.Errorf("%s is %s, and has no fields", before, at.Type)
		}
		i := slices.IndexFunc(below, func(f Field) bool { return strings.EqualFold(f.Name, part) })
		if i < 0 {
			return Field{}, fmt.Errorf("%s has no field %q; there are %s", before, part, names(below))
		}
		at = below[i]
	}
	return at, nil
}

func names(fields []Field) string {
	var out []string
	for _, f := range fields {
		out = append(out, f.Name)
	}
	return strings.Join(out, ", ")
}

// Fields are the fields of what the field holds, in the order of their definition; none where
// it holds values.
func (f Field) Fields() []Field {
	m := messageOf(f.holds)
	if m == nil {
		return nil
	}
	var fields []Field
	for i := range m.Fields().Len() {
		fields = append(fields, fieldOf(m.Fields().Get(i)))
	}
	return fields
}

func fieldOf(d protoreflect.FieldDescriptor) Field {
	f := Field{Name: d.JSONName(), Type: typeOf(d), Doc: comment(d), holds: d}
	f.Output = strings.HasSuffix(f.Doc, "Output only.")
	if m := messageOf(d); m != nil {
		f.About = comment(m)
	}
	return f
}

// messageOf is the message of ours that a field holds, in a list or by name too; nil for values.
func messageOf(d protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if d.IsMap() {
		return messageOf(d.MapValue())
	}
	if m := d.Message(); m != nil && m.ParentFile().Package() == file().Package() {
		return m
	}
	return nil
}

// comment is what stands before a definition, each paragraph on one line.
func comment(d protoreflect.Descriptor) string {
	var paragraphs []string
	text := d.ParentFile().SourceLocations().ByDescriptor(d).LeadingComments
	for p := range strings.SplitSeq(text, "\n\n") {
		if p = strings.Join(strings.Fields(p), " "); p != "" {
			paragraphs = append(paragraphs, p)
		}
	}
	return strings.Join(paragraphs, "\n")
}

func typeOf(d protoreflect.FieldDescriptor) string {
	switch {
	case d.IsMap():
		return typeOf(d.MapValue()) + " by name"
	case d.IsList():
		return "list of " + single(d)
	}
	return single(d)
}

// single is the type of one value.
func single(d protoreflect.FieldDescriptor) string {
	if m := d.Message(); m != nil {
		if k, ok := known[m.FullName()]; ok {
			return k.name
		}
		return string(m.Name())
	}
	return scalars[d.Kind()].name
}

// A shape is how people and JSON Schema name what a value is.
type shape struct {
	name   string
	schema map[string]any
}

var (
	scalars = map[protoreflect.Kind]shape{
		protoreflect.StringKind: {"text", map[string]any{"type": "string"}},
		protoreflect.BoolKind:   {"true or false", map[string]any{"type": "boolean"}},
		protoreflect.Int32Kind:  {"number", map[string]any{"type": "integer"}},
		protoreflect.Int64Kind:  {"number", map[string]any{"type": []string{"integer", "string"}, "pattern": "^-?[0-9]+$"}},
		protoreflect.Uint64Kind: {"number", map[string]any{"type": []string{"integer", "string"}, "pattern": "^[0-9]+$"}},
		protoreflect.DoubleKind: {"number", map[string]any{"type": "number"}},
		protoreflect.BytesKind:  {"base64", map[string]any{"type": "string", "contentEncoding": "base64"}},
	}
	known = map[protoreflect.FullName]shape{
		"google.protobuf.Timestamp": {"time", map[string]any{"type": "string", "format": "date-time"}},
		"google.protobuf.Value":     {"any value", map[string]any{}},
		"google.protobuf.ListValue": {"list", map[string]any{"type": "array"}},
	}
)
