package fleet

import (
	"encoding/json"
	"fmt"
	"regexp"
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
	out := f.Must(t, "bob", append([]string{"sessions", "list", "--limit", "1000000", "--format", "json"}, args...)...)
	var all []Session
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return all
}

// AwaitSealed waits until no node that runs holds a record of its own and every recording
// that matches has an end, and returns them. A recording of which nothing has arrived yet
// is in no list, so the nodes are asked first.
func (f *Fleet) AwaitSealed(t testing.TB, within time.Duration, args ...string) []Session {
	t.Helper()
	var all []Session
	Eventually(t, within, "recordings end", func() error {
		for _, n := range f.Nodes {
			if err := n.shipped(); err != nil {
				return err
			}
		}
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

var spoolDepth = regexp.MustCompile(`(?m)^postern_spool_depth_bytes(?:\{[^}]*\})? (\S+)$`)

// shipped is an error while the node holds records that are not stored yet.
func (n *Node) shipped() error {
	select {
	case <-n.Ended():
		return nil
	default:
	}
	_, body, err := HTTP(n.Debug, "/metrics")
	if err != nil {
		return err
	}
	depth := spoolDepth.FindStringSubmatch(body)
	if depth == nil {
		return fmt.Errorf("node %s does not say what its spool holds", n.Name)
	}
	if depth[1] != "0" {
		return fmt.Errorf("node %s holds %s bytes that are not stored yet", n.Name, depth[1])
	}
	return nil
}

// Verify proves one recording with "postern sessions verify".
func (f *Fleet) Verify(t testing.TB, id string) {
	t.Helper()
	if r := f.Run(t, "bob", "sessions", "verify", id); r.Code != 0 || !strings.Contains(r.Stdout, "chain and signature hold") {
		t.Errorf("verify %s: code %d %s%s", id, r.Code, r.Stdout, r.Stderr)
	}
}
