package publish_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/snapshot"
)

// TestWhatWaitsIsNotFresh pings while a change waits behind the one before it, at every
// phase of the replica's own checks: the answer must not count as fresh what the node
// does not have.
func TestWhatWaitsIsNotFresh(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "0", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		for i := range 120 {
			time.Sleep(950 * time.Millisecond)
			h.put(task("b", fmt.Sprint("first", i), "db"))
			p.apply() // at once
			time.Sleep(2 * time.Millisecond)
			h.put(task("a", fmt.Sprint("next", i), "db"))
			committed := time.Now()
			time.Sleep(3 * time.Millisecond)
			p.ping(int64(i + 1))
			for updated := false; ; {
				m, err := p.conn.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if u := m.GetUpdate(); u != nil {
					p.ack(p.holder.Apply(u))
					updated = updated || len(u.GetObjects()) > 0
				}
				if b := m.GetBookmark(); b != nil {
					asOf := time.Now().Add(-b.GetReplicaStaleness().AsDuration())
					if !updated && asOf.After(committed) {
						t.Fatalf("round %d: fresh as of %s after a commit that was not sent", i, asOf.Sub(committed))
					}
					if updated {
						break
					}
					time.Sleep(5 * time.Millisecond)
					p.ping(int64(i + 1))
				}
			}
		}
	})
}
