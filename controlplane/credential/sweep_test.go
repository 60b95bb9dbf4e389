package credential

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

func entryOf(value []byte) store.Entry {
	return store.Entry{Key: store.Key{Kind: Kind, Name: "l-1"}, Value: value, Revision: 1}
}

// sweeping runs the sweeper of a broker until the test ends.
func sweeping(t *testing.T, b *Broker) {
	g := run.New(t.Context())
	g.Go("sweep", b.Run)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestSweepsWithinAMinute(t *testing.T) {
	for name, orphan := range map[string]func(h *house) (due time.Time){
		"a lease that is not renewed": func(h *house) time.Time {
			return h.take("s-1").GetExpireTime().AsTime()
		},
		"a lease whose grant was ended": func(h *house) time.Time {
			h.take("s-1")
			h.policy.put("g-1", "report", typesv1.GrantState_GRANT_STATE_OVER, time.Now().Add(time.Hour))
			return time.Now()
		},
		"a lease whose grant is forgotten": func(h *house) time.Time {
			h.take("s-1")
			h.policy.mu.Lock()
			delete(h.policy.grants, "g-1")
			h.policy.mu.Unlock()
			return time.Now()
		},
		"a release that the source refused": func(h *house) time.Time {
			resp := h.take("s-1")
			h.vault.set(func(f *fakeSource) { f.broken = errors.New("vault is down") })
			if _, err := h.Release(h.t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: resp.GetLease()}); err != nil {
				h.t.Errorf("release: %v", err)
			}
			h.vault.set(func(f *fakeSource) { f.broken = nil })
			return time.Now()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				due := orphan(h)
				sweeping(t, h.another())
				time.Sleep(time.Until(due) - time.Second)
				if time.Until(due) > 0 && h.vault.live() != 1 {
					t.Error("taken back too early")
				}
				time.Sleep(61 * time.Second)
				if h.vault.live() != 0 {
					t.Errorf("a minute later the user still lives; ledger %v", h.states())
				}
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if n := h.states(); len(n) != 0 {
					t.Errorf("the ledger still holds %v", n)
				}
				h.clean()
			})
		})
	}
}

// TestASourceThatIsSilent shows that what one source has lent is taken back within a minute though
// another one, that has lent much, does not answer; and that this one's is once it does.
func TestASourceThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		for n := range 400 {
			h.take(fmt.Sprintf("s-%d", n))
		}
		h.vault.set(func(f *fakeSource) { f.silent = true })
		wall := newSource()
		h.cfg.Wall = wall
		h.policy.put("g-2", "walled", typesv1.GrantState_GRANT_STATE_ACTIVE, time.Now().Add(time.Hour))
		last := 0 // in the order of the ledger
		for leaseID("node-1", session(last), PurposeSession) < "l-ff" {
			last++
		}
		if _, err := h.Lease(t.Context(), h.node(), &nodev1.LeaseRequest{Session: string(session(last)), Grant: "g-2", Resource: "crm", Purpose: PurposeSession}); err != nil {
			t.Fatal(err)
		}
		for _, g := range []string{"g-1", "g-2"} {
			h.policy.put(g, "report", typesv1.GrantState_GRANT_STATE_OVER, time.Now().Add(time.Hour))
		}
		b := h.another()
		b.cfg.Wall = wall
		sweeping(t, b)
		time.Sleep(time.Minute)
		if wall.live() != 0 || h.vault.live() != 400 {
			t.Errorf("after a minute %d logins of the wall live, and %d users of the silent source", wall.live(), h.vault.live())
		}
		h.vault.set(func(f *fakeSource) { f.silent = false })
		time.Sleep(6 * time.Minute)
		if n := h.vault.live(); n != 0 {
			t.Errorf("%d users live of a source that answers again", n)
		}
	})
}

func session(n int) postern.SessionID { return postern.SessionID(fmt.Sprintf("walled-%d", n)) }

func TestRenewedLeasesLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		resp := h.take("s-1")
		sweeping(t, h.another())
		for range 10 {
			time.Sleep(4 * time.Minute)
			if _, err := h.Renew(t.Context(), "node-1", &nodev1.RenewLeaseRequest{Lease: resp.GetLease()}); err != nil {
				t.Fatal(err)
			}
		}
		if h.vault.live() != 1 {
			t.Error("a lease that is renewed was taken back")
		}
	})
}

func TestSessionsThatAreOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.take("s-1")
		h.take("s-2")
		sweeping(t, h.another())
		for range 2 {
			for _, s := range []postern.SessionID{"s-1", "s-that-borrowed-nothing"} {
				if err := h.Over(t.Context(), "node-1", s); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := h.Over(t.Context(), "node-2", "s-2"); err != nil { // not that node's
			t.Fatal(err)
		}
		time.Sleep(15 * time.Second)
		if n := h.states(); h.vault.live() != 1 || n[stateActive] != 1 || n[stateRevoked] != 1 {
			t.Errorf("%d live, ledger %v", h.vault.live(), n)
		}
		h.take("s-1") // should the session be alive after all, it can ask again

		// A release that comes just behind the end does not wait for the sweeper.
		resp := h.take("s-3")
		if err := h.Over(t.Context(), "node-1", "s-3"); err != nil {
			t.Fatal(err)
		}
		live := h.vault.live()
		if _, err := h.Release(t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: resp.GetLease()}); err != nil || h.vault.live() != live-1 {
			t.Errorf("%v, %d live, were %d", err, h.vault.live(), live)
		}
	})
}

// before calls a function once, before a transaction.
type before struct {
	store.Store
	once sync.Once
	call func()
}

func (b *before) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	b.once.Do(b.call)
	return b.Store.Commit(ctx, ops...)
}

// counting counts transactions.
type counting struct {
	store.Store
	commits int
}

func (c *counting) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	c.commits++
	return c.Store.Commit(ctx, ops...)
}

// What is only read is lent in one transaction and ends in one, whoever ends it.
func TestWhatIsReadHasTwoSteps(t *testing.T) {
	for name, end := range map[string]func(h *house, lease string) error{
		"the node": func(h *house, lease string) error {
			_, err := h.Release(h.t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: lease})
			return err
		},
		"the record": func(h *house, _ string) error { return h.Over(h.t.Context(), "node-1", "s-1") },
	} {
		h := newHouse(t)
		c := &counting{Store: h.store}
		h.ledger.store = c
		ask := &nodev1.LeaseRequest{Session: "s-1", Resource: "crm", Purpose: PurposeCatalog}
		for round := range 2 { // the second time over what has ended
			resp, err := h.Lease(t.Context(), h.node(), ask)
			if err != nil || h.states()[stateActive] != 1 {
				t.Fatalf("%s: %v, ledger %v", name, err, h.states())
			}
			for range 2 {
				if err := end(h, resp.GetLease()); err != nil || h.states()[stateRevoked] != 1 {
					t.Errorf("%s: %v, ledger %v", name, err, h.states())
				}
			}
			if c.commits != 2*(round+1) || h.sealed.revokes != 0 {
				t.Errorf("%s: %d transactions in %d rounds, %d times revoked", name, c.commits, round+1, h.sealed.revokes)
			}
		}
		// Where it is not lent after all, nothing is on file.
		h.sealed.failAt = "token"
		if _, err := h.Lease(t.Context(), h.node(), &nodev1.LeaseRequest{Session: "s-2", Resource: "crm", Purpose: PurposeCatalog}); err == nil || len(h.states()) != 1 || c.commits != 4 {
			t.Errorf("%s: %v, ledger %v", name, err, h.states())
		}
	}
}

// A release under way does not leave the lease to the sweeper when its session's record tells
// meanwhile that the session is over.
func TestReleasedWhileItsSessionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		resp := h.take("s-1")
		b := h.another()
		b.ledger.store = &before{Store: h.store, call: func() {
			if err := h.Over(t.Context(), "node-1", "s-1"); err != nil {
				t.Error(err)
			}
		}}
		if _, err := b.Release(t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: resp.GetLease()}); err != nil || h.vault.live() != 0 {
			t.Errorf("%v, %d live, ledger %v", err, h.vault.live(), h.states())
		}
	})
}

// listed counts how often the whole ledger is read.
type listed struct {
	store.Store
	times atomic.Int64
}

func (l *listed) List(ctx context.Context, kind, after string, limit int) ([]store.Entry, int64, error) {
	if kind == Kind {
		l.times.Add(1)
	}
	return l.Store.List(ctx, kind, after, limit)
}

// TestTheLedgerIsFollowed and not read anew for each sweep: most of it has ended.
func TestTheLedgerIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		l := &listed{Store: h.store}
		b := h.another()
		b.cfg.Store = l
		resp := h.take("s-1")
		sweeping(t, b)
		time.Sleep(time.Minute)
		if _, err := h.Release(t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: resp.GetLease()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Minute)
		if n := l.times.Load(); n > 20 { // each minute it is compared
			t.Errorf("the ledger was listed %d times in ten minutes", n)
		}
		if n := h.states(); len(n) != 1 {
			t.Errorf("the ledger holds %v", n)
		}
		time.Sleep(time.Hour)
		if n := h.states(); len(n) != 0 {
			t.Errorf("an hour after it ended the ledger holds %v", n)
		}
	})
}

