// Package blobtest holds implementations of blob.Blobs to their contract.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/posterngate/postern/controlplane/recording/blob"
)

// Run tests what open gives. open is called once a test, and is to give Blobs that are
// empty.
func Run(t *testing.T, open func(t *testing.T) blob.Blobs) {
	t.Run("CreateAndRead", func(t *testing.T) { createAndRead(t, open(t)) })
	t.Run("Names", func(t *testing.T) { names(t, open(t)) })
	t.Run("List", func(t *testing.T) { list(t, open(t)) })
	t.Run("Delete", func(t *testing.T) { remove(t, open(t)) })
	t.Run("OneWins", func(t *testing.T) { oneWins(t, open(t)) })
}

func createAndRead(t *testing.T, b blob.Blobs) {
	ctx := context.Background()
	if _, err := b.Read(ctx, "a/b/0"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("read before create: %v", err)
	}
	data := []byte("one")
	if err := b.Create(ctx, "a/b/0", data); err != nil {
		t.Fatal(err)
	}
	clear(data)
	if err := b.Create(ctx, "a/b/0", []byte("two")); !errors.Is(err, blob.ErrExists) {
		t.Errorf("create twice: %v", err)
	}
	if got, err := b.Read(ctx, "a/b/0"); err != nil || string(got) != "one" {
		t.Errorf("read: %q, %v", got, err)
	}
	if err := b.Create(ctx, "a/empty", nil); err != nil {
		t.Error(err)
	}
	if got, err := b.Read(ctx, "a/empty"); err != nil || len(got) != 0 {
		t.Errorf("read empty: %q, %v", got, err)
	}
	large := bytes.Repeat([]byte("x"), blob.MaxBytes)
	if err := b.Create(ctx, "large", large); err != nil {
		t.Error(err)
	}
	if got, err := b.Read(ctx, "large"); err != nil || !bytes.Equal(got, large) {
		t.Errorf("read large: %d bytes, %v", len(got), err)
	}
	if err := b.Create(ctx, "larger", append(large, 'x')); err == nil {
		t.Error("a blob over the limit was created")
	}
}

func names(t *testing.T, b blob.Blobs) {
	ctx := context.Background()
	for _, name := range []string{"", ".", "..", "../x", "/x", "a//b", "a/../b", "a/.b", ".a", "a/", "a\\b", "a\x00b"} {
		if err := b.Create(ctx, name, []byte("x")); err == nil || errors.Is(err, blob.ErrExists) {
			t.Errorf("create %q: %v", name, err)
		}
		if _, err := b.Read(ctx, name); err == nil {
			t.Errorf("read %q went well", name)
		}
	}
}

func list(t *testing.T, b blob.Blobs) {
	ctx := context.Background()
	for _, name := range []string{"r/2/b/1", "r/2/b/0", "r/1/a/0", "r/1/a/10", "s/0", "r/1/aa/0"} {
		if err := b.Create(ctx, name, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string][]string{
		"":       {"r/1/a/0", "r/1/a/10", "r/1/aa/0", "r/2/b/0", "r/2/b/1", "s/0"},
		"r/":     {"r/1/a/0", "r/1/a/10", "r/1/aa/0", "r/2/b/0", "r/2/b/1"},
		"r/1/a/": {"r/1/a/0", "r/1/a/10"},
		"none/":  nil,
	} {
		var got []string
		for name, err := range b.List(ctx, prefix) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("list %q: %q, want %q", prefix, got, want)
		}
	}
	for _, err := range b.List(ctx, "") {
		if err != nil {
			t.Fatal(err)
		}
		break // a reader may stop early
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	var last error
	for _, err := range b.List(gone, "") {
		last = err
	}
	if last == nil {
		t.Error("a listing went on after its end")
	}
}

func remove(t *testing.T, b blob.Blobs) {
	ctx := context.Background()
	if err := b.Create(ctx, "a/0", []byte("x")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Delete(ctx, "a/0"); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if _, err := b.Read(ctx, "a/0"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("read after delete: %v", err)
	}
	if err := b.Delete(ctx, "../x"); err == nil {
		t.Error("a name outside was deleted")
	}
}

// oneWins creates one name from many sides.
func oneWins(t *testing.T, b blob.Blobs) {
	ctx := context.Background()
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			err := b.Create(ctx, "race/0", fmt.Append(nil, i))
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, blob.ErrExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d won", won.Load())
	}
}
