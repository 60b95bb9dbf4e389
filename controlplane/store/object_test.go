package store_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/object"
)

func FuzzEtag(f *testing.F) {
	f.Add(store.Etag(store.Entry{Revision: 1, Value: []byte("x")}))
	f.Add(store.Etag(store.Entry{Revision: 1 << 62}))
	f.Add("")
	f.Add("00000000000000000000000000")
	f.Add("zzzz")
	f.Fuzz(func(t *testing.T, etag string) {
		if rev, err := store.EtagRevision(etag); err == nil && rev <= 0 {
			t.Errorf("etag %q is of revision %d", etag, rev)
		}
	})
}

func TestObject(t *testing.T) {
	o := object.Bare("task", "sales-report")
	object.Meta(o).Etag = "not stored"
	key, value, err := store.EncodeObject(o)
	if err != nil || key != (store.Key{Kind: "task", Name: "sales-report"}) || object.Meta(o).GetEtag() != "not stored" {
		t.Fatalf("%v, %v", key, err)
	}
	e := store.Entry{Key: key, Value: value, Revision: 42}
	got, err := store.DecodeObject(e)
	if err != nil || object.Meta(got).GetEtag() != store.Etag(e) {
		t.Fatalf("%v, %v", got, err)
	}
	if rev, err := store.EtagRevision(store.Etag(e)); rev != 42 || err != nil {
		t.Errorf("revision %d, %v", rev, err)
	}
	object.Meta(got).Etag = object.Meta(o).GetEtag()
	if !proto.Equal(got, o) {
		t.Errorf("got %v", got)
	}
	other := store.Entry{Key: store.Key{Kind: "task", Name: "other"}, Value: value, Revision: 42}
	if _, err := store.DecodeObject(other); err == nil {
		t.Error("an object was read under another's name")
	}
	if _, _, err := store.EncodeObject(nil); err == nil {
		t.Error("nothing was encoded")
	}
	if store.Etag(e) == store.Etag(store.Entry{Key: key, Value: append(value, 0), Revision: 42}) {
		t.Error("one etag for two contents")
	}
}
