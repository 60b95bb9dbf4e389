package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// withCache runs test in a bubble, on a running cache of tasks and locks.
func withCache(t *testing.T, test func(t *testing.T, m *storetest.Memory, c *store.Cache)) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.NewMemory()
		put(t, m, "task", "before", "0")
		c := store.NewCache(m, nil, "task", "lock")
		ctx, cancel := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("cache", c.Run)
		<-c.Ready()
		test(t, m, c)
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func put(t *testing.T, s store.Store, kind, name, value string) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), store.Op{Key: store.Key{Kind: kind, Name: name}, Value: []byte(value), If: store.AnyRevision})
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func waitFor(t *testing.T, c *store.Cache, rev int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := c.WaitFor(ctx, rev); err != nil {
		t.Fatal(err)
	}
}

func value(c *store.Cache, kind, name string) string {
	e, ok := c.Get(store.Key{Kind: kind, Name: name})
	if !ok {
		return "none"
	}
	return string(e.Value)
}

func TestCacheFollows(t *testing.T) {
	withCache(t, func(t *testing.T, m *storetest.Memory, c *store.Cache) {
		old, was := c.View(), c.Version()
		signal, stop := c.Subscribe()
		defer stop()
		waitFor(t, c, put(t, m, "task", "a", "1"))
		<-signal
		if value(c, "task", "a") != "1" || value(c, "task", "before") != "0" {
			t.Errorf("tasks = %v", c.List("task"))
		}
		if _, ok := old.Get(store.Key{Kind: "task", Name: "a"}); ok {
			t.Error("an old view changed")
		}
		if events, ok := c.Since(was); !ok || len(events) != 1 || events[0].Name != "a" {
			t.Errorf("since %v: %v, %v", was, events, ok)
		}
		other := put(t, m, "mask", "x", "1")
		waitFor(t, c, other)
		if v := c.Version(); v.Revision < other {
			t.Errorf("version %v stays behind the changes of other kinds", v)
		}
		if _, ok := c.Since(postern.Version{Epoch: "other", Revision: was.Revision}); ok {
			t.Error("events since a version of another epoch")
		}
		if _, ok := c.Since(postern.Version{Epoch: was.Epoch, Revision: 1}); ok {
			t.Error("events since before the cache began")
		}
	})
}

func TestCacheSurvivesCompaction(t *testing.T) {
	withCache(t, func(t *testing.T, m *storetest.Memory, c *store.Cache) {
		put(t, m, "task", "gone", "1")
		waitFor(t, c, put(t, m, "task", "kept", "1"))
		was := c.Version()
		m.Fail(errors.New("partition"))
		m.BreakWatches()
		synctest.Wait()
		m.Fail(nil)
		if _, err := m.Commit(t.Context(), store.Op{Key: store.Key{Kind: "task", Name: "gone"}, Delete: true, If: store.AnyRevision}); err != nil {
			t.Fatal(err)
		}
		rev := put(t, m, "lock", "l", "1")
		m.Compact()
		waitFor(t, c, rev)
		if value(c, "task", "gone") != "none" || value(c, "task", "kept") != "1" || value(c, "lock", "l") != "1" {
			t.Errorf("after the gap: %v %v", c.List("task"), c.List("lock"))
		}
		events, ok := c.Since(was)
		var told []string
		for _, e := range events {
			told = append(told, fmt.Sprint(e.Key, " ", e.Deleted))
		}
		slices.Sort(told)
		if !ok || !slices.Equal(told, []string{"lock/l false", "task/gone true"}) {
			t.Errorf("the gap is told as %v, %v", told, ok)
		}
	})
}

func TestCacheStaleness(t *testing.T) {
	withCache(t, func(t *testing.T, m *storetest.Memory, c *store.Cache) {
		time.Sleep(10 * time.Second)
		if s := c.Staleness(); s > 2*time.Second {
			t.Errorf("on a quiet store the view is %v old", s)
		}
		m.Fail(errors.New("partition"))
		time.Sleep(20 * time.Second)
		if s := c.Staleness(); s < 20*time.Second || s > 23*time.Second {
			t.Errorf("20 s into a partition the view is %v old", s)
		}
		if value(c, "task", "before") != "0" {
			t.Error("a partition took the view away")
		}
		m.Fail(nil)
		time.Sleep(10 * time.Second)
		if s := c.Staleness(); s > 2*time.Second {
			t.Errorf("after the partition the view is %v old", s)
		}
	})
}

func TestCacheSeesANewEpoch(t *testing.T) {
	withCache(t, func(t *testing.T, m *storetest.Memory, c *store.Cache) {
		was := c.Version()
		next, err := m.NewEpoch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if v := c.Version(); v.Epoch != next {
			t.Errorf("version %v, want epoch %s", v, next)
		}
		if _, ok := c.Since(was); ok {
			t.Error("events since a version of the old epoch")
		}
	})
}

