// Package object reads and writes the kinds that people keep as YAML: their names,
// metadata and text form. The YAML of a kind is the JSON of its message.
package object

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"sigs.k8s.io/yaml"

	"github.com/posterngate/postern/pkg/conf"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// APIVersion is the apiVersion of every kind.
const APIVersion = "postern/v1"

var kindOneof = (*typesv1.Object)(nil).ProtoReflect().Descriptor().Oneofs().ByName("kind")

// Kinds are the kinds in lower case, as keys and commands name them, sorted.
func Kinds() []string {
	var kinds []string
	for i := range kindOneof.Fields().Len() {
		kinds = append(kinds, strings.ToLower(string(kindOneof.Fields().Get(i).Message().Name())))
	}
	slices.Sort(kinds)
	return kinds
}

func field(kind string) protoreflect.FieldDescriptor {
	for i := range kindOneof.Fields().Len() {
		if f := kindOneof.Fields().Get(i); strings.EqualFold(string(f.Message().Name()), kind) {
			return f
		}
	}
	return nil
}

func inner(o *typesv1.Object) protoreflect.Message {
	m := o.ProtoReflect()
	f := m.WhichOneof(kindOneof)
	if f == nil {
		return nil
	}
	return m.Get(f).Message()
}

// Content is the message of an object's kind, such as a Task; o itself where it is empty.
func Content(o *typesv1.Object) proto.Message {
	if m := inner(o); m != nil {
		return m.Interface()
	}
	return o
}

// Kind is the kind in lower case, such as "task"; empty for an empty object.
func Kind(o *typesv1.Object) string {
	m := inner(o)
	if m == nil {
		return ""
	}
	return strings.ToLower(string(m.Descriptor().Name()))
}

// Meta is the object's metadata, made if it was missing; nil for an empty object.
func Meta(o *typesv1.Object) *typesv1.Metadata {
	m := inner(o)
	if m == nil {
		return nil
	}
	return m.Mutable(m.Descriptor().Fields().ByName("metadata")).Message().Interface().(*typesv1.Metadata)
}

// Carries reports whether labels have every pair that a selector or scope asks for.
func Carries(labels, want map[string]string) bool {
	for k, v := range want {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// read is the object's metadata for reading; unlike Meta it makes nothing, so that it is
// safe on objects that are shared.
func read(o *typesv1.Object) *typesv1.Metadata {
	m := inner(o)
	if m == nil {
		return nil
	}
	meta, _ := m.Get(m.Descriptor().Fields().ByName("metadata")).Message().Interface().(*typesv1.Metadata)
	return meta
}

// Name is the object's name; empty for an empty object.
func Name(o *typesv1.Object) string { return read(o).GetName() }

// Labels are the object's labels, for reading.
func Labels(o *typesv1.Object) map[string]string { return read(o).GetLabels() }

// Ref is "kind/name".
func Ref(o *typesv1.Object) string { return Kind(o) + "/" + Name(o) }

// Bare is an object of the kind with nothing but a name; nil for an unknown kind.
func Bare(kind, name string) *typesv1.Object {
	f := field(kind)
	if f == nil {
		return nil
	}
	o := &typesv1.Object{}
	o.ProtoReflect().Mutable(f)
	Normalize(o)
	Meta(o).Name = name
	return o
}

// Normalize sets apiVersion and kind to what they always are.
func Normalize(o *typesv1.Object) {
	m := inner(o)
	if m == nil {
		return
	}
	fields := m.Descriptor().Fields()
	m.Set(fields.ByName("api_version"), protoreflect.ValueOfString(APIVersion))
	m.Set(fields.ByName("kind"), protoreflect.ValueOfString(string(m.Descriptor().Name())))
}

var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// MaxName is the longest name, in bytes, so that TASK--RESOURCE fits one label of a
// host name.
const MaxName = 30

// CheckName says what is wrong with a name, or nil.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("a name is required")
	case len(name) > MaxName:
		return fmt.Errorf("%.60q is longer than %d characters", name, MaxName)
	case !label.MatchString(name):
		return fmt.Errorf("%q is not a DNS label: lower-case letters, digits and single dashes, with a letter or digit at both ends", name)
	case strings.Contains(name, "--"):
		return fmt.Errorf("%q has a double dash", name)
	}
	return nil
}

// Bounds of one YAML text.
const (
	MaxDocuments = 10_000
	MaxBytes     = 32 << 20
)

// maxErrorText bounds what is quoted of a text that cannot be read, in characters.
const maxErrorText = 1000

