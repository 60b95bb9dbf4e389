package nodeapi_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/dataplane/control"
	"github.com/posterngate/postern/dataplane/spool"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// withNode runs test in a bubble, on one replica and a connected node.
func withNode(t *testing.T, test func(h *house, r *replica, w *wire, n *node)) {
	dir := t.TempDir()
	synctest.Test(t, func(*testing.T) {
		h := newHouse(t)
		defer h.stop()
		h.put(resource("db"))
		r := h.replica(h.mem)
		w := newWire(map[string]*replica{"a:1": r})
		id := h.enrolled(r, w, "a:1", "n1", dir)
		n := h.node(id, w, "a:1")
		time.Sleep(2 * time.Second)
		if !n.Connected() {
			t.Fatal("the node is not connected")
		}
		test(h, r, w, n)
	})
}

func TestGrants(t *testing.T) {
	withNode(t, func(h *house, r *replica, w *wire, n *node) {
		ctx := context.Background()
		g, err := n.OpenGrant(ctx, &nodev1.OpenGrantRequest{Token: "good", Task: "t"})
		if err != nil {
			t.Fatal(err)
		}
		if g.ID != "g-1" || g.Subject.Name != "alice" || g.Approval.Rule != "leads" || !n.holder.Version().Covers(g.MinVersion) {
			t.Errorf("grant %+v", g)
		}
		if !slices.Equal(g.Alternatives, []postern.Alternative{{Task: "u"}, {Task: "v", Asks: true}}) {
			t.Errorf("alternatives %+v", g.Alternatives)
		}
		var refusal *postern.Refusal
		_, err = n.OpenGrant(ctx, &nodev1.OpenGrantRequest{Token: "bad", Task: "t"})
		if !errors.As(err, &refusal) || refusal.Code != postern.CodeBadToken || refusal.Reason != "this token is over" || refusal.Hint != "log in again" {
			t.Errorf("a bad token: %+v", err)
		}
		var code string
		g, err = n.SignIn(ctx, &nodev1.SignInRequest{Task: "t"}, func(p *nodev1.SignInPrompt) { code = p.GetCode() })
		if err != nil || g.ID != "g-1" || code != "BCDF-GHJK" {
			t.Errorf("signed in: %+v, %q, %v", g, code, err)
		}
		for name, spoil := range map[string]func(*typesv1.Grant){
			"another task":      func(g *typesv1.Grant) { g.Task = "u" },
			"over":              func(g *typesv1.Grant) { g.State = typesv1.GrantState_GRANT_STATE_OVER },
			"no end":            func(g *typesv1.Grant) { g.EndTime = nil },
			"nobody":            func(g *typesv1.Grant) { g.Subject = nil },
			"no version":        func(g *typesv1.Grant) { g.MinVersion = nil },
			"a version to come": func(g *typesv1.Grant) { g.MinVersion.Revision += 1000 },
			"of another epoch":  func(g *typesv1.Grant) { g.MinVersion.Epoch = "other" },
			"state not set":     func(g *typesv1.Grant) { g.State = 0 },
		} {
			r.mu.Lock()
			r.grant = spoil
			r.mu.Unlock()
			began := time.Now()
			_, err := n.OpenGrant(ctx, &nodev1.OpenGrantRequest{Token: "good", Task: "t"})
			if !errors.As(err, &refusal) || refusal.Code != postern.CodeUnavailable || time.Since(began) > 10*time.Second {
				t.Errorf("%s: %v after %s", name, err, time.Since(began))
			}
		}
	})
}

