package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Session is what "postern sessions list" says of one.
type Session struct {
	ID, Subject, Task, Resource, Node, Recording, EndReason string
	Version                                                 struct{ Epoch, Revision string }
	EndTime                                                 *time.Time
	Statements, Denied                                      string
}

// Sessions lists what an auditor sees, newest first.
func (f *Fleet) Sessions(t testing.TB, args ...string) []Session {
	t.Helper()
	out := f.Must(t, "bob", append([]string{"sessions", "list", "--limit", "1000", "--format", "json"}, args...)...)
	var all []Session
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return all
}

// AwaitSealed waits until every recording that matches has an end, and returns them.
func (f *Fleet) AwaitSealed(t testing.TB, within time.Duration, args ...string) []Session {
	t.Helper()
	var all []Session
	Eventually(t, within, "recordings end", func() error {
		all = f.Sessions(t, args...)
		for _, s := range all {
			if s.Recording != "sealed" && s.Recording != "truncated" {
				return fmt.Errorf("session %s at %s is %s", s.ID, s.Node, s.Recording)
			}
		}
		return nil
	})
	return all
}

// Verify proves one recording with "postern sessions verify".
func (f *Fleet) Verify(t testing.TB, id string) {
	t.Helper()
	if r := f.Run(t, "bob", "sessions", "verify", id); r.Code != 0 || !strings.Contains(r.Stdout, "chain and signature hold") {
		t.Errorf("verify %s: code %d %s%s", id, r.Code, r.Stdout, r.Stderr)
	}
}
