package snapshot_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"math/big"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/dataplane/snapshot"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

func at(epoch string, revision int64) *typesv1.Version {
	return &typesv1.Version{Epoch: epoch, Revision: revision}
}

func resource(name string) *typesv1.Object {
	o := object.Bare("resource", name)
	o.GetResource().Spec = &typesv1.ResourceSpec{
		Protocol: "postgres", Endpoint: &typesv1.Endpoint{Host: "127.0.0.1", Port: 5432, Database: "db", Tls: &typesv1.EndpointTLS{Mode: "disable"}},
		Credential: &typesv1.CredentialRef{Sealed: "s"}, Catalog: &typesv1.CredentialRef{Sealed: "s"},
	}
	return o
}

func task(name, on string) *typesv1.Object {
	o := object.Bare("task", name)
	o.GetTask().Spec = &typesv1.TaskSpec{
		Purpose: "p", Duration: "1h", Resources: &typesv1.ResourceSelector{Names: []string{on}},
		Permit: []*typesv1.Permit{{Table: "sales.orders", Verbs: []string{"select"}, Columns: []string{"id"}}},
	}
	return o
}

func first() *nodev1.Update {
	return &nodev1.Update{
		Version: at("e", 5), Snapshot: true, Objects: []*typesv1.Object{resource("db"), task("a", "db"), task("b", "db")},
		GrantKeys: map[string][]byte{"k": make([]byte, 32), "short": {1}},
	}
}

func served(h *snapshot.Holder, task postern.TaskName) bool {
	_, err := h.Current().ResourceOf(task, "db")
	return err == nil
}

func TestAColdHolderDenies(t *testing.T) {
	h := snapshot.New()
	if h.Current() == nil || served(h, "a") || !h.Version().IsZero() || h.Hash() != nil {
		t.Error("a cold holder offers something")
	}
	if h.Apply(&nodev1.Update{Version: at("e", 1), Objects: []*typesv1.Object{task("a", "db")}}) != nil {
		t.Error("a delta was applied over nothing")
	}
}

func TestWhatFollows(t *testing.T) {
	for name, tc := range map[string]struct {
		update *nodev1.Update
		want   bool
	}{
		"later":                       {&nodev1.Update{Version: at("e", 6)}, true},
		"same":                        {&nodev1.Update{Version: at("e", 5)}, true},
		"earlier":                     {&nodev1.Update{Version: at("e", 4)}, false},
		"an earlier snapshot":         {&nodev1.Update{Version: at("e", 4), Snapshot: true}, false},
		"a delta of another epoch":    {&nodev1.Update{Version: at("f", 9)}, false},
		"a snapshot of another epoch": {&nodev1.Update{Version: at("f", 1), Snapshot: true}, true},
		"no version":                  {&nodev1.Update{Snapshot: true}, false},
		"no epoch":                    {&nodev1.Update{Version: at("", 9), Snapshot: true}, false},
	} {
		h := snapshot.New()
		h.Apply(first())
		ack := h.Apply(tc.update)
		if (ack != nil) != tc.want {
			t.Errorf("%s: ack %v", name, ack)
		}
		if ack == nil && (!served(h, "a") || h.Version() != (postern.Version{Epoch: "e", Revision: 5})) {
			t.Errorf("%s: refused, and yet something changed", name)
		}
		if ack != nil && !proto.Equal(ack.GetVersion(), tc.update.GetVersion()) {
			t.Errorf("%s: ack of %s", name, ack.GetVersion())
		}
	}
}

func TestDeltasAndSnapshotsMeetInOneHash(t *testing.T) {
	h := snapshot.New()
	h.Apply(first())
	ack := h.Apply(&nodev1.Update{Version: at("e", 7), Removed: []string{"task/b"}, Objects: []*typesv1.Object{task("c", "db")}})
	if served(h, "b") || !served(h, "c") || !served(h, "a") {
		t.Error("the delta was not applied")
	}
	other := snapshot.New()
	noisy := task("c", "db")
	object.Meta(noisy).Etag, object.Meta(noisy).CreatedBy = "x", "ada"
	whole := other.Apply(&nodev1.Update{Version: at("e", 9), Snapshot: true, Objects: []*typesv1.Object{noisy, task("a", "db"), resource("db")}})
	if !bytes.Equal(ack.GetContentHash(), whole.GetContentHash()) || !bytes.Equal(h.Hash(), other.Hash()) {
		t.Error("the same objects have two hashes")
	}
	h.Apply(&nodev1.Update{Version: at("e", 8), Removed: []string{"task/a"}})
	if bytes.Equal(h.Hash(), other.Hash()) {
		t.Error("different objects have one hash")
	}
	if u := h.Apply(&nodev1.Update{Version: at("e", 9), Snapshot: true, Objects: []*typesv1.Object{resource("db")}}); served(h, "c") || len(u.GetRejections()) > 0 {
		t.Error("a snapshot left something of before")
	}
}

