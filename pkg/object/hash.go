package object

import (
	"crypto/sha256"
	"iter"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// Hash is SHA-256 over one object or over a set of them.
type Hash [sha256.Size]byte

// Plain is the object as nodes know it: of its metadata only name and labels are left.
// It shares what it can with o, and so neither may be changed afterwards.
func Plain(o *typesv1.Object) *typesv1.Object {
	m := inner(o)
	if m == nil {
		return o
	}
	meta := read(o)
	plain := &typesv1.Metadata{Name: meta.GetName(), Labels: meta.GetLabels()}
	if proto.Equal(meta, plain) {
		return o
	}
	fields := m.Descriptor().Fields()
	out := m.New()
	for i := range fields.Len() {
		if f := fields.Get(i); m.Has(f) && f.Name() != "metadata" {
			out.Set(f, m.Get(f))
		}
	}
	out.SetUnknown(m.GetUnknown())
	out.Set(fields.ByName("metadata"), protoreflect.ValueOfMessage(plain.ProtoReflect()))
	wrapped := &typesv1.Object{}
	wrapped.ProtoReflect().Set(o.ProtoReflect().WhichOneof(kindOneof), protoreflect.ValueOfMessage(out))
	return wrapped
}

// HashOf is the hash of what o says: its kind, name, labels and spec. The rest of the
// metadata does not count, so that both planes find the same.
func HashOf(o *typesv1.Object) (Hash, error) {
	content, err := proto.MarshalOptions{Deterministic: true}.Marshal(Plain(o))
	if err != nil {
		return Hash{}, err
	}
	h := sha256.New()
	h.Write([]byte(Ref(o)))
	h.Write([]byte{0})
	h.Write(content)
	return Hash(h.Sum(nil)), nil
}

// HashSet is the hash of a set: of the hashes of its objects, in order of Ref.
func HashSet(inOrder iter.Seq2[string, Hash]) Hash {
	h := sha256.New()
	for ref, one := range inOrder {
		h.Write([]byte(ref))
		h.Write([]byte{0})
		h.Write(one[:])
	}
	return Hash(h.Sum(nil))
}
