package audit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/audit/tree"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/trail"
	"github.com/posterngate/postern/test/wait"
)

// moved is a log over a store and a folder, which drains until stop.
type moved struct {
	*audit.Log
	trail *trail.Log
	key   tree.Key
	dir   string
	store *storetest.Memory
}

func open(t *testing.T, m *storetest.Memory, dir string) *moved {
	t.Helper()
	key, err := tree.OpenKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	l := &moved{key: key, dir: t.TempDir(), store: m}
	l.dir = filepath.Join(dir, "log")
	// The folder is there once something was written.
	tr, err := tree.Open(t.Context(), l.dir, key, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if l.trail, err = trail.Open(l.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.trail.Close(); err != nil {
			t.Error(err)
		}
	})
	l.Log = audit.New(m, time.Now).WithMoved(l.trail)
	return l
}

// drain drains until stop is called, and remembers why it ended.
func (l *moved) drain(t *testing.T) (stop func()) {
	g := run.New(context.Background())
	g.Go("drain", func(ctx context.Context) error {
		return l.Drain(ctx, func(ctx context.Context) (audit.Tree, error) {
			return tree.Open(ctx, l.dir, l.key, slog.New(slog.DiscardHandler))
		})
	})
	stop = sync.OnceFunc(func() {
		g.Stop()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("drain: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func (l *moved) append(t *testing.T, n int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := l.Append(t.Context(), audit.Entry{Actor: "ada", Action: "Test", Object: fmt.Sprint("task/", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func (l *moved) await(t *testing.T, n uint64) {
	t.Helper()
	wait.For(t, fmt.Sprintf("the log has %d entries", n), func() bool {
		size, err := l.trail.Size()
		return err == nil && size == n
	})
}

// Entries reach the log in order and each once, also over restarts; the log answers for
// those that have left the store.
func TestDrain(t *testing.T) {
	m := storetest.NewMemory()
	l := open(t, m, t.TempDir())
	const first, second = 30, 2050 // the store keeps 2000
	l.append(t, first)
	stop := l.drain(t)
	l.await(t, first)
	stop()
	l.append(t, second-first)
	stop = l.drain(t)
	l.await(t, second)
	wait.For(t, "the store keeps 2000 entries", func() bool { return len(m.Keys(audit.KindEntry)) == 2000 })
	stop()
	seen := int64(0)
	c, err := l.trail.Verify(l.key.Verifier, nil, func(e *apiv1.AuditEntry) error {
		if seen++; e.GetSequence() != seen {
			return fmt.Errorf("entry %d stands at %d", e.GetSequence(), seen)
		}
		return nil
	})
	if err != nil || c.Size != second {
		t.Errorf("%d, %v", c.Size, err)
	}
	if last, err := l.Verify(t.Context()); err != nil || last.GetSequence() != second {
		t.Errorf("%v, %v", last, err)
	}
	var all []int64
	for before := int64(0); ; {
		page, next, err := l.List(t.Context(), audit.Query{Limit: 300, Before: before})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			all = append(all, e.GetSequence())
		}
		if before = next; next == 0 {
			break
		}
	}
	if len(all) != second || all[0] != second || all[second-1] != 1 {
		t.Errorf("%d entries were listed", len(all))
	}
}

// TestDrainRests shows that a log to which nobody appends costs nothing, its tree closed and
// the store not asked, and that an entry is moved at once then too. The tree is none in
// files: the real one goes by their times, and an hour would be one.
func TestDrainRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &reading{Store: storetest.NewMemory()}
		l := audit.New(s, time.Now)
		held := &leaves{}
		g := run.New(t.Context())
		g.Go("drain", func(ctx context.Context) error {
			return l.Drain(ctx, func(context.Context) (audit.Tree, error) {
				held.open++
				return held, nil
			})
		})
		for n := range uint64(3) {
			began := time.Now()
			if err := l.Append(t.Context(), audit.Entry{Actor: "ada", Action: "Test"}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if took := time.Since(began); held.n != n+1 || took != 0 {
				t.Errorf("the tree has %d entries of %d, after %s", held.n, n+1, took)
			}
			time.Sleep(time.Minute)
			before := s.n.Load()
			time.Sleep(time.Hour)
			synctest.Wait()
			if asked := s.n.Load() - before; held.open != 0 || asked != 0 {
				t.Errorf("in an idle hour %d trees were open, and the store was asked %d times", held.open, asked)
			}
		}
		g.Stop()
		_ = g.Wait() // it was stopped
	})
}

// reading counts what a store is asked.
type reading struct {
	store.Store
	n atomic.Int64
}

func (r *reading) Get(ctx context.Context, k store.Key) (store.Entry, error) {
	r.n.Add(1)
	return r.Store.Get(ctx, k)
}

// leaves are a tree that only counts them, and how often it is open.
type leaves struct {
	n    uint64
	open int
}

func (l *leaves) Size(context.Context) (uint64, error) { return l.n, nil }

