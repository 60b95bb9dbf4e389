package authority

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
)

// signingKey is one of the keys that sign the same sort of thing one after the other.
type signingKey struct {
	id             string
	revision       int64
	created, signs time.Time
	private        crypto.Signer
}

// series are the keys of one use each: how they are named, and made.
func (a *Authority) series() []series {
	return []series{
		{UseGrants, grantPrefix, "authority.create-grant-key", &a.grants, a.makeGrantKey},
		{UseIdentity, identityPrefix, "authority.create-identity-key", &a.identities, a.makeIdentityKey},
	}
}

// A series is what keys of one use have in common.
type series struct {
	use, prefix, action string
	keys                *[]signingKey // of the Authority, under its mu
	make                func(ctx context.Context, signs time.Time, e audit.Entry) (string, error)
}

// signer is the key that signs now, or nil.
func (a *Authority) signer(keys *[]signingKey) *signingKey {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.signsNow(*keys)
}

// signsNow is signer where a.mu is held.
func (a *Authority) signsNow(keys []signingKey) (key *signingKey) {
	now := a.cfg.Now()
	for i := range keys {
		if key == nil || !keys[i].signs.After(now) {
			key = &keys[i]
		}
	}
	return key
}

// keep stores a new key, which signs from then on, and returns its name.
func (a *Authority) keep(ctx context.Context, prefix string, private crypto.Signer, signs time.Time, e audit.Entry) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	k := store.Key{Kind: Kind, Name: prefix + hex.EncodeToString(sum[:6])}
	return k.Name, a.write(ctx, k, record{Created: a.cfg.Now(), Signs: signs, private: private}, e)
}

func bySigning(x, y signingKey) int {
	return cmp.Or(x.signs.Compare(y.signs), strings.Compare(x.id, y.id))
}

// due makes the first key of a series, or the next one where the newest is old, and removes
// those by which nothing can be verified any more. It reports whether it did.
func (a *Authority) due(ctx context.Context, s series) (changed bool, err error) {
	now := a.cfg.Now()
	a.mu.RLock()
	keys := slices.Clone(*s.keys)
	a.mu.RUnlock()
	due := time.Time{}
	switch {
	case len(keys) == 0:
		due = now
	case now.Sub(keys[len(keys)-1].signs) > keyAge:
		due = now.Add(keyLead)
	}
	if !due.IsZero() {
		if _, err := s.make(ctx, due, audit.Entry{Actor: "system", Action: s.action}); err != nil {
			return false, err
		}
		changed = true
	}
	for i := 1; i < len(keys) && now.Sub(keys[i].signs) > keyAge; i++ {
		if err := a.retire(ctx, "system", s.prefix+keys[i-1].id, keys[i-1].revision); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}
