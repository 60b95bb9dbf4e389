// Package wait is how tests wait for what must come about, without a guess at how long
// that takes.
package wait

import (
	"testing"
	"time"
)

// Patience bounds every wait. It is long, for a machine may be busy with other things: who
// promises a time measures it.
const Patience = time.Minute

// For asks ok until it is true, and fails the test once Patience is over.
func For(t testing.TB, what string, ok func() bool) {
	t.Helper()
	Telling(t, func() string { return what }, ok)
}

// Telling is For where only the end of the wait knows what to say.
func Telling(t testing.TB, what func() string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come about within %s: %s", Patience, what())
		}
	}
}