// TestTheLedgerKeepsTheNewest of what has ended, however many sessions there are.
func TestTheLedgerKeepsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		sweeping(t, h.another())
		const more = 50
		id := func(i int) postern.LeaseID { return postern.LeaseID(fmt.Sprint("l-", i)) }
		for i := range maxEnded + more {
			one := &lease{id: id(i), Expires: time.Now().Add(time.Hour)}
			for _, to := range []state{stateActive, stateRevoked} {
				if err := h.ledger.move(t.Context(), one, to, nil); err != nil {
					t.Fatal(err)
				}
			}
			if i == more-1 {
				time.Sleep(time.Minute) // those are the oldest
			}
		}
		lives := h.take("s-live")
		time.Sleep(time.Minute)
		if n := h.states(); n[stateRevoked] != maxEnded || n[stateActive] != 1 {
			t.Errorf("the ledger holds %v, want %d that ended and the one that lives", n, maxEnded)
		}
		for i, want := range map[int]error{0: store.ErrNotFound, more - 1: store.ErrNotFound, more: nil, maxEnded + more - 1: nil} {
			if _, err := h.ledger.get(t.Context(), id(i)); !errors.Is(err, want) {
				t.Errorf("lease %d: %v, want %v", i, err, want)
			}
		}
		if _, err := h.Renew(t.Context(), "node-1", &nodev1.RenewLeaseRequest{Lease: lives.GetLease()}); err != nil {
			t.Error(err)
		}
	})
}

func TestNothingIsEndedWhileGrantsCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.take("s-1")
		h.policy.mu.Lock()
		h.policy.down = errors.New("away")
		h.policy.mu.Unlock()
		sweeping(t, h.another())
		time.Sleep(2 * time.Minute)
		if h.vault.live() != 1 {
			t.Error("a lease was ended because nobody could be asked")
		}
	})
}

// A node that is gone for good: what it borrowed is taken back within a minute, and not
// before it must have ended its sessions. A node that came back, and one that nobody has
// heard of since before the loan, are no such nodes.
func TestNodesThatAreGone(t *testing.T) {
	for name, tc := range map[string]struct {
		last        func(began time.Time) (process string, joined, seen time.Time)
		early, late int // users alive after 44 s and after 61 s
	}{
		"silent":           {func(b time.Time) (string, time.Time, time.Time) { return "p", b, b }, 1, 0},
		"heard of":         {func(b time.Time) (string, time.Time, time.Time) { return "p", b, time.Now() }, 1, 1},
		"started anew":     {func(b time.Time) (string, time.Time, time.Time) { return "q", b.Add(20 * time.Second), time.Now() }, 0, 0},
		"the word is late": {func(b time.Time) (string, time.Time, time.Time) { return "o", b.Add(-time.Hour), b.Add(-time.Hour) }, 1, 1},
		"unknown":          {func(time.Time) (string, time.Time, time.Time) { return "", time.Time{}, time.Time{} }, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				began := time.Now()
				req := ask("s-1")
				req.Process = "p"
				if _, err := h.Lease(t.Context(), h.node(), req); err != nil {
					t.Fatal(err)
				}
				b := h.another()
				b.cfg.Last = func(postern.NodeName) (string, time.Time, time.Time) { return tc.last(began) }
				sweeping(t, b)
				time.Sleep(44 * time.Second)
				if got := h.vault.live(); got != tc.early {
					t.Errorf("%d users after 44 s, want %d", got, tc.early)
				}
				time.Sleep(17 * time.Second)
				if got := h.vault.live(); got != tc.late {
					t.Errorf("%d users after 61 s, want %d; ledger %v", got, tc.late, h.states())
				}
			})
		})
	}
}

// What a source makes after its handle was revoked would be nobody's: a node that gives
// up, or a session that ends, while the source is at work has nothing revoked before the
// work is done.
func TestNothingIsRevokedWhileItIsMade(t *testing.T) {
	for name, quit := range map[string]func(h *house, cancel func()){
		"the node gives up": func(_ *house, cancel func()) { cancel() },
		"the session ends": func(h *house, _ func()) {
			if err := h.another().Over(h.t.Context(), "node-1", "s-1"); err != nil {
				h.t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.vault.pause = make(chan struct{})
				sweeping(t, h.another())
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				g := run.New(t.Context())
				g.Go("lend", func(context.Context) error { _, _ = h.Lease(ctx, h.node(), ask("s-1")); return nil })
				time.Sleep(time.Second)
				quit(h, cancel)
				time.Sleep(10 * time.Second)
				if h.vault.revokes != 0 {
					t.Error("revoked while the source was at work")
				}
				close(h.vault.pause)
				if err := g.Wait(); err != nil {
					t.Error(err)
				}
				if name == "the session ends" {
					time.Sleep(30 * time.Second)
					if h.vault.live() != 0 {
						t.Errorf("the user outlives its session; ledger %v", h.states())
					}
				}
			})
		})
	}
}

