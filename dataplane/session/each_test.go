package session

import (
	"errors"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
)

// TestCredentialOfEachRequest: one that is shown with each request is leased anew when it
// has ended; a session that logged in by it ends.
func TestCredentialOfEachRequest(t *testing.T) {
	for _, each := range []bool{true, false} {
		h := newHouse(t)
		s := h.open()
		s.each = each
		used := 0
		use := func() error {
			return s.Lend(t.Context(), engine.PurposeSession, func(*engine.Credential) error { used++; return nil })
		}
		if err := errors.Join(use(), use()); err != nil || used != 2 || len(h.loans) != 1 {
			t.Fatalf("%v, used %d times, %d loans", err, used, len(h.loans))
		}
		over := errors.New("the token has ended")
		h.loans[0].err.Store(&over)
		if killed := h.judge(s) != nil; killed == each {
			t.Errorf("each %v: the session ends: %v", each, killed)
		}
		if err := use(); each && (err != nil || len(h.loans) != 2) {
			t.Errorf("%v, %d loans", err, len(h.loans))
		}
		s.Close(nil)
	}
}
