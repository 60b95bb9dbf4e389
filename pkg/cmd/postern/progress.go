package main

import (
	"context"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// patience is how long something may take before it is told that it goes on.
const patience = time.Second

// busy calls fn, and tells every second that it goes on, with what state says.
func (a *app) busy(ctx context.Context, what string, state func() string, fn func(context.Context) error) error {
	g := run.New(ctx)
	done := make(chan struct{})
	g.Go("progress", func(ctx context.Context) error {
		t := time.NewTicker(patience)
		defer t.Stop()
		for begin := time.Now(); ; {
			select {
			case <-done:
				return nil
			case <-ctx.Done():
				return nil
			case <-t.C:
				more := ""
				if state != nil {
					more = ", " + state()
				}
				a.say("%s: %s so far%s", what, time.Since(begin).Round(time.Second), more)
			}
		}
	})
	err := fn(ctx)
	close(done)
	if stopErr := g.Wait(); err == nil {
		err = stopErr
	}
	return err
}

// pages calls one with each page token, from the empty one on, until limit entries came
// or there are no more; it says where there are.
func (a *app) pages(ctx context.Context, what string, limit int, one func(ctx context.Context, size int32, token string) (n int, next string, err error)) error {
	if limit < 1 {
		return usage("--limit must be at least 1")
	}
	got := make(chan int, 1)
	got <- 0
	return a.busy(ctx, what, func() string {
		n := <-got
		got <- n
		return plural(n, "found")
	}, func(ctx context.Context) error {
		token := ""
		for left := limit; left > 0; {
			n, next, err := one(ctx, int32(min(left, maxPage)), token)
			if err != nil {
				return err
			}
			left -= n
			got <- n + <-got
			if token = next; token == "" {
				return nil
			}
		}
		a.say("there are more: raise --limit, or narrow the question")
		return nil
	})
}

// maxPage is the largest page of the API.
const maxPage = 1000
