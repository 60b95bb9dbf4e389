package crash_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/e2e/fleet"
)

// TestANodeThatNeverComesBack: what it had borrowed is gone from Vault within a minute.
// A node that is cut off meanwhile keeps its session until then, and ends it itself. What
// was on a disk that is lost ends as truncated once the node is back without it.
func TestANodeThatNeverComesBack(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Embedded: true})
	eu, us := f.Nodes["eu-1-a"], f.Nodes["us-1-a"]
	token := f.Token(t, "alice")
	lost := f.Connect(t, eu, "sales-report.warehouse", token)
	kept := f.Connect(t, us, "sales-report.warehouse", token)
	if n := len(f.SessionUsers(t)); n != 2 {
		t.Fatalf("%d users of two sessions", n)
	}
	begun := func(states ...string) error {
		for _, s := range f.Sessions(t) {
			if s.Node == eu.Name && slices.Contains(states, s.Recording) {
				return nil
			}
		}
		return fmt.Errorf("none of node %s is among %+v", eu.Name, f.Sessions(t))
	}
	fleet.Eventually(t, time.Minute, "the recording begins", func() error { return begun("open") })
	if err := eu.Crash(); err != nil {
		t.Fatal(err)
	}
	took := fleet.Eventually(t, time.Minute, "the users of a node that is gone are gone", func() error {
		if users := f.SessionUsers(t); len(users) != 1 {
			return fmt.Errorf("%v", users)
		}
		return nil
	})
	t.Logf("gone after %s", took.Round(time.Millisecond))
	if rows, err := fleet.Query(t.Context(), kept, "SELECT count(*) FROM regions"); err != nil || rows[0][0] != "6" {
		t.Errorf("the session of the other node: %v %v", rows, err)
	}
	runtime.KeepAlive(lost)
	// Its disk is lost too, and with it the end of the recording: that is known once it is back.
	if err := begun("open"); err != nil {
		t.Error(err)
	}
	f.Wipe(t, eu)
	if err := eu.Start(); err != nil {
		t.Fatal(err)
	}
	fleet.Eventually(t, time.Minute, "a recording whose end was lost is truncated", func() error { return begun("truncated") })
	for _, s := range f.Sessions(t) {
		if s.Node == eu.Name && (!strings.Contains(s.EndReason, "the rest of the recording was lost") || s.EndTime == nil) ||
			s.Node == us.Name && s.Recording != "open" {
			t.Errorf("%+v", s)
		}
	}
}
