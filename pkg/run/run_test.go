package run

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestFirstErrorStopsTheRest(t *testing.T) {
	boom := errors.New("boom")
	stopped := false
	err := All(t.Context(),
		Part{"waits", func(ctx context.Context) error { <-ctx.Done(); stopped = true; return ctx.Err() }},
		Part{"fails", func(context.Context) error { return boom }},
	)
	if !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "fails: ") {
		t.Errorf("error = %v, want that of the part that failed", err)
	}
	if !stopped {
		t.Error("the other part was not waited for")
	}
}

func TestPanicIsAnError(t *testing.T) {
	err := All(t.Context(), Part{"breaks", func(context.Context) error { panic("oh") }})
	if err == nil || !strings.Contains(err.Error(), "breaks: panic: oh") {
		t.Errorf("error = %v", err)
	}
}

func TestReturningEarlyEndsAll(t *testing.T) {
	err := All(t.Context(), Part{"short", func(context.Context) error { return nil }})
	if err == nil {
		t.Error("a part that ended early went unnoticed")
	}
}

func TestCancelIsNoError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := All(ctx, Part{"waits", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}); err != nil {
		t.Errorf("error = %v, want none", err)
	}
}

func TestGroupGoesOnAfterNil(t *testing.T) {
	g := New(t.Context())
	g.Go("done", func(context.Context) error { return nil })
	g.Go("also", func(ctx context.Context) error { return ctx.Err() })
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

func TestDoIsWaitedForToo(t *testing.T) {
	boom := errors.New("boom")
	g := New(t.Context())
	g.Go("waits", func(ctx context.Context) error { <-ctx.Done(); return nil })
	g.Do("fails", func(context.Context) error { return boom })
	if err := g.Wait(); !errors.Is(err, boom) || !strings.HasPrefix(err.Error(), "fails: ") {
		t.Errorf("error = %v, want that of the part that failed", err)
	}
	g = New(t.Context())
	g.Do("breaks", func(context.Context) error { panic("oh") })
	var p *Panic
	if err := g.Wait(); !errors.As(err, &p) || p.Value != "oh" {
		t.Errorf("error = %v, want the panic", err)
	}
}

func TestApart(t *testing.T) {
	boom := errors.New("boom")
	if err := Apart(func() error { return boom }); err != boom { //nolint:errorlint // the very error
		t.Errorf("error = %v", err)
	}
	var p *Panic
	if err := Apart(func() error { panic("oh") }); !errors.As(err, &p) || p.Value != "oh" || len(p.Stack) == 0 {
		t.Errorf("error = %v, want the panic", err)
	}
}
