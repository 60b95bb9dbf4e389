package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/test/wait"
)

// TestClean: what is over goes, at once and later, and nothing else does.
func TestClean(t *testing.T) {
	s := storetest.NewMemory()
	put := func(kind, name, value string) {
		t.Helper()
		if _, err := s.Commit(t.Context(), store.Op{Key: store.Key{Kind: kind, Name: name}, Value: []byte(value), If: store.AnyRevision}); err != nil {
			t.Fatal(err)
		}
	}
	put("loan", "old", "over")
	put("loan", "new", "lasts")
	put("other", "old", "over")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- store.Clean(ctx, s, "loan", 5*time.Millisecond, func(e store.Entry) bool { return string(e.Value) == "over" }, slog.New(slog.DiscardHandler))
	}()
	left := func(want ...string) {
		t.Helper()
		var names []string
		wait.Telling(t, func() string { return fmt.Sprintf("%v are left, want %v", names, want) }, func() bool {
			entries, _, err := s.List(t.Context(), "loan", "", 0)
			if err != nil {
				t.Fatal(err)
			}
			names = nil
			for _, e := range entries {
				names = append(names, e.Key.Name)
			}
			return slices.Equal(names, want)
		})
	}
	left("new")
	put("loan", "new", "over")
	left()
	if _, err := s.Get(t.Context(), store.Key{Kind: "other", Name: "old"}); err != nil {
		t.Errorf("another kind: %v", err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}
