package keyring

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/record"
)

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func open(t *testing.T, mem store.Store, keyFile string, c *clock) *Ring {
	t.Helper()
	keeper, err := sealed.OpenKeyFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), Config{Store: mem, Keeper: keeper, Audit: audit.New(mem, c.Now), Now: c.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What was sealed to a key can be read after it was rotated, and on another replica.
func TestRotation(t *testing.T) {
	mem := storetest.NewMemory()
	c := &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	file := filepath.Join(t.TempDir(), "key")
	a, b := open(t, mem, file, c), open(t, mem, file, c)
	if !bytes.Equal(a.Public(), b.Public()) {
		t.Fatal("two replicas have two keys")
	}
	first := a.Public()
	_, old, err := record.NewDataKey(first, "s-1")
	if err != nil {
		t.Fatal(err)
	}
	c.now = c.now.Add(keyAge + time.Hour)
	if err := a.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a.Public(), first) {
		t.Error("the key is not rotated")
	}
	_, fresh, err := record.NewDataKey(a.Public(), "s-2")
	if err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*Ring{"the one that rotated": a, "one that has not heard of it": b, "one that starts": open(t, mem, file, c)} {
		if _, err := r.Unwrap(t.Context(), "s-1", old); err != nil {
			t.Errorf("%s: a recording of before: %v", name, err)
		}
		if _, err := r.Unwrap(t.Context(), "s-2", fresh); err != nil {
			t.Errorf("%s: a recording of after: %v", name, err)
		}
		if _, err := r.Unwrap(t.Context(), "s-2", old); !errors.Is(err, record.ErrKey) {
			t.Errorf("%s: the key of another session: %v", name, err)
		}
		if _, err := r.Unwrap(t.Context(), "s-1", record.WrappedKey{ID: "0000000000000000", Sealed: old.Sealed}); !errors.Is(err, record.ErrKey) {
			t.Errorf("%s: a key that was never made: %v", name, err)
		}
	}
	entries, _, err := mem.List(context.Background(), kind, "", 0)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%d keys are stored, %v", len(entries), err)
	}
}

// Whoever has the store and not the key file has no key.
func TestKeyFile(t *testing.T) {
	mem := storetest.NewMemory()
	c := &clock{time.Now()}
	open(t, mem, filepath.Join(t.TempDir(), "key"), c)
	other, err := sealed.OpenKeyFile(filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Store: mem, Keeper: other, Audit: audit.New(mem, c.Now), Now: c.Now, Logger: slog.New(slog.DiscardHandler)}); err == nil {
		t.Error("the keys were read without their key file")
	}
}
