package authority

import (
	"crypto"
	"crypto/ed25519"
	"slices"

	"google.golang.org/protobuf/proto"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// grantContext separates signatures of grants from all others.
const grantContext = "postern/grant/v1"

// SignGrant vouches for g to nodes, as it is now. The hash of its token, and from
// where it was asked for, stay here.
func (a *Authority) SignGrant(g *typesv1.Grant) (*typesv1.SignedGrant, error) {
	g = proto.CloneOf(g)
	g.TokenHash, g.CertificateHash, g.Origin = nil, nil, nil
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(g)
	if err != nil {
		return nil, err
	}
	key := a.current(UseGrants)
	sig, err := key.key.Sign(nil, append([]byte(grantContext), b...), crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	return &typesv1.SignedGrant{Grant: b, Signature: sig, KeyId: key.id()}, nil
}

// GrantKeys are the public keys that nodes trust, by id; the caller owns the map.
func (a *Authority) GrantKeys() map[string][]byte {
	keys := map[string][]byte{}
	for _, k := range a.trusted(UseGrants) {
		keys[k.id()] = slices.Clone(k.key.Public().(ed25519.PublicKey))
	}
	return keys
}
