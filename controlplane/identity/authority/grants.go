package authority

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/audit"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

const (
	grantPrefix = "grant-"
	// grantContext separates signatures of grants from all others.
	grantContext = "postern/grant/v1"
)

// makeGrantKey stores a new key, which signs from then on, and returns its name.
func (a *Authority) makeGrantKey(ctx context.Context, signs time.Time, e audit.Entry) (string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	return a.keep(ctx, grantPrefix, private, signs, e)
}

// SignGrant vouches for g to nodes, as it is now. The hash of its token stays here.
func (a *Authority) SignGrant(g *typesv1.Grant) (*typesv1.SignedGrant, error) {
	key := a.signer(&a.grants)
	if key == nil {
		return nil, errors.New("no key signs grants")
	}
	private, ok := key.private.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("the key that signs grants is not an Ed25519 key")
	}
	g = proto.CloneOf(g)
	g.TokenHash, g.CertificateHash = nil, nil
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(g)
	if err != nil {
		return nil, err
	}
	sig := ed25519.Sign(private, append([]byte(grantContext), b...))
	return &typesv1.SignedGrant{Grant: b, Signature: sig, KeyId: key.id}, nil
}

// GrantKeys are the public keys that nodes trust, by id; the caller owns the map.
func (a *Authority) GrantKeys() map[string][]byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	keys := make(map[string][]byte, len(a.grants))
	for _, k := range a.grants {
		if public, ok := k.private.Public().(ed25519.PublicKey); ok {
			keys[k.id] = slices.Clone(public)
		}
	}
	return keys
}
