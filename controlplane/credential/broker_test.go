package credential

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
)

func TestLeaseAndRelease(t *testing.T) {
	h := newHouse(t)
	resp := h.take("s-1")
	if c := h.open("s-1", resp); c.GetAccount() != "user-1" || string(c.GetPassword()) != canary {
		t.Errorf("the node opened %q", c.GetAccount())
	}
	if got := h.states(); got[stateActive] != 1 {
		t.Errorf("ledger = %v", got)
	}
	for range 2 { // idempotent
		if _, err := h.Release(t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: resp.GetLease()}); err != nil {
			t.Fatal(err)
		}
	}
	if h.vault.live() != 0 || h.states()[stateRevoked] != 1 {
		t.Errorf("after the release: %d users, ledger %v", h.vault.live(), h.states())
	}
	if _, err := h.Release(t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: "l-none"}); err != nil {
		t.Errorf("releasing an unknown lease: %v", err)
	}
	h.clean()
}

func TestAskingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		first := h.take("s-1")
		again := h.take("s-1")
		if again.GetLease() != first.GetLease() || h.open("s-1", again).GetAccount() != "user-1" || h.vault.made != 1 {
			t.Errorf("asking again made another credential")
		}
		// Another control plane does not have the answer, and so lends anew under the
		// same lease; the earlier credential is revoked.
		other := h.another()
		resp, err := other.Lease(t.Context(), h.node(), ask("s-1"))
		if err != nil {
			t.Fatal(err)
		}
		if resp.GetLease() != first.GetLease() || h.open("s-1", resp).GetAccount() != "user-2" || h.vault.live() != 1 {
			t.Errorf("lease %s, %d users", resp.GetLease(), h.vault.live())
		}
		if h.take("s-2").GetLease() == first.GetLease() {
			t.Error("two sessions share a lease")
		}
		// A node with a new key cannot open an old answer.
		h.key, _ = secret.GenerateKey()
		if c := h.open("s-2", h.take("s-2")); c.GetAccount() == "" {
			t.Error("nothing lent to the new key")
		}
		time.Sleep(10 * time.Minute)
		if h.open("s-1", h.take("s-1")).GetAccount() == "" || h.vault.live() != 2 {
			t.Errorf("after its end: %d users", h.vault.live())
		}
		h.clean()
	})
}

func TestAnAnswerIsOfTheCredentialThatLives(t *testing.T) {
	h := newHouse(t)
	h.take("s-1")
	// The node goes over to another control plane, which lends anew, and comes back.
	other := h.another()
	if _, err := other.Lease(t.Context(), h.node(), ask("s-1")); err != nil {
		t.Fatal(err)
	}
	if got := h.open("s-1", h.take("s-1")).GetAccount(); got == "user-1" {
		t.Errorf("lent %s, which the other control plane has revoked", got)
	}
	if h.vault.live() != 1 {
		t.Errorf("%d users live", h.vault.live())
	}
}

func TestOneCredentialForRequestsAtOnce(t *testing.T) {
	h := newHouse(t)
	h.vault.pause = make(chan struct{})
	g := run.New(t.Context())
	for range 8 {
		g.Go("lease", func(ctx context.Context) error {
			_, err := h.Lease(ctx, h.node(), ask("s-1"))
			return err
		})
	}
	close(h.vault.pause)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if h.vault.live() != 1 || h.vault.made != 1 {
		t.Errorf("%d credentials were made", h.vault.made)
	}
}

