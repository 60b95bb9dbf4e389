package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// Limits of what an entry keeps.
const (
	maxText    = 1 << 10
	maxObjects = 8 << 10
	maxDetail  = 16 << 10
	maxDepth   = 16
)

func short(s string) string { return text(s, maxText) }

// text is s as valid UTF-8 of at most n bytes.
func text(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Redact is a copy of m in which every field that is not marked as no secret is blank,
// however deep.
func Redact[M proto.Message](m M) M {
	out := proto.CloneOf(m)
	redact(out.ProtoReflect())
	return out
}

func redact(m protoreflect.Message) {
	m.SetUnknown(nil) // what has no name here may be a secret there
	if wellKnown(m.Descriptor()) {
		return
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if secret(f) {
			m.Clear(f)
			return true
		}
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { redact(v.Message()); return true })
		case f.IsList() && f.Message() != nil:
			for i := range v.List().Len() {
				redact(v.List().Get(i).Message())
			}
		case f.Message() != nil && !f.IsMap() && !f.IsList():
			redact(v.Message())
		}
		return true
	})
}

// secret reports whether a field's value stays here: unless the field says that it is
// none, it is one.
func secret(f protoreflect.FieldDescriptor) bool {
	o, ok := f.Options().(*descriptorpb.FieldOptions)
	if !ok || !proto.HasExtension(o, typesv1.E_IsSecret) {
		return true
	}
	is, ok := proto.GetExtension(o, typesv1.E_IsSecret).(bool)
	return !ok || is
}

// wellKnown are the messages of protobuf itself, such as times, whose fields carry no
// marks: the field that holds one says for all of it.
func wellKnown(d protoreflect.MessageDescriptor) bool {
	return d.ParentFile().Package() == "google.protobuf"
}

// What stands in the place of a secret: it is there, and it is another one than before.
const (
	isSecret      = "(secret)"
	secretChanged = "(secret, changed)"
)

// redacted is m as what json knows, without secrets. was is what it was before, or nil.
func redacted(m, was proto.Message) any {
	var before protoreflect.Message
	if was != nil && was.ProtoReflect().Descriptor() == m.ProtoReflect().Descriptor() {
		before = was.ProtoReflect()
	}
	return redactedMessage(m.ProtoReflect(), before)
}

func redactedMessage(m, was protoreflect.Message) any {
	if wellKnown(m.Descriptor()) {
		js, err := protojson.Marshal(m.Interface())
		if err != nil {
			return fmt.Sprintf("unreadable %s", m.Descriptor().Name())
		}
		return json.RawMessage(js)
	}
	out := make(map[string]any)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		var before protoreflect.Value // of the same field; invalid where it was unset
		if was != nil && was.Has(f) {
			before = was.Get(f)
		}
		switch {
		case secret(f) && was != nil && (!before.IsValid() || !before.Equal(v)):
			out[f.JSONName()] = secretChanged
		case secret(f):
			out[f.JSONName()] = isSecret
		case f.IsMap():
			values := make(map[string]any, v.Map().Len())
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				var one protoreflect.Value
				if before.IsValid() {
					one = before.Map().Get(k)
				}
				values[k.String()] = redactedValue(f.MapValue(), v, one)
				return true
			})
			out[f.JSONName()] = values
		case f.IsList():
			values := make([]any, v.List().Len())
			for i := range values {
				var one protoreflect.Value
				if before.IsValid() && i < before.List().Len() {
					one = before.List().Get(i)
				}
				values[i] = redactedValue(f, v.List().Get(i), one)
			}
			out[f.JSONName()] = values
		default:
			out[f.JSONName()] = redactedValue(f, v, before)
		}
		return true
	})
	return out
}

func redactedValue(f protoreflect.FieldDescriptor, v, was protoreflect.Value) any {
	if f.Message() != nil {
		var before protoreflect.Message
		if was.IsValid() {
			before = was.Message()
		}
		return redactedMessage(v.Message(), before)
	}
	if f.Enum() != nil {
		if e := f.Enum().Values().ByNumber(v.Enum()); e != nil {
			return string(e.Name())
		}
		return int32(v.Enum())
	}
	return v.Interface()
}

// detail is d as JSON without secrets; where it is too long, or has no form, it says so.
func detail(d any) string {
	if d == nil {
		return ""
	}
	js, err := json.Marshal(plain(reflect.ValueOf(d), maxDepth))
	if err != nil {
		js, _ = json.Marshal(map[string]any{"unreadable": fmt.Sprintf("%T", d)}) // strings always marshal
	}
	if len(js) > maxDetail {
		sum := sha256.Sum256(js)
		js, _ = json.Marshal(map[string]any{"tooLong": len(js), "sha256": hex.EncodeToString(sum[:])}) // the same
	}
	return string(js)
}

var (
	messageType   = reflect.TypeFor[proto.Message]()
	marshalerType = reflect.TypeFor[json.Marshaler]()
	errorType     = reflect.TypeFor[error]()
)

// plain turns a value into what json knows, so that no message in it, however deep, is
// printed with its secrets. Unexported fields are left out, as json does.
func plain(v reflect.Value, depth int) any {
	if !v.IsValid() || depth == 0 {
		return nil
	}
	t := v.Type()
	nilable := v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface || v.Kind() == reflect.Map || v.Kind() == reflect.Slice
	if nilable && v.IsNil() {
		return nil
	}
	switch {
	case v.Kind() == reflect.Interface:
		return plain(v.Elem(), depth)
	case t.Implements(messageType):
		return redacted(v.Interface().(proto.Message), nil)
	case t.Implements(marshalerType):
		return v.Interface()
	case t.Implements(errorType):
		return v.Interface().(error).Error()
	}
	switch v.Kind() {
	case reflect.Pointer:
		return plain(v.Elem(), depth-1)
	case reflect.Map:
		out := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			out[fmt.Sprint(it.Key().Interface())] = plain(it.Value(), depth-1)
		}
		return out
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return v.Interface()
		}
		out := make([]any, v.Len())
		for i := range out {
			out[i] = plain(v.Index(i), depth-1)
		}
		return out
	case reflect.Struct:
		out := make(map[string]any)
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				out[f.Name] = plain(v.Field(i), depth-1)
			}
		}
		return out
	}
	return v.Interface()
}
