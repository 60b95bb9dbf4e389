package vault_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/credential"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

func TestVault(t *testing.T) {
	h := newHouse(t, embedded(t))
	for name, test := range map[string]func(*testing.T, *house){
		"lends a user that goes with the lease": dynamicUser,
		"bounds the user by the grant":          bounded,
		"revokes what is gone already":          gone,
		"revokes what a proxy did not find":     unfoundIsNotRevoked,
		"renews a short user":                   renewed,
		"lends a login from KV":                 fromKV,
		"certifies a key for SSH":               fromSSH,
		"says what is missing":                  missing,
		"refuses to leave a crash unbounded":    batchTokens,
		"logs in by AppRole":                    appRole,
		"logs in by JWT":                        jwtLogin,
		"logs in again":                         loginAgain,
		"keeps its token":                       keepsToken,
	} {
		t.Run(name, func(t *testing.T) {
			one := *h
			one.t = t
			test(t, &one)
		})
	}
}

func dynamicUser(t *testing.T, h *house) {
	before := h.accessors()
	b := h.broker(h.source(h.config()), nil)
	resp, err := b.Lease(t.Context(), h.node(), ask("s-dynamic", "reader"))
	check(t, err)
	c := h.open("s-dynamic", resp)
	if err := h.login(c); err != nil {
		t.Errorf("the user that was lent cannot log in: %v", err)
	}
	fresh := slices.DeleteFunc(h.accessors(), func(a string) bool { return slices.Contains(before, a) })
	if len(fresh) != 1 {
		t.Errorf("the lease has %d tokens", len(fresh))
	}
	h.clean(append(fresh, string(c.GetPassword()))...)

	_, err = b.Release(t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: resp.GetLease()})
	check(t, err)
	if err := h.login(c); err == nil {
		t.Error("the user can log in after the release")
	}
	if n := h.users(); n != "0" {
		t.Errorf("%s users are left", n)
	}
	// Of the tokens that were there before, one may have ended in its own time.
	for _, a := range h.accessors() {
		if !slices.Contains(before, a) {
			t.Error("a token is left of the lease")
		}
	}
	h.clean(string(c.GetPassword()))
}

func bounded(t *testing.T, h *house) {
	h.policy.end = time.Now().Add(10 * time.Minute)
	var token string
	issued, err := h.source(h.config()).Issue(t.Context(), credential.Request{
		Ref:   &typesv1.CredentialRef{Vault: &typesv1.VaultRef{Mount: "db", Role: "reader"}},
		Lease: "l-1", Grant: "g-1", Node: "node-1", Until: h.policy.end, Record: recordTo(&token),
	})
	check(t, err)
	t.Cleanup(func() { check(t, h.source(h.config()).Revoke(context.Background(), issued.Handle)) })
	if latest := h.policy.end.Add(time.Minute + 2*time.Second); issued.Expires.After(latest) {
		t.Errorf("the user ends at %s; its token at %s", issued.Expires, latest)
	}
	data := h.vault.Must(t, http.MethodPost, "auth/token/lookup-accessor", map[string]any{"accessor": token})["data"].(map[string]any)
	if most, _ := data["explicit_max_ttl"].(float64); most <= 600 || most > 662 {
		t.Errorf("explicit_max_ttl = %v s, want that of the grant and a minute", data["explicit_max_ttl"])
	}
	if data["orphan"] != true || data["meta"].(map[string]any)["grant"] != "g-1" || slices.Contains(data["policies"].([]any), any("default")) {
		t.Errorf("token = %v", data)
	}
}

func gone(t *testing.T, h *house) {
	var handles [][]byte
	src := h.source(h.config())
	issued, err := src.Issue(t.Context(), credential.Request{
		Ref:   &typesv1.CredentialRef{Vault: &typesv1.VaultRef{Mount: "db", Role: "reader"}},
		Until: h.policy.end, Record: func(_ context.Context, b []byte) error { handles = append(handles, b); return nil },
	})
	check(t, err)
	for range 2 {
		for _, b := range append(handles, issued.Handle) {
			if err := src.Revoke(t.Context(), b); err != nil {
				t.Errorf("revoke: %v", err)
			}
		}
	}
	if err := src.Revoke(t.Context(), []byte("{}")); err == nil {
		t.Error("a damaged handle was taken")
	}
}

