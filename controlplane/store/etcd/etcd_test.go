package etcd_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/etcd"
	"github.com/posterngate/postern/controlplane/store/storetest"
)

func open(t *testing.T, dir string) *etcd.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := etcd.Open(ctx, etcd.Config{
		Embedded: &etcd.Embedded{Dir: dir},
		Logger:   slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestContract(t *testing.T) {
	dirs := make(map[store.Store]string)
	storetest.Run(t,
		func(t *testing.T) store.Store {
			dir := t.TempDir()
			s := open(t, dir)
			dirs[s] = dir
			t.Cleanup(func() { _ = s.Close() })
			return s
		},
		func(t *testing.T, old store.Store) store.Store {
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
			s := open(t, dirs[old])
			t.Cleanup(func() { _ = s.Close() })
			return s
		})
}

func TestEmbeddedIsClosedToOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	t.Cleanup(func() { _ = s.Close() })
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of data and socket has mode %v", info.Mode().Perm())
	}
	if _, err := etcd.Open(t.Context(), etcd.Config{Embedded: &etcd.Embedded{Dir: dir}}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second process on the same folder: %v", err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("the first one after that: %v", err)
	}
}

func TestLongFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long-", 20))
	s := open(t, dir)
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestConfigIsRefused(t *testing.T) {
	for name, cfg := range map[string]etcd.Config{
		"neither":   {},
		"both":      {Embedded: &etcd.Embedded{Dir: "x"}, Endpoints: []string{"https://127.0.0.1:1"}},
		"clear":     {Endpoints: []string{"http://etcd.example:2379"}},
		"no scheme": {Endpoints: []string{"etcd.example:2379"}},
		"lookalike": {Endpoints: []string{"http://127.0.0.1.example:2379"}},
	} {
		if _, err := etcd.Open(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}})
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		t.Errorf("error = %v", err)
	}
}
