package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/posterngate/postern/controlplane/audit"
)

const identityPrefix = "identity-"

// makeIdentityKey stores a new key, which signs from then on, and returns its name. It is
// of the one kind that every library for tokens verifies.
func (a *Authority) makeIdentityKey(ctx context.Context, signs time.Time, e audit.Entry) (string, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	return a.keep(ctx, identityPrefix, private, signs, e)
}

// SignIdentity makes a token (JWT, ES256) of claims, for a resource.
func (a *Authority) SignIdentity(claims any) (string, error) {
	key := a.signer(&a.identities)
	if key == nil {
		return "", errors.New("no key signs identities")
	}
	s, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.private, KeyID: key.id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("sign an identity: %w", err)
	}
	return jwt.Signed(s).Claims(claims).Serialize()
}

// IdentityKeys are the public keys that verify such tokens, those of the future included.
func (a *Authority) IdentityKeys() jose.JSONWebKeySet {
	a.mu.RLock()
	defer a.mu.RUnlock()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, k := range a.identities {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: string(jose.ES256), Use: "sig"})
	}
	return set
}
