package etcd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/etcd"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

func open(t *testing.T, dir string) *etcd.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
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

// TestWhatIsOverwrittenLeavesMemory shows that an embedded server does not keep what was written
// for members that it has not: 32 MB here, of which one value stands.
func TestWhatIsOverwrittenLeavesMemory(t *testing.T) {
	s := open(t, t.TempDir())
	defer func() { _ = s.Close() }()
	held := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc) //nolint:gosec // not that large
	}
	before := held()
	op := store.Op{Key: store.Key{Kind: "task", Name: "a"}, Value: make([]byte, 32<<10), If: store.AnyRevision}
	for range 1000 {
		if _, err := s.Commit(t.Context(), op); err != nil {
			t.Fatal(err)
		}
	}
	var more int64
	wait.Telling(t, func() string { return fmt.Sprintf("%d MB more are in memory", more>>20) }, func() bool {
		// What it has written last leaves its buffers with what is written next.
		if _, err := s.Commit(t.Context(), op); err != nil {
			t.Fatal(err)
		}
		more = held() - before
		return more < 8<<20
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

// TestWatchesAskTogether shows that on a quiet store every watch is told of progress, and
// that no more of it is told because there are many.
func TestWatchesAskTogether(t *testing.T) {
	s := open(t, t.TempDir())
	t.Cleanup(func() { _ = s.Close() })
	const watches, batches = 8, 6
	began := time.Now()
	var all [watches]store.Watcher
	for i := range all {
		var err error
		if all[i], err = s.Watch(t.Context(), 0, "task"); err != nil {
			t.Fatal(err)
		}
		defer all[i].Close()
	}
	// etcd tells of no progress before the first revision that a watch waits for.
	if _, err := s.Commit(t.Context(), store.Op{Key: store.Key{Kind: "mask", Name: "a"}, If: store.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	g := run.New(ctx)
	for _, w := range all {
		g.Go("watch", func(ctx context.Context) error {
			for range batches {
				if _, err := w.Next(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
	// One tells of the commit, and the questions are half a second apart.
	took := time.Since(began)
	if most := 2 + int(took/(500*time.Millisecond)); batches > most {
		t.Errorf("%d watches were told %d times within %s, want %d at most", watches, batches, took, most)
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

// TestStartIsNoAlarm: an embedded server warns of what is meant for servers that others reach.
func TestStartIsNoAlarm(t *testing.T) {
	var said bytes.Buffer
	s, err := etcd.Open(t.Context(), etcd.Config{Embedded: &etcd.Embedded{Dir: t.TempDir()}, Logger: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, alarm := range []string{"not recommended", "not cryptographically signed"} {
		if strings.Contains(said.String(), alarm) {
			t.Errorf("at a start it says %s", said.String())
		}
	}
}
