package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

func (h *house) pass(d time.Duration) { h.mu.Lock(); defer h.mu.Unlock(); h.now = h.now.Add(d) }

func TestTroubles(t *testing.T) {
	h := newHouse(t)
	s := h.open()
	defer s.Close(nil)
	ctx, began := context.Background(), h.cfg.Now()
	is := func(want string, since, last time.Duration) {
		t.Helper()
		got := h.Troubles()
		if want == "" {
			if len(got) != 0 {
				t.Errorf("troubles are %+v, want none", got)
			}
			return
		}
		if len(got) != 1 || got[0] != (Trouble{"warehouse", want, began.Add(since), began.Add(last)}) {
			t.Errorf("troubles are %+v, want %q since %s, last %s", got, want, since, last)
		}
	}
	is("", 0, 0)

	left, leave := context.WithCancel(ctx)
	leave()
	s.Reached(left, errors.New("i/o timeout"))
	s.Reached(ctx, fmt.Errorf("asked: %w", context.Canceled))
	s.Reached(ctx, &postern.Refusal{Code: postern.CodeDenied, Reason: "policy says no"})
	is("", 0, 0) // nothing that the resource has to do with

	s.Reached(ctx, fmt.Errorf("wrapped: %w", &postern.Refusal{Code: postern.CodeUnavailable, Reason: "cannot log in", Cause: errors.New("the password is wrong")}))
	is("the password is wrong", 0, 0)
	h.pass(time.Second)
	s.Reached(ctx, errors.New("connection refused"))
	is("connection refused", 0, time.Second)
	h.pass(time.Second)
	late, stop := context.WithDeadline(ctx, time.Unix(1, 0))
	defer stop()
	s.Reached(late, late.Err())
	is("context deadline exceeded", 0, 2*time.Second)
	s.Reached(ctx, nil)
	is("", 0, 0)

	s.Reached(ctx, errors.New(strings.Repeat("é", maxTrouble)))
	if got := h.Troubles(); len(got) != 1 || len(got[0].Error) > maxTrouble+len("…") || !strings.HasSuffix(got[0].Error, "é…") {
		t.Errorf("a long error is told as %+v", got)
	}
	h.load(strings.ReplaceAll(world, "PORT", "5432")) // the same again
	if len(h.Troubles()) != 1 {
		t.Error("forgotten though nothing has changed")
	}
	h.load(strings.ReplaceAll(world, "PORT", "5433"))
	is("", 0, 0) // somebody mended it, maybe
}
