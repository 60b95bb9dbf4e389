package http

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestPatience: it is over where one part takes too long, and not where all of them do.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cut := 0
		p := &patience{limit: time.Minute, cut: func() { cut++ }}
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

		over := &patience{limit: time.Minute, cut: func() { t.Error("cut off after the end") }}
		over.gives()
		over.end()
		over.lose() // the timer was just then
		var none *patience
		none.gives()
		none.took()
		none.end()
		if !errors.Is(none.why(errGone), errGone) {
			t.Error("without a bound it is over")
		}
	})
}