func renewed(t *testing.T, h *house) {
	b := h.broker(h.source(h.config()), nil)
	resp, err := b.Lease(t.Context(), h.node(), ask("s-renew", "short"))
	check(t, err)
	first := resp.GetExpireTime().AsTime()
	if left := time.Until(first); left > 20*time.Second || resp.GetRenewTime() == nil {
		t.Errorf("the lease lives %s, its user 20s", left)
	}
	r, err := b.Renew(t.Context(), "node-1", &nodev1.RenewLeaseRequest{Lease: resp.GetLease()})
	check(t, err)
	if !r.GetExpireTime().AsTime().After(first.Add(time.Minute)) {
		t.Errorf("renewed from %s to %s", first, r.GetExpireTime().AsTime())
	}
	_, err = b.Release(t.Context(), "node-1", &nodev1.ReleaseRequest{Lease: resp.GetLease()})
	check(t, err)
}

func fromKV(t *testing.T, h *house) {
	h.vault.Must(t, http.MethodPost, "kv/data/crm", map[string]any{"data": map[string]string{"username": "app", "password": kvPassword}})
	before := len(h.accessors())
	b := h.broker(h.source(h.config()), nil)
	resp, err := b.Lease(t.Context(), h.node(), ask("s-kv", "crm"))
	check(t, err)
	if c := h.open("s-kv", resp); c.GetAccount() != "app" || string(c.GetPassword()) != kvPassword {
		t.Errorf("lent %q", c.GetAccount())
	}
	if after := len(h.accessors()); after != before {
		t.Errorf("%d tokens, before the lease %d", after, before)
	}
	h.clean(kvPassword)
}

func missing(t *testing.T, h *house) {
	h.vault.Must(t, http.MethodPost, "kv/data/half", map[string]any{"data": map[string]string{"password": kvPassword}})
	before := len(h.accessors())
	t.Cleanup(func() {
		if after := len(h.accessors()); after != before {
			t.Errorf("%d tokens, before %d", after, before)
		}
	})
	src := h.source(h.config())
	for _, c := range []struct {
		name string
		ref  *typesv1.VaultRef
		want string
	}{
		{"no role", &typesv1.VaultRef{Mount: "db", Role: "none"}, "403"},
		{"not allowed", &typesv1.VaultRef{Mount: "kv", Path: "half"}, "403"},
		{"nothing there", &typesv1.VaultRef{Mount: "kv", Path: "crm"}, "there is nothing"},
		{"both", &typesv1.VaultRef{Mount: "kv", Path: "crm", Role: "x"}, "role or a path"},
		{"a way out", &typesv1.VaultRef{Mount: "kv", Path: "../../sys"}, "not a path"},
	} {
		if c.name == "nothing there" {
			h.vault.Must(t, http.MethodDelete, "kv/metadata/crm", nil)
		}
		_, err := src.Issue(t.Context(), credential.Request{
			Ref: &typesv1.CredentialRef{Vault: c.ref}, Until: h.policy.end, Record: revokeLater(t, src),
		})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), kvPassword) {
			t.Errorf("%s: error = %v, want one with %q", c.name, err, c.want)
		}
	}
}

func batchTokens(t *testing.T, h *house) {
	for role, body := range map[string]map[string]any{
		"batch": {"allowed_policies": "postern-lease", "orphan": true, "token_type": "batch", "renewable": false},
		"plain": {"allowed_policies": "postern-lease", "orphan": false, "token_type": "service"},
	} {
		h.vault.Must(t, http.MethodPost, "auth/token/roles/"+role, body)
		cfg := h.config()
		cfg.TokenRole = role
		check(t, allow(h, "auth/token/create/"+role))
		_, err := h.source(cfg).Issue(t.Context(), credential.Request{
			Ref:   &typesv1.CredentialRef{Vault: &typesv1.VaultRef{Mount: "db", Role: "reader"}},
			Until: h.policy.end, Record: recordTo(new(string)),
		})
		if err == nil {
			t.Errorf("a lease was made through the token role %s", role)
		}
	}
	if n := h.users(); n != "0" {
		t.Errorf("%s users were made", n)
	}
}