// TestGrantsAreOpenedAgain: a node goes by an answer again for as long as it was told, and
// not once anything has changed.
func TestGrantsAreOpenedAgain(t *testing.T) {
	withNode(t, func(h *house, r *replica, w *wire, n *node) {
		r.mu.Lock()
		r.reuse = 10 * time.Second
		r.mu.Unlock()
		open := func(what string, asks bool, req *nodev1.OpenGrantRequest) {
			t.Helper()
			before := r.openings()
			g, err := n.OpenGrant(context.Background(), req)
			if err != nil || g.ID != "g-1" {
				t.Fatalf("%s: %+v, %v", what, g, err)
			}
			if asked := r.openings() > before; asked != asks {
				t.Errorf("%s: the control plane was asked: %v", what, asked)
			}
		}
		good := func() *nodev1.OpenGrantRequest { return &nodev1.OpenGrantRequest{Token: "good", Task: "t"} }
		open("first", true, good())
		open("again", false, good())
		open("for another task", true, &nodev1.OpenGrantRequest{Token: "good", Task: "u"})
		open("for a resource", true, &nodev1.OpenGrantRequest{Token: "good", Task: "t", Resource: "db"})
		open("with a certificate", true, &nodev1.OpenGrantRequest{Token: "good", Task: "t", ClientCertificate: []byte{1}})
		open("with a certificate again", true, &nodev1.OpenGrantRequest{Token: "good", Task: "t", SshCertificate: []byte{1}})
		if _, err := n.OpenGrant(context.Background(), &nodev1.OpenGrantRequest{Token: "bad", Task: "t"}); err == nil {
			t.Error("another token is taken for it")
		}
		time.Sleep(9 * time.Second)
		open("nine seconds later", false, good())
		time.Sleep(time.Second)
		open("when its time is over", true, good())
		h.put(lockOn("l", &typesv1.LockSpec{Subject: "bob", Reason: "x"}))
		time.Sleep(100 * time.Millisecond)
		open("after a lock", true, good())
		h.put(resource("db2"))
		time.Sleep(100 * time.Millisecond)
		open("after a change of policy", true, good())
		open("and again", false, good())
		w.set("a:1", true)
		time.Sleep(100 * time.Millisecond)
		if _, err := n.OpenGrant(context.Background(), good()); err == nil {
			t.Error("it is opened without a control plane")
		}
		w.set("a:1", false)
		time.Sleep(10 * time.Second)
		open("once it is back", true, good())
		r.mu.Lock()
		r.reuse = 0
		r.mu.Unlock()
		time.Sleep(11 * time.Second)
		open("where nothing was said of it", true, good())
		open("and once more", true, good())
	})
}

func TestTheNewestPolicyIsWaitedFor(t *testing.T) {
	withNode(t, func(h *house, r *replica, w *wire, n *node) {
		for i := range 20 {
			h.put(lockOn("l", &typesv1.LockSpec{Subject: fmt.Sprint(i), Reason: "x"}))
			g, err := n.OpenGrant(context.Background(), &nodev1.OpenGrantRequest{Token: "good", Task: "t"})
			if err != nil {
				t.Fatal(err)
			}
			if !n.holder.Version().Covers(g.MinVersion) {
				t.Errorf("the node is at %s and the grant wants %s", n.holder.Version(), g.MinVersion)
			}
		}
	})
}