func (l *leaves) Append(_ context.Context, _ uint64, leaves [][]byte) error {
	l.n += uint64(len(leaves))
	return nil
}

func (l *leaves) Close(context.Context) error {
	l.open--
	return nil
}

// A folder that is not the log's is not written to, and nothing is trimmed for it.
func TestDrainIntoAnotherFolder(t *testing.T) {
	m := storetest.NewMemory()
	l := open(t, m, t.TempDir())
	l.append(t, 2010)
	stop := l.drain(t)
	l.await(t, 2010)
	wait.For(t, "the store keeps 2000 entries", func() bool { return len(m.Keys(audit.KindEntry)) == 2000 })
	stop()
	other := open(t, m, t.TempDir())
	other.append(t, 5)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_ = other.Drain(ctx, func(ctx context.Context) (audit.Tree, error) {
		return tree.Open(ctx, other.dir, other.key, slog.New(slog.DiscardHandler))
	})
	if size, err := other.trail.Size(); err != nil || size != 0 {
		t.Errorf("the other folder has %d entries, %v", size, err)
	}
	l.drain(t)
	l.await(t, 2015)
}

// A store that was restored from before goes on behind what the log has; until then nothing
// is written. Who restores it is told what it has forgotten, and the log that it was.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	l := open(t, storetest.NewMemory(), dir)
	l.append(t, 20)
	stop := l.drain(t)
	l.await(t, 20)
	stop()
	if err := l.Fits(t.Context()); err != nil {
		t.Errorf("a store and its log: %v", err)
	}
	restored := open(t, storetest.NewMemory(), dir)
	again := func() {
		t.Helper()
		restored.Log = audit.New(restored.store, time.Now).WithMoved(restored.trail)
	}
	resume := func() (lost []int64) {
		t.Helper()
		err := restored.Resume(t.Context(), "of-now", func(e *apiv1.AuditEntry) error {
			lost = append(lost, e.GetSequence())
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		again()
		return lost
	}
	copyEntries(t, l.store, restored.store, 5)
	if err := restored.Fits(t.Context()); err == nil || !strings.Contains(err.Error(), "postern-control epoch") {
		t.Errorf("a store that was put back: %v", err)
	}
	if lost := resume(); len(lost) != 15 || lost[0] != 6 || lost[14] != 20 {
		t.Errorf("lost: %v", lost)
	}
	if err := restored.Fits(t.Context()); err != nil {
		t.Errorf("after Resume: %v", err)
	}
	if lost := resume(); lost != nil {
		t.Errorf("lost the second time: %v", lost)
	}
	restored.append(t, 3)
	if all, _, err := restored.List(t.Context(), audit.Query{}); err != nil || len(all) != 25 {
		t.Errorf("read: %d entries, %v", len(all), err)
	}
	restored.drain(t)
	restored.await(t, 25)
	actions := map[int64]string{}
	c, err := restored.trail.Verify(l.key.Verifier, nil, func(e *apiv1.AuditEntry) error {
		actions[e.GetSequence()] = e.GetAction() + " " + e.GetDetail()
		return nil
	})
	if err != nil || c.Size != 25 {
		t.Errorf("%d, %v", c.Size, err)
	}
	if got := actions[21]; got != `store.restore {"known":5,"lost":15}` {
		t.Errorf("the log tells of the restore as %s", got)
	}
}

// A store that went on by itself after it was put back has another history than the log, and
// neither is taken for the other.
func TestAnotherHistory(t *testing.T) {
	dir := t.TempDir()
	l := open(t, storetest.NewMemory(), dir)
	l.append(t, 20)
	stop := l.drain(t)
	l.await(t, 20)
	stop()
	other := open(t, storetest.NewMemory(), dir)
	other.append(t, 30)
	var broken *audit.BrokenError
	if err := other.Fits(t.Context()); !errors.As(err, &broken) || broken.Sequence != 20 {
		t.Errorf("Fits: %v", err)
	}
	if err := other.Resume(t.Context(), "of-now", nil); !errors.As(err, &broken) {
		t.Errorf("Resume: %v", err)
	}
	behind := open(t, storetest.NewMemory(), dir)
	behind.append(t, 10)
	if err := behind.Resume(t.Context(), "of-now", nil); !errors.As(err, &broken) || broken.Sequence != 10 {
		t.Errorf("Resume of another house's: %v", err)
	}
}

// copyEntries puts the first n entries of a log's store into another, as a backup of then has them.
func copyEntries(t *testing.T, from, to *storetest.Memory, n int64) {
	t.Helper()
	for i := range n {
		e, err := from.Get(t.Context(), store.Key{Kind: audit.KindEntry, Name: fmt.Sprintf("%020d", i+1)})
		if err != nil {
			t.Fatal(err)
		}
		ops := []store.Op{{Key: e.Key, Value: e.Value}, {Key: store.Key{Kind: audit.KindHead, Name: "head"}, Value: e.Value, If: store.AnyRevision}}
		if _, err := to.Commit(t.Context(), ops...); err != nil {
			t.Fatal(err)
		}
	}
}
