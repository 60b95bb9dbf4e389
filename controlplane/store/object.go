package store

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// EncodeObject is the value under which a policy object is kept, at the key of its kind
// and name: its message without an etag, which is the store's to give.
func EncodeObject(o *typesv1.Object) (Key, []byte, error) {
	o = proto.CloneOf(o)
	meta := object.Meta(o)
	if meta == nil {
		return Key{}, nil, errors.New("store: an object without a kind")
	}
	meta.Etag = ""
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(o)
	return Key{object.Kind(o), meta.GetName()}, value, err
}

// DecodeObject reads the object of an entry, with its etag.
func DecodeObject(e Entry) (*typesv1.Object, error) {
	o := &typesv1.Object{}
	if err := proto.Unmarshal(e.Value, o); err != nil {
		return nil, fmt.Errorf("store: read %s: %w", e.Key, err)
	}
	if object.Kind(o) != e.Kind || object.Name(o) != e.Name {
		return nil, fmt.Errorf("store: %s holds %s", e.Key, object.Ref(o))
	}
	object.Meta(o).Etag = Etag(e)
	return o, nil
}

var etagEncoding = base32.HexEncoding.WithPadding(base32.NoPadding)

const etagHashBytes = 8

// Etag names the revision of an entry, and its content too, so that an etag from before
// a restore never fits by chance.
func Etag(e Entry) string {
	hash := sha256.Sum256(e.Value)
	raw := binary.BigEndian.AppendUint64(nil, uint64(e.Revision))
	return etagEncoding.EncodeToString(append(raw, hash[:etagHashBytes]...))
}

// EtagRevision is the revision that an etag names. It is what a client sent: compare
// whole etags to decide.
func EtagRevision(etag string) (int64, error) {
	if len(etag) != etagEncoding.EncodedLen(8+etagHashBytes) {
		return 0, errors.New("not an etag")
	}
	raw, err := etagEncoding.DecodeString(etag)
	if err != nil || len(raw) != 8+etagHashBytes { // line breaks do not count
		return 0, errors.New("not an etag")
	}
	rev := int64(binary.BigEndian.Uint64(raw))
	if rev <= 0 {
		return 0, errors.New("not an etag")
	}
	return rev, nil
}
