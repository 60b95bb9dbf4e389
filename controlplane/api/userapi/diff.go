package userapi

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// maxPaths bounds how many differing fields are named.
const maxPaths = 20

// outputOnly are the fields of metadata that the system keeps.
var outputOnly = []protoreflect.Name{"uid", "etag", "create_time", "update_time", "created_by"}

// differ lists the paths of the fields in which two objects of one kind differ, as
// people write them, such as spec.permit[0].mask.email. What the system keeps is left
// out, and so are values.
func differ(a, b *typesv1.Object) []string {
	d := &differences{}
	d.message("", content(a), content(b))
	slices.Sort(d.paths)
	return slices.Compact(d.paths)
}

// content is the message within the oneof; an invalid one where there is none.
func content(o *typesv1.Object) protoreflect.Message {
	m := o.ProtoReflect()
	if f := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind")); f != nil {
		return m.Get(f).Message()
	}
	return (*typesv1.Object)(nil).ProtoReflect()
}

type differences struct{ paths []string }

func (d *differences) add(path string) {
	if len(d.paths) < maxPaths {
		d.paths = append(d.paths, strings.TrimPrefix(path, "."))
	}
}

func (d *differences) message(path string, a, b protoreflect.Message) {
	if a.Descriptor() != b.Descriptor() {
		d.add(path)
		return
	}
	if !a.IsValid() || !b.IsValid() { // one is unset
		if a.IsValid() != b.IsValid() {
			d.add(path)
		}
		return
	}
	fields := a.Descriptor().Fields()
	if a.Descriptor().FullName().Parent() != "postern.types.v1" && fields.Len() > 0 { // a well-known type is one value
		if !protoreflect.ValueOfMessage(a).Equal(protoreflect.ValueOfMessage(b)) {
			d.add(path)
		}
		return
	}
	isMeta := a.Descriptor().Name() == "Metadata"
	for i := range fields.Len() {
		f := fields.Get(i)
		if isMeta && slices.Contains(outputOnly, f.Name()) {
			continue
		}
		at := path + "." + f.JSONName()
		va, vb := a.Get(f), b.Get(f)
		switch {
		case f.IsMap():
			d.maps(at, f, va.Map(), vb.Map())
		case f.IsList():
			d.lists(at, f, va.List(), vb.List())
		case f.Message() != nil:
			d.message(at, va.Message(), vb.Message())
		case !va.Equal(vb):
			d.add(at)
		}
	}
}

func (d *differences) value(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Value) {
	if f.Message() != nil {
		d.message(path, a.Message(), b.Message())
	} else if !a.Equal(b) {
		d.add(path)
	}
}

func (d *differences) maps(path string, f protoreflect.FieldDescriptor, a, b protoreflect.Map) {
	a.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		if b.Has(k) {
			d.value(path+"."+k.String(), f.MapValue(), v, b.Get(k))
		} else {
			d.add(path + "." + k.String())
		}
		return true
	})
	b.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		if !a.Has(k) {
			d.add(path + "." + k.String())
		}
		return true
	})
}

func (d *differences) lists(path string, f protoreflect.FieldDescriptor, a, b protoreflect.List) {
	for i := range max(a.Len(), b.Len()) {
		at := fmt.Sprintf("%s[%d]", path, i)
		if i >= a.Len() || i >= b.Len() {
			d.add(at)
			continue
		}
		d.value(at, f, a.Get(i), b.Get(i))
	}
}
