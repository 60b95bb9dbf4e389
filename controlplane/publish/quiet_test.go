package publish_test

import (
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/dataplane/snapshot"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// ahead is a house whose store has moved on by what concerns no node, such as grants
// that are taken, and a holder that was told so by a bookmark.
func ahead(h *house) (*snapshot.Holder, *peer) {
	h.t.Helper()
	h.put(resource("db", nil), task("a", "0", "db"))
	holder := snapshot.New()
	p := h.connect("n1", holder)
	p.apply()
	var v postern.Version
	for range 5 {
		v = h.commit(store.Op{Key: store.Key{Kind: "unrelated", Name: "x"}, Value: []byte("y"), If: store.AnyRevision})
	}
	p.advance(v)
	return holder, p
}

// advance pings until the bookmark covers v.
func (p *peer) advance(v postern.Version) {
	p.h.t.Helper()
	for i := int64(1); !p.holder.Version().Covers(v); i++ {
		if i > 10 {
			p.h.t.Fatalf("the bookmarks stay at %s, want %s", p.holder.Version(), v)
		}
		time.Sleep(time.Second)
		p.ping(i)
		m, err := p.conn.Recv()
		if err != nil {
			p.h.t.Fatal(err)
		}
		if u := m.GetUpdate(); u != nil {
			p.ack(p.holder.Apply(u))
			continue
		}
		b := m.GetBookmark().GetVersion()
		p.holder.Advance(postern.Version{Epoch: b.GetEpoch(), Revision: b.GetRevision()})
	}
}

// A node that a bookmark has taken further is told nothing older, whatever it is told.
func TestNothingOlderThanABookmark(t *testing.T) {
	for name, then := range map[string]func(h *house, p *peer){
		"the comparison of a quiet node": func(*house, *peer) { time.Sleep(2 * time.Minute) },
		"a lock":                         func(h *house, _ *peer) { h.put(lockOn("l", &typesv1.LockSpec{Subject: "alice", Reason: "x"})) },
		"a lock while a change of policy waits": func(h *house, _ *peer) {
			h.put(task("b", "1", "db"))
			time.Sleep(time.Millisecond)
			h.put(task("a", "1", "db"))
			time.Sleep(time.Millisecond)
			h.put(lockOn("l", &typesv1.LockSpec{Subject: "alice", Reason: "x"}))
		},
		"new keys": func(h *house, _ *peer) {
			h.mu.Lock()
			h.keys = map[string][]byte{"k2": make([]byte, 32)}
			h.mu.Unlock()
			time.Sleep(2 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(h *house) {
				holder, p := ahead(h)
				defer p.close()
				before := holder.Version()
				then(h, p)
				p.apply() // fails where the update does not follow
				if !holder.Version().Covers(before) {
					t.Errorf("at %s, was at %s", holder.Version(), before)
				}
				time.Sleep(time.Second)
			})
		})
	}
}

// Nor is a node that comes back, with all that it had or to get everything anew.
func TestNothingOlderAfterANewStream(t *testing.T) {
	for name, forget := range map[string]bool{"with its content": false, "for everything": true} {
		t.Run(name, func(t *testing.T) {
			inHouse(t, func(h *house) {
				holder, p := ahead(h)
				p.close()
				time.Sleep(time.Second)
				p = h.reconnect("n1", holder, forget)
				defer p.close()
				u := p.apply()
				if u.GetSnapshot() != forget {
					t.Errorf("a snapshot: %v", u.GetSnapshot())
				}
			})
		})
	}
}