// A control plane that dies between two steps can write nothing more: the store fails it
// from that step on. Another one must clear up.
func TestCrashBetweenSteps(t *testing.T) {
	for _, step := range []string{"token", "recorded", "read", "stored"} {
		t.Run(step, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				dying := h.another()
				dead := errors.New("killed")
				src := &crashing{fakeSource: h.vault, at: step, die: func() { h.store.Fail(dead); h.vault.set(func(f *fakeSource) { f.broken = dead }) }}
				dying.cfg.Vault = src
				if _, err := dying.Lease(t.Context(), h.node(), ask("s-1")); err == nil {
					t.Fatal("lent by the dead")
				}
				h.store.Fail(nil)
				h.vault.set(func(f *fakeSource) { f.broken = nil })
				sweeping(t, h.Broker)
				time.Sleep(61 * time.Second)
				if h.vault.live() != 0 || h.states()[stateActive] != 0 {
					t.Errorf("a minute later %d live, ledger %v", h.vault.live(), h.states())
				}
				h.take("s-1") // and the session can ask again
				h.clean()
			})
		})
	}
}

// crashing dies at one step of Issue.
type crashing struct {
	*fakeSource
	at  string
	die func()
}

func (c *crashing) Issue(ctx context.Context, r Request) (Issued, error) {
	record := r.Record
	r.Record = func(ctx context.Context, h []byte) error {
		if c.at == "token" {
			c.die()
		}
		err := record(ctx, h)
		if c.at == "recorded" {
			c.die()
			return errors.New("killed")
		}
		return err
	}
	out, err := c.fakeSource.Issue(ctx, r)
	if c.at == "read" {
		c.die()
		return out, errors.New("killed")
	}
	if c.at == "stored" {
		c.die() // ACTIVE cannot be written
	}
	return out, err
}

func TestFailedLendingLeavesNothing(t *testing.T) {
	for _, step := range []string{"token", "recorded", "read"} {
		h := newHouse(t)
		h.vault.failAt = step
		if _, err := h.Lease(t.Context(), h.node(), ask("s-1")); err == nil {
			t.Errorf("%s: lent", step)
		}
		if h.vault.live() != 0 || h.states()[stateRevoked] != 1 {
			t.Errorf("%s: %d live, ledger %v", step, h.vault.live(), h.states())
		}
		h.vault.failAt = ""
		h.take("s-1")
		h.clean()
	}
}

func TestGivesUpOnlyAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.take("s-1")
		h.vault.set(func(f *fakeSource) { f.broken = errors.New("vault is gone") })
		sweeping(t, h.Broker)
		time.Sleep(time.Hour)
		if h.states()[stateRevoking] != 1 {
			t.Errorf("within its bound: ledger %v", h.states())
		}
		time.Sleep(30 * time.Minute)
		if h.states()[stateIrrevocable] != 1 {
			t.Errorf("beyond its bound: ledger %v", h.states())
		}
		if n := h.vault.revokes; n < 10 || n > 100 {
			t.Errorf("%d tries in an hour", n)
		}
		if _, err := h.Lease(t.Context(), h.node(), ask("s-1")); err == nil {
			t.Error("lent again over a lease that could not be revoked")
		}
	})
}

func TestArrows(t *testing.T) {
	h := newHouse(t)
	all := []state{"", stateIntent, stateToken, stateActive, stateRevoking, stateRevoked, stateExpired, stateIrrevocable}
	for _, from := range all {
		for _, to := range all {
			one := &lease{id: "l-1", State: from}
			allowed := false
			for _, s := range arrows[from] {
				allowed = allowed || s == to
			}
			err := h.ledger.move(t.Context(), one, to, nil)
			if (err == nil) != allowed {
				t.Errorf("%q to %q: %v", from, to, err)
			}
			if err == nil {
				if _, err := h.store.Commit(t.Context(), store.Op{Key: h.ledger.key(one.id), Delete: true, If: one.revision}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}
