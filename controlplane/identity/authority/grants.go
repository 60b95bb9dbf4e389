package authority

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

const (
	grantPrefix = "grant-"
	// grantContext separates signatures of grants from all others.
	grantContext = "postern/grant/v1"
)

type grantKey struct {
	id             string
	revision       int64
	created, signs time.Time
	private        ed25519.PrivateKey
}

func (k grantKey) public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// signingGrants is the key that signs now, or nil; a.mu is held.
func (a *Authority) signingGrants() (key *grantKey) {
	now := a.cfg.Now()
	for i := range a.grants {
		if key == nil || !a.grants[i].signs.After(now) {
			key = &a.grants[i]
		}
	}
	return key
}

// makeGrantKey stores a new key, which signs from then on, and returns its name.
func (a *Authority) makeGrantKey(ctx context.Context, signs time.Time, e audit.Entry) (string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(public)
	k := store.Key{Kind: Kind, Name: grantPrefix + hex.EncodeToString(sum[:6])}
	return k.Name, a.write(ctx, k, record{Created: a.cfg.Now(), Signs: signs, private: private}, e)
}

// SignGrant vouches for g to nodes, as it is now. The hash of its token stays here.
func (a *Authority) SignGrant(g *typesv1.Grant) (*typesv1.SignedGrant, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	key := a.signingGrants()
	if key == nil {
		return nil, errors.New("no key signs grants")
	}
	g = proto.CloneOf(g)
	g.TokenHash, g.CertificateHash = nil, nil
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(g)
	if err != nil {
		return nil, err
	}
	sig := ed25519.Sign(key.private, append([]byte(grantContext), b...))
	return &typesv1.SignedGrant{Grant: b, Signature: sig, KeyId: key.id}, nil
}

// GrantKeys are the public keys that nodes trust, by id; the caller owns the map.
func (a *Authority) GrantKeys() map[string][]byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	keys := make(map[string][]byte, len(a.grants))
	for _, k := range a.grants {
		keys[k.id] = slices.Clone(k.public())
	}
	return keys
}
