package run

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Shared[int64]
		var n atomic.Int64
		release := make(chan struct{})
		work := func(context.Context) (int64, error) {
			mine := n.Add(1)
			<-release
			return mine, nil
		}
		g := New(t.Context())
		call := func(times int, want int64) {
			for range times {
				g.Go("caller", func(ctx context.Context) error {
					if got, err := s.Do(ctx, work); got != want || err != nil {
						t.Errorf("got %d, %v; want what began after the call, %d", got, err, want)
					}
					return nil
				})
			}
			synctest.Wait()
		}
		call(1, 1)
		call(30, 2) // the first one has begun already
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Do(ctx, work); !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that has left: %v", err)
		}
		release <- struct{}{}
		release <- struct{}{}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		if n.Load() != 2 {
			t.Errorf("31 calls were %d times work", n.Load())
		}
		var p *Panic
		if _, err := s.Do(t.Context(), func(context.Context) (int64, error) { panic("oh") }); !errors.As(err, &p) {
			t.Errorf("a panic is %v", err)
		}
	})
}
