package controlplane

import (
	"context"
	"crypto"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/controlplane/recording/index/sqlite"
	"github.com/posterngate/postern/controlplane/recording/keyring"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// TestMadeUpPast: what a node may have made up is nothing that approvers should go by.
func TestMadeUpPast(t *testing.T) {
	x, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = x.Close() })
	for id, doubt := range map[string]string{"s-a": "", "s-b": "the grant is bob's"} {
		row := &typesv1.Session{Id: id, Subject: "alice", Task: "sales-report", StartTime: timestamppb.Now(), LastTime: timestamppb.Now(), Recording: "open", Version: &typesv1.Version{}, Doubt: doubt}
		if err := x.Commit(t.Context(), &index.Update{Session: row, Head: index.Head{Next: 1, Node: "n1"}, Chunks: []index.Stored{{Size: 1}}}); err != nil {
			t.Fatal(err)
		}
	}
	s := &Server{}
	s.recordings, err = recording.New(recording.Config{
		Blobs: &blob.Folder{}, Index: x, Store: storetest.NewMemory(), Keys: &keyring.Ring{},
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return nil, nil },
		Rejected: func(context.Context, recording.Rejection) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	got, more, err := s.sessionsOf(t.Context(), "alice", "sales-report")
	if err != nil || more || len(got) != 1 || got[0].GetId() != "s-a" {
		t.Errorf("%v, %t, %v", got, more, err)
	}
}

// TestSteadyClock: nothing is let go by a clock that has leapt, until it has gone on for a day as
// it should, whichever replica looks.
func TestSteadyClock(t *testing.T) {
	kept := storetest.NewMemory()
	guard := store.Key{Kind: "leader", Name: "x"}
	revision, err := kept.Commit(t.Context(), store.Op{Key: guard})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	looks := func(what string, n int, step time.Duration, want bool) {
		t.Helper()
		for range n {
			at = at.Add(step)
			left, err := steady(t.Context(), kept, store.Op{Key: guard, Check: true, If: revision}, at)
			if err != nil || (left == 0) != want {
				t.Fatalf("%s, at %s: %s are left, %v", what, at, left, err)
			}
		}
	}
	looks("a new house", 24, time.Hour, false)
	looks("a day later", 3, time.Hour, true)
	looks("a restart", 1, 90*time.Minute, true)
	looks("ten years ahead", 1, 10*365*24*time.Hour, false)
	looks("and on", 23, time.Hour, false)
	looks("ten years ahead once more", 1, 10*365*24*time.Hour, false)
	looks("set right", 1, -20*365*24*time.Hour, false)
	looks("for a day", 23, time.Hour, false)
	looks("and more", 1, time.Hour, true)
	if _, err := steady(t.Context(), kept, store.Op{Key: guard, Check: true, If: revision + 7}, at); err == nil {
		t.Error("one that leads no more wrote")
	}
}
