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

// TestSharedForNobody: what was to come for a caller who has left is not done by one who has had
// their answer.
func TestSharedForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 30 { // who works on and who does not was for the scheduler to say
			var s Shared[int]
			var n atomic.Int64
			release := make(chan struct{})
			g := New(t.Context())
			g.Go("caller", func(ctx context.Context) error {
				_, err := s.Do(ctx, func(context.Context) (int, error) { n.Add(1); <-release; return 0, nil })
				return err
			})
			synctest.Wait()
			left, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := s.Do(left, func(context.Context) (int, error) { n.Add(1); return 0, nil }); !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			close(release)
			if err := g.Wait(); err != nil || n.Load() != 1 {
				t.Fatalf("it was done %d times; %v", n.Load(), err)
			}
		}
	})
}