func TestWhatDoesNotCompileIsDenied(t *testing.T) {
	h := snapshot.New()
	h.Apply(first())
	wider := task("a", "db")
	wider.GetTask().Spec.Permit[0].Mask = map[string]string{"id": "nowhere"}
	ack := h.Apply(&nodev1.Update{Version: at("e", 6), Objects: []*typesv1.Object{wider}})
	if len(ack.GetRejections()) != 1 || ack.GetRejections()[0].GetObject() != "task/a" {
		t.Errorf("rejections %v", ack.GetRejections())
	}
	if served(h, "a") || !served(h, "b") {
		t.Error("the task that does not compile is served, or the other one is not")
	}
	// It stays rejected while nothing is said of it.
	if ack := h.Apply(&nodev1.Update{Version: at("e", 7)}); len(ack.GetRejections()) != 1 {
		t.Errorf("rejections of the next update %v", ack.GetRejections())
	}
}

// TestLocksLeaveTheRulesAlone: a lock is enforced, and nothing else is compiled anew.
func TestLocksLeaveTheRulesAlone(t *testing.T) {
	h := snapshot.New()
	u := first()
	broken := task("bad", "db")
	broken.GetTask().Spec.Permit[0].Mask = map[string]string{"id": "nowhere"}
	u.Objects = append(u.Objects, broken)
	h.Apply(u)
	before := h.Current()
	lock := object.Bare("lock", "alice")
	lock.GetLock().Spec = &typesv1.LockSpec{Subject: "alice", Reason: "lost her laptop"}
	odd := object.Bare("lock", "odd") // names nothing
	ack := h.Apply(&nodev1.Update{Version: at("e", 6), Objects: []*typesv1.Object{lock, odd}})
	if len(ack.GetRejections()) != 2 || ack.GetRejections()[0].GetObject() != "lock/odd" || ack.GetRejections()[1].GetObject() != "task/bad" {
		t.Errorf("rejections %v", ack.GetRejections())
	}
	if _, _, ok := h.Current().Locked("alice", "", "", "", "", time.Now()); !ok || !h.Current().SameRules(before) || h.Current().Version().Revision != 6 {
		t.Error("the lock is not in force, or more than locks changed")
	}
	whole := snapshot.New()
	all := h.Apply(&nodev1.Update{Version: at("e", 7)})
	if again := whole.Apply(&nodev1.Update{Version: at("e", 7), Snapshot: true, Objects: append(u.GetObjects(), lock, odd)}); !bytes.Equal(all.GetContentHash(), again.GetContentHash()) {
		t.Error("the same objects have two hashes")
	}
	h.Apply(&nodev1.Update{Version: at("e", 8), Removed: []string{"lock/alice"}})
	if _, _, ok := h.Current().Locked("alice", "", "", "", "", time.Now()); ok || !served(h, "a") {
		t.Error("the lock was not lifted")
	}
	h.Apply(&nodev1.Update{Version: at("e", 9), Removed: []string{"lock/odd", "task/a"}})
	if served(h, "a") || h.Current().SameRules(before) {
		t.Error("a change of both was taken for one of locks")
	}
}

// BenchmarkApply is a lock, and a change of a task, on a node that serves 10,000 tasks.
func BenchmarkApply(b *testing.B) {
	h := snapshot.New()
	u := &nodev1.Update{Version: at("e", 1), Snapshot: true, Objects: []*typesv1.Object{resource("db")}}
	for i := range 10_000 {
		u.Objects = append(u.Objects, task(fmt.Sprintf("t-%d", i), "db"))
	}
	h.Apply(u)
	lock := object.Bare("lock", "alice")
	lock.GetLock().Spec = &typesv1.LockSpec{Subject: "alice", Reason: "lost her laptop"}
	revision := int64(1)
	for name, o := range map[string]*typesv1.Object{"lock": lock, "task": task("t-1", "db")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				revision++
				if h.Apply(&nodev1.Update{Version: at("e", revision), Objects: []*typesv1.Object{o}}) == nil {
					b.Fatal("refused")
				}
			}
		})
	}
}

func TestEndedGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := snapshot.New()
		h.Apply(first())
		changed, stop := h.Subscribe()
		defer stop()
		h.Apply(&nodev1.Update{Version: at("e", 5), EndedGrants: []*nodev1.GrantEnd{{Grant: "g", Reason: "revoked", EndTime: timestamppb.New(time.Now().Add(time.Hour))}}})
		<-changed
		if reason, ok := h.Ended("g"); !ok || reason != "revoked" {
			t.Errorf("ended %q, %v", reason, ok)
		}
		if _, ok := h.Ended("other"); ok {
			t.Error("another grant ended too")
		}
		h.Apply(&nodev1.Update{Version: at("e", 6), Snapshot: true})
		if _, ok := h.Ended("g"); !ok {
			t.Error("a snapshot brought the grant back")
		}
		time.Sleep(2 * time.Hour)
		h.Apply(&nodev1.Update{Version: at("e", 7)})
		if _, ok := h.Ended("g"); ok {
			t.Error("the grant is kept after its end")
		}
	})
}

func TestGrantKeys(t *testing.T) {
	h := snapshot.New()
	h.Apply(first())
	if _, ok := h.GrantKey("short"); ok {
		t.Error("a key of a wrong size is kept")
	}
	if _, ok := h.GrantKey("k"); !ok {
		t.Error("a key is not known")
	}
	h.Apply(&nodev1.Update{Version: at("e", 6)})
	if _, ok := h.GrantKey("k"); !ok {
		t.Error("an update without keys took them away")
	}
	h.Apply(&nodev1.Update{Version: at("f", 1), Snapshot: true})
	if _, ok := h.GrantKey("k"); ok {
		t.Error("a key outlived its epoch")
	}
}

func TestClientCAs(t *testing.T) {
	ca := selfSigned(t)
	for what, c := range map[string]struct {
		update *nodev1.Update
		known  bool
	}{
		"no word of it":         {&nodev1.Update{Version: at("e", 6)}, true},
		"another epoch":         {&nodev1.Update{Version: at("f", 1), Snapshot: true}, false},
		"one that is no CA":     {&nodev1.Update{Version: at("e", 6), ClientCas: [][]byte{{1}}}, false},
		"another epoch with it": {&nodev1.Update{Version: at("f", 1), Snapshot: true, ClientCas: [][]byte{{1}, ca}}, true},
	} {
		h := snapshot.New()
		if h.ClientCAs() != nil {
			t.Fatal("a cold holder knows a CA")
		}
		u := first()
		u.ClientCas = [][]byte{ca}
		h.Apply(u)
		h.Apply(c.update)
		if (h.ClientCAs() != nil) != c.known {
			t.Errorf("%s: known %v", what, !c.known)
		}
	}
}

func selfSigned(t *testing.T) []byte {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(nil, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := snapshot.New()
		h.Apply(first())
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := h.WaitFor(ctx, postern.Version{Epoch: "f", Revision: 1}); err == nil {
			t.Error("another epoch was waited for with success")
		}
		time.AfterFunc(time.Second, func() { h.Advance(postern.Version{Epoch: "e", Revision: 8}) })
		if err := h.WaitFor(context.Background(), postern.Version{Epoch: "e", Revision: 7}); err != nil {
			t.Error(err)
		}
		h.Advance(postern.Version{Epoch: "e", Revision: 3})
		h.Advance(postern.Version{Epoch: "f", Revision: 30})
		if v := h.Version(); v != (postern.Version{Epoch: "e", Revision: 8}) {
			t.Errorf("at %s after versions that do not follow", v)
		}
	})
}

// FuzzApply feeds updates that no honest control plane sends.
func FuzzApply(f *testing.F) {
	for _, u := range []*nodev1.Update{first(), {Version: at("e", 6), Removed: []string{"task/a", ""}, Objects: []*typesv1.Object{{}}}, {Version: at("f", 1), Snapshot: true}} {
		b, err := proto.Marshal(u)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		u := &nodev1.Update{}
		if proto.Unmarshal(b, u) != nil {
			return
		}
		h := snapshot.New()
		h.Apply(first())
		before := h.Version()
		ack := h.Apply(u)
		again := u.GetVersion().GetEpoch() == "e" && u.GetVersion().GetRevision() == 5 // fields that nobody knows aside
		if (ack == nil) != (h.Version() == before) && !again {
			t.Errorf("ack %v and version %s after %s", ack, h.Version(), before)
		}
	})
}