// ParseYAML reads documents separated by "---". Unknown fields are errors; an error
// names the document, from 1, its kind and name where they could be read, and the line.
func ParseYAML(r io.Reader) ([]*typesv1.Object, error) {
	all, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(all) > MaxBytes {
		return nil, fmt.Errorf("longer than %d MiB", MaxBytes>>20)
	}
	if err := checkLines(all); err != nil {
		return nil, err
	}
	documents := slices.DeleteFunc(splitYAML(all), func(doc document) bool { return len(bytes.TrimSpace(doc.text)) == 0 })
	if len(documents) > MaxDocuments {
		return nil, fmt.Errorf("more than %d documents", MaxDocuments)
	}
	var objects []*typesv1.Object
	written := 0
	for i, doc := range documents {
		o, n, err := parseOne(doc.text, MaxBytes-written)
		if err != nil && doc.before > 0 { // once more in its place, for the lines that errors name
			if _, _, again := parseOne(append(bytes.Repeat([]byte("\n"), doc.before), doc.text...), MaxBytes-written); again != nil {
				err = again
			}
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %.*s", i+1, maxErrorText, err)
		}
		if written += n; o != nil {
			objects = append(objects, o)
		}
	}
	return objects, nil
}

// checkLines refuses texts in which YAML sees other lines, and so other documents, than
// splitYAML does: what it would pass over in silence must not be lost.
func checkLines(all []byte) error {
	if !utf8.Valid(all) {
		return errors.New("not UTF-8")
	}
	for i, c := range all {
		if c == 0 || c == '\r' && (i+1 == len(all) || all[i+1] != '\n') {
			return fmt.Errorf("byte %d is a control character; lines end with a line feed", i)
		}
	}
	for _, brk := range []string{"\u0085", "\u2028", "\u2029"} {
		if i := bytes.Index(all, []byte(brk)); i >= 0 {
			return fmt.Errorf("byte %d is an unusual line break; lines end with a line feed", i)
		}
	}
	return nil
}

// A document is one of a text, behind so many lines of it.
type document struct {
	text   []byte
	before int
}

// splitYAML cuts at the marks between documents: "---", which may begin a line of the
// next one, and "...".
func splitYAML(all []byte) []document {
	var docs []document
	var doc document
	n := 0
	for line := range bytes.Lines(bytes.TrimPrefix(all, []byte("\ufeff"))) {
		mark, rest := []byte(nil), line
		if len(line) >= 3 {
			mark, rest = line[:3], line[3:]
		}
		begins, ends := bytes.Equal(mark, []byte("---")), bytes.Equal(mark, []byte("..."))
		if (begins || ends) && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0) {
			docs = append(docs, doc)
			doc = document{append([]byte("   "), rest...), n}
		} else {
			doc.text = append(doc.text, line...)
		}
		n++
	}
	return append(docs, doc)
}

// parseOne reads a document that may have so many bytes with its aliases written out, and says
// how many it has.
func parseOne(doc []byte, most int) (*typesv1.Object, int, error) {
	n, err := writtenOut(doc)
	if err == nil && n > most {
		err = fmt.Errorf("with what aliases stand for it is longer than %d MiB", MaxBytes>>20)
	}
	if err != nil {
		return nil, 0, err
	}
	o, err := parseObject(doc)
	return o, n, err
}

func parseObject(doc []byte) (*typesv1.Object, error) {
	var head *struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Metadata   struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	var odd *json.UnmarshalTypeError
	switch err := yaml.Unmarshal(doc, &head); {
	case errors.As(err, &odd):
		return nil, fmt.Errorf("is no object with kind, metadata and spec: %s is not what it must be", cmp.Or(odd.Field, "the whole of it"))
	case err != nil:
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	if head == nil {
		return nil, nil // comments only
	}
	f := field(head.Kind)
	switch {
	case head.Kind == "":
		return nil, errors.New("kind is missing")
	case f == nil:
		return nil, fmt.Errorf("kind %q is not known; kinds: %s", head.Kind, strings.Join(Kinds(), ", "))
	case head.APIVersion != "" && head.APIVersion != APIVersion:
		return nil, fmt.Errorf("%s %q: apiVersion is %q, want %q", head.Kind, head.Metadata.Name, head.APIVersion, APIVersion)
	}
	js, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", head.Kind, head.Metadata.Name, err)
	}
	o := &typesv1.Object{}
	m := o.ProtoReflect().Mutable(f).Message()
	if err := protojson.Unmarshal(js, m.Interface()); err != nil {
		return nil, fmt.Errorf("%s %q: %w", head.Kind, head.Metadata.Name, conf.Place(doc, errors.New(explain(err, js, m.Descriptor()))))
	}
	Normalize(o)
	return o, nil
}

// YAML is the object as people read and write it.
func YAML(o *typesv1.Object) ([]byte, error) {
	m := inner(o)
	if m == nil {
		return nil, errors.New("empty object")
	}
	js, err := protojson.Marshal(m.Interface())
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(js)
}
