package controlplane

import (
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
)

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
