package http

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestPatience: it is over where one part takes too long, and not where all of them do.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cut := 0
		cuts := func(time.Time) error { cut++; return nil }
		p := newPatience(t.Context(), time.Minute, cuts)
		for range 10 {
			p.gives()
			time.Sleep(59 * time.Second)
			p.took()
			time.Sleep(time.Hour) // for the resource
		}
		if synctest.Wait(); cut != 0 || !errors.Is(p.why(errGone), errGone) {
			t.Errorf("a slow client was cut off %d times", cut)
		}
		p.gives()
		time.Sleep(time.Minute + time.Second)
		if synctest.Wait(); cut != 1 || !errors.Is(p.why(errGone), errUntaken) {
			t.Errorf("one that takes nothing was cut off %d times: %v", cut, p.why(errGone))
		}
		p.end()

		ctx, end := context.WithCancel(t.Context())
		late, over := newPatience(ctx, time.Minute, cuts), newPatience(ctx, time.Minute, func(time.Time) error { t.Error("cut off after the end"); return nil })
		over.gives()
		over.end()
		over.lose() // the timer was just then
		late.gives()
		end()
		if synctest.Wait(); cut != 2 {
			t.Errorf("a session that must end waits for its client")
		}
		late.end()
		var none *patience
		none.gives()
		none.took()
		none.end()
		if !errors.Is(none.why(errGone), errGone) {
			t.Error("without a bound it is over")
		}
	})
}