func TestHolds(t *testing.T) {
	open := func(ctx context.Context, n *node) (<-chan typesv1.HoldState, <-chan error) {
		told, ended := make(chan typesv1.HoldState, 16), make(chan error, 1)
		go func() {
			h, err := n.OpenHold(ctx, &nodev1.OpenHoldRequest{Scope: "statement"}, func(r *nodev1.OpenHoldResponse) {
				if r.GetUrl() != "https://postern.example/holds/h-1" {
					err := fmt.Errorf("url %q", r.GetUrl())
					panic(err)
				}
				told <- r.GetHold().GetState()
			})
			if err == nil && h.GetState() == typesv1.HoldState_HOLD_STATE_PENDING {
				err = errors.New("still pending")
			}
			ended <- err
		}()
		return told, ended
	}
	t.Run("yes", func(t *testing.T) {
		withNode(t, func(h *house, r *replica, w *wire, n *node) {
			told, ended := open(context.Background(), n)
			<-told
			r.settle(typesv1.HoldState_HOLD_STATE_APPROVED)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if s := <-told; s != typesv1.HoldState_HOLD_STATE_APPROVED {
				t.Errorf("told %s", s)
			}
			if _, err := n.ConsumeHold(context.Background(), &nodev1.ConsumeHoldRequest{Hold: "h-1", Digest: []byte("d"), Session: "s"}); err != nil {
				t.Error(err)
			}
			if !slices.Contains(r.asked, "consume n1 h-1 d s") {
				t.Errorf("asked %v", r.asked)
			}
		})
	})
	t.Run("the client gives up", func(t *testing.T) {
		withNode(t, func(h *house, r *replica, w *wire, n *node) {
			ctx, cancel := context.WithCancelCause(context.Background())
			told, ended := open(ctx, n)
			<-told
			gone := errors.New("the client is gone")
			cancel(gone)
			if err := <-ended; !errors.Is(err, gone) {
				t.Errorf("ended with %v", err)
			}
			time.Sleep(5 * time.Second)
			if s := r.state(); s != typesv1.HoldState_HOLD_STATE_WITHDRAWN {
				t.Errorf("the hold is %s", s)
			}
		})
	})
	t.Run("the connection is lost", func(t *testing.T) {
		withNode(t, func(h *house, r *replica, w *wire, n *node) {
			told, ended := open(context.Background(), n)
			<-told
			w.set("a:1", true)
			time.Sleep(100 * time.Millisecond) // the node asks again within holdGrace, however its waits fall
			w.set("a:1", false)
			time.Sleep(time.Minute)
			if s := r.state(); s != typesv1.HoldState_HOLD_STATE_PENDING {
				t.Errorf("the hold is %s", s)
			}
			r.settle(typesv1.HoldState_HOLD_STATE_APPROVED)
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	})
}

func TestCredentials(t *testing.T) {
	withNode(t, func(h *house, r *replica, w *wire, n *node) {
		ctx := context.Background()
		l, err := n.Lease(ctx, &nodev1.LeaseRequest{Session: "s"})
		if err != nil {
			t.Fatal(err)
		}
		id, err := control.LoadIdentity(h.dir)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := secret.OpenWith(id.HPKEKey(), secret.CredentialInfo("n1", l.GetLease(), "s"), l.GetSealed())
		if err != nil || string(plain) != "password" {
			t.Errorf("opened %q, %v", plain, err)
		}
		// What goes wrong inside stays inside.
		for name, call := range map[string]func() error{
			"panic": func() error { _, err := n.RenewLease(ctx, &nodev1.RenewLeaseRequest{}); return err },
			"error": func() error { _, err := n.Release(ctx, &nodev1.ReleaseRequest{}); return err },
		} {
			var refusal *postern.Refusal
			if err := call(); !errors.As(err, &refusal) || refusal.Code != postern.CodeUnavailable || refusal.Cause.Error() != "internal error: rpc error: code = Internal desc = internal error" {
				t.Errorf("%s: %v, %v", name, err, refusal.Cause)
			}
		}
		if !n.Connected() {
			t.Error("the node lost its stream over a panic")
		}
	})
}

// TestNothingUnderAGrantOfOthers: what a node asks under a grant that no client has opened
// there is refused, whatever it is (CVE-2026-45808).
func TestNothingUnderAGrantOfOthers(t *testing.T) {
	withNode(t, func(_ *house, r *replica, _ *wire, n *node) {
		ctx, grant := context.Background(), "g-elsewhere"
		for what, call := range map[string]func() error{
			"lease":  func() error { _, err := n.Lease(ctx, &nodev1.LeaseRequest{Session: "s", Grant: grant}); return err },
			"budget": func() error { _, err := n.DrawBudget(ctx, &nodev1.DrawBudgetRequest{Grant: grant}); return err },
			"vouch":  func() error { _, err := n.Vouch(ctx, &nodev1.VouchRequest{Grant: grant}); return err },
			"pins":   func() error { _, err := n.PinServer(ctx, &nodev1.PinServerRequest{Grant: grant}); return err },
			"hold": func() error {
				_, err := n.OpenHold(ctx, &nodev1.OpenHoldRequest{Scope: "session", Grant: grant}, func(*nodev1.OpenHoldResponse) {})
				return err
			},
		} {
			var refusal *postern.Refusal
			if err := call(); !errors.As(err, &refusal) || refusal.Code != postern.CodeDenied {
				t.Errorf("%s: %v", what, err)
			}
		}
		if len(r.asked) != 0 {
			t.Errorf("asked %v", r.asked)
		}
	})
}

func TestCancelsAreRouted(t *testing.T) {
	withNode(t, func(h *house, r *replica, w *wire, n *node) {
		if err := n.RouteCancel(context.Background(), []byte("n1")); err != nil {
			t.Error(err)
		}
		name, err := r.hub.Broadcast(context.Background(), &nodev1.Command{Kind: &nodev1.Command_CancelQuery{CancelQuery: &nodev1.CancelQuery{Key: []byte("n1")}}})
		if err != nil || name != "n1" {
			t.Errorf("broadcast found %q, %v", name, err)
		}
	})
}

// queue is what a spool gives and takes.
type queue struct {
	mu     sync.Mutex
	chunks []spool.Chunk
	acked  map[string]uint32
	reject []string
}

func (q *queue) next(ctx context.Context) (spool.Chunk, error) {
	q.mu.Lock()
	if len(q.chunks) > 0 {
		c := q.chunks[0]
		q.chunks = q.chunks[1:]
		q.mu.Unlock()
		return c, nil
	}
	q.mu.Unlock()
	<-ctx.Done()
	return spool.Chunk{}, ctx.Err()
}

func (q *queue) ack(s string, next uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.acked[s] = max(q.acked[s], next)
}

func (q *queue) no(s string, index uint32, why string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reject = append(q.reject, fmt.Sprint(s, index, why))
}

func TestRecords(t *testing.T) {
	withNode(t, func(h *house, r *replica, w *wire, n *node) {
		var mu sync.Mutex
		seen := map[string]uint32{}
		r.ingest = func(ctx context.Context, c *nodev1.ShipRequest) (*nodev1.ShipResponse, error) {
			switch c.GetSession() {
			case "stuck":
				<-ctx.Done()
				return nil, ctx.Err()
			case "broken":
				return nil, errors.New("disk full")
			case "forged":
				return &nodev1.ShipResponse{Session: "forged", Reject: "bad chain", RejectedIndex: c.GetIndex()}, nil
			}
			mu.Lock()
			defer mu.Unlock()
			if c.GetIndex() != seen[c.GetSession()] {
				return nil, fmt.Errorf("chunk %d of %s came before %d", c.GetIndex(), c.GetSession(), seen[c.GetSession()])
			}
			seen[c.GetSession()]++
			return &nodev1.ShipResponse{Session: c.GetSession(), NextIndex: c.GetIndex() + 1}, nil
		}
		q := &queue{acked: map[string]uint32{}}
		for i := range uint32(40) {
			for _, s := range []string{"stuck", "s1", "s2", "broken", "forged"} {
				q.chunks = append(q.chunks, spool.Chunk{Session: s, Index: i, Data: make([]byte, 8<<10)})
			}
		}
		began := time.Now()
		err := n.Stream(context.Background(), q.next, q.ack, q.no)
		if err == nil || time.Since(began) > time.Minute {
			t.Errorf("after %s: %v, want an error soon", time.Since(began), err)
		}
		if q.acked["s1"] == 0 || q.acked["s2"] == 0 || q.acked["stuck"]+q.acked["broken"]+q.acked["forged"] != 0 {
			t.Errorf("acked %v", q.acked)
		}
		if len(q.reject) == 0 {
			t.Error("nothing was rejected")
		}
		// Without the bad ones everything goes through.
		q = &queue{acked: map[string]uint32{}}
		for i := range uint32(100) {
			q.chunks = append(q.chunks, spool.Chunk{Session: "s3", Index: i, Data: make([]byte, 256<<10)})
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = n.Stream(ctx, q.next, q.ack, q.no)
		if q.acked["s3"] != 100 {
			t.Errorf("acked %v, want all", q.acked)
		}
	})
}

func TestTheIdentityRotates(t *testing.T) {
	withNode(t, func(h *house, r *replica, w *wire, n *node) {
		dir := h.dir
		before, err := control.LoadIdentity(dir)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Hour) // certificates live for a day
		after, err := control.LoadIdentity(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !after.Expires().After(before.Expires()) {
			t.Errorf("the certificate still ends at %s", after.Expires())
		}
		if !slices.Equal(after.HPKEKey().PublicKey(), before.HPKEKey().PublicKey()) {
			t.Error("the HPKE key has changed")
		}
		if n.Staleness() > 3*time.Second || !n.Connected() {
			t.Errorf("staleness %s", n.Staleness())
		}
		if _, err := n.OpenGrant(context.Background(), &nodev1.OpenGrantRequest{Token: "good", Task: "t"}); err != nil {
			t.Errorf("after the renewal: %v", err)
		}
		info, err := os.Stat(filepath.Join(dir, "identity.json"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("identity file: %v, %v", info.Mode(), err)
		}
	})
}

func TestALockedNodeStops(t *testing.T) {
	withNode(t, func(h *house, r *replica, w *wire, n *node) {
		if n.Staleness() > 3*time.Second {
			t.Errorf("staleness %s while connected", n.Staleness())
		}
		h.put(lockOn("l", &typesv1.LockSpec{Node: "n1", Reason: "stolen"}))
		time.Sleep(100 * time.Millisecond)
		if _, _, ok := n.holder.Current().Locked("", "", "", "", "n1", time.Now()); !ok {
			t.Error("the node has not heard of the lock")
		}
		time.Sleep(10 * time.Second)
		if n.Connected() || n.Staleness() < time.Hour {
			t.Errorf("connected %v, staleness %s; want neither", n.Connected(), n.Staleness())
		}
		rev := h.put(lockOn("other", &typesv1.LockSpec{Subject: "x", Reason: "x"}))
		if _, err := h.mem.Commit(context.Background(), deletion("lock", "l")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if !n.Connected() || n.Staleness() > 3*time.Second || n.holder.Version().Revision < rev {
			t.Errorf("connected %v, staleness %s after the lock was lifted", n.Connected(), n.Staleness())
		}
	})
}
