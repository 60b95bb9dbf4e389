package publish_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/posterngate/postern/dataplane/snapshot"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

func TestResume(t *testing.T) {
	setup := func(h *house) (*peer, *snapshot.Holder) {
		h.put(node("n1", "eu-1", nil), resource("db", nil), task("a", "0", "db"), task("b", "0", "db"))
		holder := snapshot.New()
		p := h.connect("n1", holder)
		p.apply()
		synctest.Wait()
		return p, holder
	}
	t.Run("by the difference", func(t *testing.T) {
		inHouse(t, func(h *house) {
			p, holder := setup(h)
			p.close()
			h.put(task("a", "1", "db"))
			h.remove("task", "b")
			h.put(lockOn("l", &typesv1.LockSpec{Subject: "eve", Reason: "x"}))
			h.endGrant("g-1", "revoked", time.Now().Add(time.Hour))
			time.Sleep(time.Second)
			p = h.connect("n1", holder)
			defer p.close()
			p.live()
			time.Sleep(time.Second)
			if n := status1(h, "n1"); n.GetLag().AsDuration() != 0 || holder.Version() != h.hub.Version() {
				t.Errorf("the node is at %s: %v", holder.Version(), n)
			}
			if _, ended := holder.Ended("g-1"); !ended {
				t.Error("the grant lives on")
			}
			if _, _, ok := holder.Current().Locked("eve", "", "", "", "", time.Now()); !ok {
				t.Error("the lock is not in force")
			}
		})
	})
	t.Run("with nothing new", func(t *testing.T) {
		inHouse(t, func(h *house) {
			p, holder := setup(h)
			p.close()
			p = h.connect("n1", holder)
			defer p.close()
			if u := p.apply(); u.GetSnapshot() || len(u.GetObjects()) > 0 {
				t.Errorf("got %v, want nothing but the version and keys", u)
			}
		})
	})
	t.Run("after a compaction", func(t *testing.T) {
		inHouse(t, func(h *house) {
			p, holder := setup(h)
			ended := p.live()
			// The replica's watch breaks, and its history is gone when it comes back.
			h.mem.Fail(errors.New("cut off"))
			h.mem.BreakWatches()
			time.Sleep(time.Second)
			h.mem.Fail(nil)
			h.put(task("a", "1", "db"))
			h.mem.Compact()
			time.Sleep(10 * time.Second)
			if holder.Version() != h.hub.Version() || holder.Version().IsZero() {
				t.Errorf("the node is at %s, want %s", holder.Version(), h.hub.Version())
			}
			select {
			case err := <-ended:
				t.Errorf("the node lost its stream over it: %v", err)
			default:
			}
			p.close()
		})
	})
	t.Run("with what nobody knows", func(t *testing.T) {
		inHouse(t, func(h *house) {
			p, holder := setup(h)
			p.close()
			time.Sleep(time.Second)
			v := holder.Version()
			other := snapshot.New()
			other.Apply(&nodev1.Update{Version: &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision}, Snapshot: true, Objects: []*typesv1.Object{task("z", "z", "db")}})
			p = h.connect("n1", other)
			defer p.close()
			if u := p.apply(); !u.GetSnapshot() || len(refs(u)) != 3 {
				t.Errorf("got %v, want a snapshot", u)
			}
		})
	})
	t.Run("ahead of the replica", func(t *testing.T) {
		inHouse(t, func(h *house) {
			p, holder := setup(h)
			p.close()
			v := holder.Version()
			holder.Advance(postern.Version{Epoch: v.Epoch, Revision: v.Revision + 1000})
			p = h.connect("n1", holder)
			defer p.close()
			if _, err := p.conn.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "postern-control epoch") {
				t.Errorf("got %v, want to be sent elsewhere", err)
			}
		})
	})
}

func TestANewEpochReplacesEverything(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "0", "db"))
		holder := snapshot.New()
		p := h.connect("n1", holder)
		defer p.close()
		p.live()
		time.Sleep(time.Second)
		old := holder.Version()
		epoch, err := h.mem.NewEpoch(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if v := holder.Version(); v.Epoch != epoch || v.Epoch == old.Epoch {
			t.Errorf("the node is at %s, want the epoch %s", v, epoch)
		}
		if _, ok := holder.Current().Terms("a"); !ok {
			t.Error("the task is gone")
		}
	})
}

func TestADifferenceIsMended(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "0", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		h.put(task("a", "1", "db"))
		u := p.update()
		ack := p.holder.Apply(u)
		ack.ContentHash = []byte("something else")
		p.ack(ack)
		if u := p.update(); !u.GetSnapshot() {
			t.Errorf("got %v, want a snapshot", u)
		}
	})
}

func TestAQuietNodeIsCompared(t *testing.T) {
	inHouse(t, func(h *house) {
		h.put(resource("db", nil), task("a", "0", "db"))
		p := h.connect("n1", snapshot.New())
		defer p.close()
		p.apply()
		began := time.Now()
		u := p.apply()
		if len(u.GetObjects()) > 0 || time.Since(began) < 30*time.Second {
			t.Errorf("after %s: %v, want a question after a while", time.Since(began), u)
		}
	})
}
