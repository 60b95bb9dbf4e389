package publish_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/dataplane/snapshot"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
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

// TestNothingIsFreshUnderALockThatCannotBeRead tells no node that it is up to date, from the
// first moment on, until the lock is gone or can be read. Everything else goes on.
func TestNothingIsFreshUnderALockThatCannotBeRead(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "0", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		ping := int64(0)
		echo := func() int64 {
			time.Sleep(time.Second)
			ping++
			p.ping(ping)
			for {
				m, err := p.conn.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if u := m.GetUpdate(); u != nil {
					p.ack(p.holder.Apply(u))
				}
				if b := m.GetBookmark(); b != nil {
					return b.GetEchoMonotonicNanos()
				}
			}
		}
		if got := echo(); got != ping {
			t.Errorf("echo %d of ping %d", got, ping)
		}
		broken := store.Op{Key: store.Key{Kind: "lock", Name: "l"}, Value: []byte("no lock"), If: store.AnyRevision}
		_, later, err := store.EncodeObject(lockOn("l", nil)) // as of a later release, whose target is not known
		if err != nil {
			t.Fatal(err)
		}
		barred := func(want bool) {
			t.Helper()
			if reason, _, got := h.hub.Snapshot().Barred(&postern.Subject{Name: "alice"}, "", "", "", time.Now()); got != want {
				t.Errorf("alice is barred: %v, %s", got, reason)
			}
		}
		for _, mend := range []func(){func() { h.remove("lock", "l") }, func() { h.put(lockOn("l", &typesv1.LockSpec{Subject: "mallory"})) }} {
			h.commit(broken)
			if got := echo(); got != 0 {
				t.Errorf("echo %d under a lock that cannot be read", got)
			}
			broken.Value = later
			v := h.put(task("a", fmt.Sprint(ping), "db"))
			if got := echo(); got != 0 {
				t.Errorf("echo %d under a lock that cannot be read", got)
			}
			if p.holder.Version().Revision < v.Revision {
				t.Error("policy does not go on")
			}
			barred(true)
			mend()
			if got := echo(); got != ping {
				t.Errorf("echo %d of ping %d once the lock is mended", got, ping)
			}
			barred(false)
		}
		h.commit(broken) // it stays as it was
		if got := echo(); got != ping {
			t.Errorf("echo %d of ping %d under a lock that is known", got, ping)
		}
	})
}