// TestCacheWithoutStaleness shows how seldom a cache asks whose staleness nobody does, and
// that it still finds what it asks for.
func TestCacheWithoutStaleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &questions{Memory: storetest.NewMemory()}
		if _, err := m.Epoch(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := store.NewCache(m, nil, "task").WithoutStaleness()
		g := run.New(t.Context())
		g.Go("cache", c.Run)
		<-c.Ready()
		synctest.Wait()
		first, before := c.Version(), m.n.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		if asked := m.n.Load() - before; asked < 300 || asked > 360 {
			t.Errorf("in a quiet hour the store was asked %d times, not each 10 s", asked)
		}
		rev := put(t, m, "task", "a", "1")
		synctest.Wait()
		if at := c.Version().Revision; at != rev {
			t.Errorf("a change is not there at once: revision %d of %d", at, rev)
		}
		for n := range 500 {
			put(t, m, "task", "a", fmt.Sprint(n))
		}
		synctest.Wait()
		if _, kept := c.Since(first); kept || value(c, "task", "a") != "499" {
			t.Error("what nobody asks for is kept: 500 values that are no more")
		}
		next, err := m.NewEpoch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		if v := c.Version(); v.Epoch != next {
			t.Errorf("version %v, want epoch %s", v, next)
		}
		g.Stop()
		_ = g.Wait() // it was stopped
	})
}

// questions counts how often a store is asked how far it is.
type questions struct {
	*storetest.Memory
	n atomic.Int64
}

func (q *questions) List(ctx context.Context, kind, after string, limit int) ([]store.Entry, int64, error) {
	if kind == store.KindEpoch {
		q.n.Add(1)
	}
	return q.Memory.List(ctx, kind, after, limit)
}

func TestCacheFindsWhatAWatchMissed(t *testing.T) {
	withCache(t, func(t *testing.T, m *storetest.Memory, c *store.Cache) {
		m.Tamper(store.Key{Kind: "task", Name: "before"}, []byte("other"))
		time.Sleep(5 * time.Minute)
		if v := value(c, "task", "before"); v != "other" {
			t.Errorf("value = %q after the comparison", v)
		}
	})
}

func TestCacheIsNotReadyWithoutAStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := storetest.NewMemory()
		m.Fail(errors.New("down"))
		c := store.NewCache(m, nil, "task")
		g := run.New(t.Context())
		g.Go("cache", c.Run)
		time.Sleep(time.Minute)
		select {
		case <-c.Ready():
			t.Error("ready without a store")
		default:
		}
		if c.Staleness() < time.Hour || !c.Version().IsZero() || len(c.List("task")) != 0 {
			t.Error("an empty cache pretends to know something")
		}
		m.Fail(nil)
		<-c.Ready()
		g.Stop()
		_ = g.Wait()
	})
}

// TestCacheAgrees drives random changes and faults, and holds the cache, and what Since
// told of it, against the store.
func TestCacheAgrees(t *testing.T) {
	withCache(t, func(t *testing.T, m *storetest.Memory, c *store.Cache) {
		rnd := rand.New(rand.NewPCG(1, 2))
		told := make(map[string]string)
		for _, e := range c.List("task") {
			told[e.Name] = string(e.Value)
		}
		seen := c.Version()
		for i := range 3000 {
			name := fmt.Sprint("n", rnd.IntN(700))
			var rev int64
			if rnd.IntN(3) == 0 {
				rev, _ = m.Commit(t.Context(), store.Op{Key: store.Key{Kind: "task", Name: name}, Delete: true, If: store.AnyRevision})
			} else {
				rev = put(t, m, "task", name, fmt.Sprint(i))
			}
			switch rnd.IntN(100) {
			case 0:
				m.BreakWatches()
			case 1:
				m.Compact()
			case 2:
				m.BreakWatches()
				m.Compact()
			}
			if i%10 != 9 {
				continue
			}
			waitFor(t, c, rev)
			events, ok := c.Since(seen)
			if !ok {
				t.Fatalf("step %d: the history does not reach back to %v", i, seen)
			}
			for _, e := range events {
				if told[e.Name] = string(e.Value); e.Deleted {
					delete(told, e.Name)
				}
			}
			seen = c.Version()
			entries, _, _ := m.List(t.Context(), "task", "", 0)
			if !slices.EqualFunc(entries, c.List("task"), func(a, b store.Entry) bool {
				return a.Name == b.Name && a.Revision == b.Revision && string(a.Value) == string(b.Value)
			}) {
				t.Fatalf("step %d: the cache differs from the store", i)
			}
			if len(told) != len(entries) {
				t.Fatalf("step %d: %d tasks were told, there are %d", i, len(told), len(entries))
			}
			for _, e := range entries {
				if told[e.Name] != string(e.Value) {
					t.Fatalf("step %d: %s was told as %q, is %q", i, e.Name, told[e.Name], e.Value)
				}
			}
		}
	})
}
