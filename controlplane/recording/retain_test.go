package recording_test

import (
	"context"
	"crypto"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/recording"
	"github.com/posterngate/postern/controlplane/recording/blob"
	"github.com/posterngate/postern/pkg/postern"
)

// TestRetain lets go what is old, and neither what is held nor what could not be told.
func TestRetain(t *testing.T) {
	h := open(t, t.TempDir())
	ctx := context.Background()
	for _, id := range []string{"s-1", "s-2", "s-3"} {
		shipAll(t, h, usual(t, id))
	}
	ship(t, h, usual(t, "s-live"), 0)
	if err := h.Hold(ctx, "s-2", "case 7"); err != nil {
		t.Fatal(err)
	}
	before := began.Add(48 * time.Hour)
	untold := errors.New("the audit log does not answer")
	if n, err := h.Retain(ctx, before, func(context.Context, []postern.SessionID) error { return untold }, nil); n != 0 || !errors.Is(err, untold) {
		t.Errorf("untold: %d, %v", n, err)
	}
	if n, err := h.Retain(ctx, began, nil, nil); n != 0 || err != nil {
		t.Errorf("of the same day: %d, %v", n, err)
	}
	var told []postern.SessionID
	n, err := h.Retain(ctx, before, func(_ context.Context, ids []postern.SessionID) error { told = ids; return nil }, nil)
	if n != 2 || err != nil || !slices.Equal(told, []postern.SessionID{"s-1", "s-3"}) {
		t.Errorf("%d went, %v: %v", n, err, told)
	}
	left := map[string]int{}
	for name, err := range h.blobs.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		left[name[len("recordings/v1/2026/01/02/"):len(name)-len("/0000000000")]]++
	}
	if len(left) != 2 || left["s-2"] != 4 || left["s-live"] != 1 {
		t.Errorf("left: %v", left)
	}
	if _, err := h.Get(ctx, "s-1"); err == nil {
		t.Error("s-1 is still there")
	}
	if chunks, _ := read(t, h, "s-2"); len(chunks) != 4 {
		t.Errorf("s-2 has %d chunks", len(chunks))
	}
	if err := h.Hold(ctx, "s-2", ""); err != nil {
		t.Fatal(err)
	}
	if n, err := h.Retain(ctx, before, func(context.Context, []postern.SessionID) error { return nil }, nil); n != 1 || err != nil {
		t.Errorf("released: %d, %v", n, err)
	}
}

// TestHeldThoughTheIndexIsLost: recordings do not say that they are held, and the index is made
// again of them.
func TestHeldThoughTheIndexIsLost(t *testing.T) {
	h := open(t, t.TempDir())
	ctx := context.Background()
	for _, id := range []string{"s-1", "s-2"} {
		shipAll(t, h, usual(t, id))
	}
	if err := h.Hold(ctx, "s-1", "case 7"); err != nil {
		t.Fatal(err)
	}
	lost := open(t, t.TempDir())
	again, err := recording.New(recording.Config{
		Blobs: h.blobs, Index: lost.index, Store: h.store, Keys: ring{}, Rejected: func(context.Context, recording.Rejection) error { return nil },
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Reconcile(ctx); err != nil {
		t.Fatal(err)
	}
	if s, err := again.Get(ctx, "s-1"); err != nil || s.GetLegalHold() != "case 7" {
		t.Errorf("%v, %v", s, err)
	}
	// Retention comes first, of a row that another replica has just made.
	if err := lost.index.Hold(ctx, "s-1", ""); err != nil {
		t.Fatal(err)
	}
	var told []postern.SessionID
	n, err := again.Retain(ctx, began.Add(48*time.Hour), func(_ context.Context, ids []postern.SessionID) error { told = ids; return nil }, nil)
	if n != 1 || err != nil || !slices.Equal(told, []postern.SessionID{"s-2"}) {
		t.Errorf("%d went, %v: %v", n, err, told)
	}
	if s, err := again.Get(ctx, "s-1"); err != nil || s.GetLegalHold() != "case 7" {
		t.Errorf("%v, %v", s, err)
	}
}

// TestHeldWhileItGoes is told of: else nobody would miss what was held in the last moment.
func TestHeldWhileItGoes(t *testing.T) {
	h := open(t, t.TempDir())
	ctx := context.Background()
	for _, id := range []string{"s-1", "s-2"} {
		shipAll(t, h, usual(t, id))
	}
	var kept []postern.SessionID
	unkept := errors.New("the audit log does not answer")
	n, err := h.Retain(ctx, began.Add(48*time.Hour),
		func(ctx context.Context, _ []postern.SessionID) error { return h.Hold(ctx, "s-2", "case 7") },
		func(_ context.Context, ids []postern.SessionID) error { kept = ids; return unkept })
	if n != 1 || !errors.Is(err, unkept) || !slices.Equal(kept, []postern.SessionID{"s-2"}) {
		t.Errorf("%d went, %v: kept %v", n, err, kept)
	}
	for name, err := range h.blobs.List(ctx, "") {
		if err != nil || strings.Contains(name, "/s-1/") {
			t.Errorf("left: %s, %v", name, err)
		}
	}
}

// stubborn is a store that deletes nothing for a while.
type stubborn struct {
	blob.Blobs
	refuses bool
}

func (s *stubborn) Delete(ctx context.Context, name string) error {
	if s.refuses {
		return errors.New("it is locked")
	}
	return s.Blobs.Delete(ctx, name)
}

// TestWhatTheStoreKeepsIsTriedAgain: what cannot be deleted is there as before, its right to be
// held with it, and goes once it can be.
func TestWhatTheStoreKeepsIsTriedAgain(t *testing.T) {
	h := open(t, t.TempDir())
	ctx := context.Background()
	store := &stubborn{Blobs: h.blobs, refuses: true}
	svc, err := recording.New(recording.Config{
		Blobs: store, Index: h.index, Store: h.store, Keys: ring{}, Rejected: func(context.Context, recording.Rejection) error { return nil },
		NodeKeys: func(string) ([]crypto.PublicKey, error) { return []crypto.PublicKey{nodeKey.Public()}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	shipAll(t, h, usual(t, "s-1"))
	shipAll(t, h, usual(t, "s-2"))
	before := began.Add(48 * time.Hour)
	var told, kept []postern.SessionID
	retain := func() (int, error) {
		told, kept = nil, nil
		return svc.Retain(ctx, before,
			func(_ context.Context, ids []postern.SessionID) error { told = append(told, ids...); return nil },
			func(_ context.Context, ids []postern.SessionID) error { kept = append(kept, ids...); return nil })
	}
	for range 2 {
		n, err := retain()
		if n != 0 || err == nil || !strings.Contains(err.Error(), "it is locked") || len(told) != 2 || !slices.Equal(kept, told) {
			t.Errorf("%d went, %v: told %v, kept %v", n, err, told, kept)
		}
		if chunks, _ := read(t, h, "s-1"); len(chunks) != 4 {
			t.Errorf("s-1 has %d chunks", len(chunks))
		}
	}
	store.refuses = false
	if err := svc.Hold(ctx, "s-2", "case 7"); err != nil {
		t.Fatal(err)
	}
	if n, err := retain(); n != 1 || err != nil || !slices.Equal(told, []postern.SessionID{"s-1"}) || kept != nil {
		t.Errorf("%d went, %v: told %v, kept %v", n, err, told, kept)
	}
}
