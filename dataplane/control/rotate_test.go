package control

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestRenewalAfterAJump: a machine that was suspended, or whose clock was set, renews as soon
// as it is due by then, and not when a timer has run out that knew nothing of that.
func TestRenewalAfterAJump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Config{})
		began, asked := time.Now(), 0
		c.now = func() time.Time {
			if asked++; asked > 1 {
				return time.Now().Add(12 * time.Hour)
			}
			return time.Now()
		}
		c.awaitRenewal(t.Context(), began.Add(12*time.Hour))
		if waited := time.Since(began); waited > renewLook {
			t.Errorf("it waited %s", waited)
		}
		c.now = time.Now
		began = time.Now()
		c.awaitRenewal(t.Context(), began.Add(time.Hour))
		if waited := time.Since(began); waited != time.Hour {
			t.Errorf("without a jump it waited %s", waited)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c.awaitRenewal(ctx, time.Now().Add(time.Hour))
	})
}
