package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/run"
)

// asking counts the questions to a store.
type asking struct {
	*storetest.Memory
	asked atomic.Int64
	held  atomic.Bool
	slow  chan struct{} // while held, each question waits for one
}

func (a *asking) List(ctx context.Context, kind, after string, limit int) ([]store.Entry, int64, error) {
	if kind == store.KindEpoch && limit == 1 && a.held.Load() {
		a.asked.Add(1)
		<-a.slow
	}
	return a.Memory.List(ctx, kind, after, limit)
}

// TestCurrent: everybody finds what they have written, and all who come together ask once.
func TestCurrent(t *testing.T) {
	withCache(t, func(t *testing.T, m *storetest.Memory, c *store.Cache) {
		g := run.New(t.Context())
		for i := range 20 {
			g.Go("caller", func(ctx context.Context) error {
				for n := range 20 {
					name := fmt.Sprintf("t-%d-%d", i, n)
					put(t, m, "task", name, "1")
					view, err := c.Current(ctx)
					if err != nil {
						return err
					}
					if _, ok := view.Get(store.Key{Kind: "task", Name: name}); !ok {
						return fmt.Errorf("%s is not there", name)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Current(ended); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := m.NewEpoch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if v, err := c.Current(t.Context()); err == nil && v.Version() != c.Version() {
			t.Error("another epoch is taken for this one")
		}
		m.Fail(errors.New("down"))
		if _, err := c.Current(t.Context()); err == nil {
			t.Error("it is current without its store")
		}
	})
}

func TestCurrentAsksOnceForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &asking{Memory: storetest.NewMemory(), slow: make(chan struct{})}
		c := store.NewCache(a, nil, "task")
		ctx, cancel := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("cache", c.Run)
		<-c.Ready()
		synctest.Wait()
		a.held.Store(true)
		callers := run.New(t.Context())
		call := func(n int) {
			for range n {
				callers.Go("caller", func(ctx context.Context) error {
					_, err := c.Current(ctx)
					return err
				})
			}
			synctest.Wait()
		}
		call(1)
		call(30) // while that is under way: it began too early for them
		a.slow <- struct{}{}
		synctest.Wait()
		if n := a.asked.Load(); n != 2 {
			t.Errorf("31 calls asked %d times, want 2", n)
		}
		a.slow <- struct{}{}
		if err := callers.Wait(); err != nil {
			t.Error(err)
		}
		close(a.slow) // the probe asks too
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
}
