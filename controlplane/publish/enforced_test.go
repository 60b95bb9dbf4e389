package publish_test

import (
	"context"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/snapshot"
)

// TestEnforced: who has changed policy waits for the nodes that are connected, and not for
// long; what a node may do again without asking rests on a policy that has all of it.
func TestEnforced(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "0", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		took := func(change func()) time.Duration {
			v := h.put(task("a", time.Now().String(), "db"))
			began := time.Now()
			change()
			if err := h.hub.Enforced(context.Background(), v); err != nil {
				t.Fatal(err)
			}
			if !h.hub.Settled() || !h.hub.Snapshot().Version().Covers(v) {
				t.Error("the replica itself judges by an older policy")
			}
			return time.Since(began)
		}
		if d := took(func() { p.apply() }); d > 100*time.Millisecond {
			t.Errorf("it was answered %s after the node had confirmed", d)
		}
		if d := took(func() {}); d < 200*time.Millisecond || d > time.Second {
			t.Errorf("it was answered after %s where a node is silent", d)
		}
		p.apply()
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		v := h.put(task("a", "later", "db"))
		v.Revision += 1000
		if err := h.hub.Enforced(ended, v); err == nil {
			t.Error("a version that never came is enforced")
		}
	})
}
