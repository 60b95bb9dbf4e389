package fields

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/posterngate/postern/pkg/object"
)

// dialect is the JSON Schema that editors read.
const dialect = "https://json-schema.org/draft/2020-12/schema"

// Schema is the JSON Schema of an object of any kind, for editors that complete and check YAML.
func Schema() map[string]any {
	s := schemas{}
	var kinds, each []any
	for _, k := range Kinds() {
		name := string(messageOf(k.holds).Name())
		kinds = append(kinds, name)
		each = append(each, map[string]any{
			"if":   map[string]any{"properties": map[string]any{"kind": map[string]any{"const": name}}, "required": []string{"kind"}},
			"then": s.of(k.holds),
		})
	}
	return s.document(map[string]any{
		"type":       "object",
		"required":   []string{"kind", "metadata"},
		"properties": map[string]any{"kind": map[string]any{"enum": kinds}},
		"allOf":      each,
	})
}

// Schema is the JSON Schema of what the field holds.
func (f Field) Schema() map[string]any {
	s := schemas{}
	return s.document(s.of(f.holds))
}

// schemas are those of messages, by name.
type schemas map[string]any

func (s schemas) document(of map[string]any) map[string]any {
	of["$schema"] = dialect
	if len(s) > 0 {
		of["$defs"] = s
	}
	return of
}

// of is a schema of a field's own, which may be added to.
func (s schemas) of(d protoreflect.FieldDescriptor) map[string]any {
	switch {
	case d.IsMap():
		return map[string]any{"type": "object", "additionalProperties": s.of(d.MapValue())}
	case d.IsList():
		return map[string]any{"type": "array", "items": s.single(d)}
	}
	return s.single(d)
}

func (s schemas) single(d protoreflect.FieldDescriptor) map[string]any {
	if m := messageOf(d); m != nil {
		s.define(m)
		return map[string]any{"$ref": "#/$defs/" + string(m.Name())}
	}
	of := scalars[d.Kind()].schema
	if m := d.Message(); m != nil {
		of = known[m.FullName()].schema
	}
	own := map[string]any{}
	for k, v := range of {
		own[k] = v
	}
	return own
}

func (s schemas) define(m protoreflect.MessageDescriptor) {
	name := string(m.Name())
	if _, is := s[name]; is {
		return
	}
	properties := map[string]any{}
	s[name] = map[string]any{"type": "object", "description": comment(m), "properties": properties, "additionalProperties": false}
	for i := range m.Fields().Len() {
		f := fieldOf(m.Fields().Get(i))
		of := s.of(f.holds)
		if of["description"] = f.Doc; f.Output {
			of["readOnly"] = true
		}
		switch strings.TrimSuffix(f.Doc, ".") { // what always stands in its place
		case `Always "` + object.APIVersion + `"`:
			of["const"] = object.APIVersion
		case `Always "` + name + `"`:
			of["const"] = name
		}
		properties[f.Name] = of
	}
}
