package authority_test

import (
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store/storetest"
)

// TestIdentityKeys: who has the published keys verifies what is signed, from before a new
// key signs until after the old one did; and has nothing by which to sign.
func TestIdentityKeys(t *testing.T) {
	c := &clock{t, storetest.NewMemory(), time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	a := c.open()
	sign := func() string {
		t.Helper()
		token, err := a.SignIdentity(jwt.Claims{Subject: "alice"})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := func(token string, keys jose.JSONWebKeySet) bool {
		tok, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		var claims jwt.Claims
		return tok.Claims(keys, &claims) == nil && claims.Subject == "alice"
	}
	early := sign()
	lead := time.Minute
	if _, err := a.Rotate(t.Context(), "ada", authority.UseIdentity, &lead); err != nil {
		t.Fatal(err)
	}
	cached := a.IdentityKeys()
	c.now = c.now.Add(2 * lead)
	late := sign()
	if early == late || !good(early, cached) || !good(late, cached) {
		t.Error("a token is not verified by the keys that were published when the new one was made")
	}
	for _, k := range cached.Keys {
		if !k.IsPublic() {
			t.Error("a private key is published")
		}
	}
	if other := open(t, storetest.NewMemory()); good(late, other.IdentityKeys()) {
		t.Error("a token is verified by keys of another house")
	}
	c.now = c.now.Add(91 * 24 * time.Hour)
	a = c.open()
	if n := len(a.IdentityKeys().Keys); n != 2 { // the one that signs, and its successor
		t.Errorf("%d keys after 90 days", n)
	}
}
