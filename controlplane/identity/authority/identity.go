package authority

import (
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// SignIdentity makes a token (JWT, ES256) of claims, for a resource.
func (a *Authority) SignIdentity(claims any) (string, error) {
	key := a.current(UseIdentity)
	s, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key.key, KeyID: key.id()}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("sign an identity: %w", err)
	}
	return jwt.Signed(s).Claims(claims).Serialize()
}

// IdentityKeys are the public keys that verify such tokens, those of the future included.
func (a *Authority) IdentityKeys() jose.JSONWebKeySet {
	set := jose.JSONWebKeySet{}
	for _, k := range a.trusted(UseIdentity) {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.key.Public(), KeyID: k.id(), Algorithm: string(jose.ES256), Use: "sig"})
	}
	return set
}