func TestRefusals(t *testing.T) {
	h := newHouse(t)
	past := time.Now().Add(-time.Minute)
	h.policy.put("g-asked", "report", typesv1.GrantState_GRANT_STATE_ASKED, time.Now().Add(time.Hour))
	h.policy.put("g-over", "report", typesv1.GrantState_GRANT_STATE_OVER, time.Now().Add(time.Hour))
	h.policy.put("g-past", "report", typesv1.GrantState_GRANT_STATE_ACTIVE, past)
	h.policy.put("g-other", "elsewhere", typesv1.GrantState_GRANT_STATE_ACTIVE, time.Now().Add(time.Hour))
	taken := h.take("s-taken")
	for _, c := range []struct {
		name string
		node NodeIdentity
		req  *nodev1.LeaseRequest
		want string
		code codes.Code
		kind string
	}{
		{"no session", h.node(), &nodev1.LeaseRequest{Grant: "g-1", Resource: "crm", Purpose: "session"}, "are ids", codes.InvalidArgument, ""},
		{"long session", h.node(), ask(strings.Repeat("s", maxID+1)), "are ids", codes.InvalidArgument, ""},
		{"unknown purpose", h.node(), &nodev1.LeaseRequest{Session: "s", Grant: "g-1", Resource: "crm"}, "purpose", codes.InvalidArgument, ""},
		{"no key", NodeIdentity{Name: "node-1"}, ask("s"), "has enrolled no key", codes.FailedPrecondition, ""},
		{"node out of reach", NodeIdentity{Name: "far", HPKEKey: h.key.PublicKey()}, ask("s"), "does not serve", codes.PermissionDenied, "denied"},
		{"unknown resource", h.node(), &nodev1.LeaseRequest{Session: "s", Grant: "g-1", Resource: "none", Purpose: "session"}, "does not serve", codes.PermissionDenied, "denied"},
		{"no credential", h.node(), &nodev1.LeaseRequest{Session: "s", Grant: "g-1", Resource: "bare", Purpose: "session"}, "names no credential", codes.FailedPrecondition, ""},
		{"no grant", h.node(), &nodev1.LeaseRequest{Session: "s", Resource: "crm", Purpose: "session"}, "is over", codes.PermissionDenied, "killed"},
		{"asked", h.node(), &nodev1.LeaseRequest{Session: "s", Grant: "g-asked", Resource: "crm", Purpose: "session"}, "is over", codes.PermissionDenied, "killed"},
		{"over", h.node(), &nodev1.LeaseRequest{Session: "s", Grant: "g-over", Resource: "crm", Purpose: "session"}, "is over", codes.PermissionDenied, "killed"},
		{"past its end", h.node(), &nodev1.LeaseRequest{Session: "s", Grant: "g-past", Resource: "crm", Purpose: "session"}, "is over", codes.PermissionDenied, "killed"},
		{"catalogue under a dead grant", h.node(), &nodev1.LeaseRequest{Session: "s", Grant: "g-past", Resource: "crm", Purpose: "catalog"}, "is over", codes.PermissionDenied, "killed"},
		{"task elsewhere", h.node(), &nodev1.LeaseRequest{Session: "s", Grant: "g-other", Resource: "crm", Purpose: "session"}, "does not reach", codes.PermissionDenied, "denied"},
		{"session of another grant", h.node(), &nodev1.LeaseRequest{Session: "s-taken", Grant: "g-2", Resource: "crm", Purpose: "session"}, "something else", codes.FailedPrecondition, ""},
	} {
		if c.name == "session of another grant" {
			h.policy.put("g-2", "report", typesv1.GrantState_GRANT_STATE_ACTIVE, time.Now().Add(time.Hour))
		}
		_, err := h.Lease(t.Context(), c.node, c.req)
		if fault.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) || c.kind != "" && !fault.Is(err, c.kind) {
			t.Errorf("%s: %v, want %s with %q", c.name, err, c.code, c.want)
		}
	}
	if _, err := h.Renew(t.Context(), "node-2", &nodev1.RenewLeaseRequest{Lease: taken.GetLease()}); fault.CodeOf(err) != codes.PermissionDenied {
		t.Errorf("another node renewed: %v", err)
	}
	if _, err := h.Release(t.Context(), "node-2", &nodev1.ReleaseRequest{Lease: taken.GetLease()}); fault.CodeOf(err) != codes.PermissionDenied || h.vault.live() != 1 {
		t.Errorf("another node released: %v", err)
	}
	h.cfg.Vault = nil
	if _, err := h.Lease(t.Context(), h.node(), ask("s-9")); fault.CodeOf(err) != codes.FailedPrecondition {
		t.Errorf("without a Vault: %v", err)
	}
}

func TestCatalogNeedsNoGrant(t *testing.T) {
	h := newHouse(t)
	resp, err := h.Lease(t.Context(), h.node(), &nodev1.LeaseRequest{Session: "c-1", Resource: "crm", Purpose: PurposeCatalog})
	if err != nil || h.sealed.made != 1 {
		t.Fatalf("%v, %d lent", err, h.sealed.made)
	}
	if left := time.Until(resp.GetExpireTime().AsTime()); left > 5*time.Minute {
		t.Errorf("it lives %s without a renewal", left)
	}
}

func TestRenewStaysWithinItsBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.vault.life = 8 * time.Minute
		end := time.Now().Add(17 * time.Minute)
		h.policy.put("g-1", "report", typesv1.GrantState_GRANT_STATE_ACTIVE, end)
		resp := h.take("s-1")
		expires, renew := resp.GetExpireTime().AsTime(), resp.GetRenewTime()
		for i := 0; renew != nil; i++ {
			if i > 20 {
				t.Fatal("renewed for ever")
			}
			time.Sleep(time.Until(renew.AsTime()))
			r, err := h.Renew(t.Context(), "node-1", &nodev1.RenewLeaseRequest{Lease: resp.GetLease()})
			if err != nil {
				t.Fatalf("renewal %d: %v", i, err)
			}
			if !r.GetExpireTime().AsTime().After(expires) {
				t.Fatalf("renewal %d gave no time: %s", i, r.GetExpireTime().AsTime())
			}
			expires, renew = r.GetExpireTime().AsTime(), r.GetRenewTime()
		}
		if !expires.Equal(end) {
			t.Errorf("the lease ends at %s, its grant at %s", expires, end)
		}
		time.Sleep(time.Until(end))
		if _, err := h.Renew(t.Context(), "node-1", &nodev1.RenewLeaseRequest{Lease: resp.GetLease()}); !fault.Is(err, postern.CodeKilled.String()) {
			t.Errorf("renewed after its end: %v", err)
		}
	})
}

func TestSourceBoundsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		h.vault.life, h.vault.max = time.Minute, time.Now().Add(90*time.Second)
		resp := h.take("s-1")
		if got := time.Until(resp.GetExpireTime().AsTime()); got != time.Minute {
			t.Errorf("lent for %s, the source gave a minute", got)
		}
		time.Sleep(40 * time.Second)
		r, err := h.Renew(t.Context(), "node-1", &nodev1.RenewLeaseRequest{Lease: resp.GetLease()})
		if err != nil || !r.GetExpireTime().AsTime().Equal(h.vault.max) {
			t.Errorf("renewed to %v, %v; the source gives up to %v", r.GetExpireTime().AsTime(), err, h.vault.max)
		}
	})
}

func TestRenewEndsWithTheGrant(t *testing.T) {
	h := newHouse(t)
	resp := h.take("s-1")
	h.policy.put("g-1", "report", typesv1.GrantState_GRANT_STATE_OVER, time.Now().Add(time.Hour))
	if _, err := h.Renew(t.Context(), "node-1", &nodev1.RenewLeaseRequest{Lease: resp.GetLease()}); !fault.Is(err, "killed") {
		t.Errorf("renewed under a grant that is over: %v", err)
	}
}

// TestNothingIsLentUnderALock: neither to who asks anew nor for longer, and for what has no grant
// as before.
func TestNothingIsLentUnderALock(t *testing.T) {
	h := newHouse(t)
	resp := h.take("s-1")
	h.policy.locked = "under repair"
	for _, purpose := range []string{PurposeSession, PurposeCatalog} {
		req := ask("s-2")
		req.Purpose = purpose
		if _, err := h.Lease(t.Context(), h.node(), req); !fault.Is(err, "killed") || !strings.Contains(err.Error(), "under repair") {
			t.Errorf("%s: %v", purpose, err)
		}
	}
	if _, err := h.Renew(t.Context(), "node-1", &nodev1.RenewLeaseRequest{Lease: resp.GetLease()}); !fault.Is(err, "killed") {
		t.Errorf("renewed: %v", err)
	}
	if _, err := h.Release(t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: resp.GetLease()}); err != nil || h.vault.live() != 0 {
		t.Errorf("given back: %v", err)
	}
	if _, err := h.Lease(t.Context(), h.node(), &nodev1.LeaseRequest{Session: "c-1", Resource: "crm", Purpose: PurposeCatalog}); err != nil {
		t.Errorf("a catalogue: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"state":"active","handle":"AA=="}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e = entryOf(b)
		if one, err := decode(e); err == nil && one.id != "l-1" {
			t.Error("the value renamed the lease")
		}
	})
}
