package authority

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
)

// What a key that can be replaced is for.
const (
	UseNodes  = "nodes"  // the CA of control plane and nodes
	UseGrants = "grants" // signs grants
	// UseIdentity signs tokens that tell resources who asks.
	UseIdentity = "identity"
)

const (
	caPrefix = caName + "-"
	// caLead is how long a new CA is trusted before it signs: whoever has a copy of the
	// CAs needs a new one by then. Nodes fetch theirs at once.
	caLead  = 30 * 24 * time.Hour
	maxLead = 365 * 24 * time.Hour
	// minCALead is what nodes that are connected need to renew by a new CA.
	minCALead = 15 * time.Second
)

// Key is what may be told of a key.
type Key struct {
	Name, Use      string
	Created, Signs time.Time
	State          string // next, signing or former
	Fingerprint    string // hex SHA-256 of the certificate's or the public key's DER
}

// Keys are those of the house, of grants and of identities, each by age.
func (a *Authority) Keys() ([]Key, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var keys []Key
	state := func(now, it, current time.Time) string {
		switch {
		case it.After(now):
			return "next"
		case it.Before(current):
			return "former"
		}
		return "signing"
	}
	now, sign := a.cfg.Now(), a.signing()
	for _, c := range a.house {
		k := Key{Name: c.name, Use: UseNodes, Created: c.created, Signs: c.signs, Fingerprint: fingerprint(c.cert.Raw), State: state(now, c.signs, sign.signs)}
		keys = append(keys, k)
	}
	for _, one := range a.series() {
		signer := a.signsNow(*one.keys)
		for _, g := range *one.keys {
			der, err := x509.MarshalPKIXPublicKey(g.private.Public())
			if err != nil {
				return nil, err
			}
			keys = append(keys, Key{Name: one.prefix + g.id, Use: one.use, Created: g.created, Signs: g.signs, Fingerprint: fingerprint(der), State: state(now, g.signs, signer.signs)})
		}
	}
	return keys, nil
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Rotate makes the successor of the key for a use. It is trusted at once, and signs after
// lead; nil is the usual one. The old one is trusted until nothing that it signed is good
// any more, and then goes by itself. Errors are *fault.Error where the caller is wrong.
func (a *Authority) Rotate(ctx context.Context, by, use string, lead *time.Duration) (Key, error) {
	least := time.Duration(0)
	if use == UseNodes {
		least = minCALead
	}
	if lead != nil && (*lead < least || *lead > maxLead) {
		return Key{}, fault.Invalid(fault.Violation{Field: "lead", Reason: fmt.Sprintf("%s is not between %s and %s", *lead, least, maxLead)})
	}
	after := func(usual time.Duration) time.Time {
		if lead != nil {
			usual = *lead
		}
		return a.cfg.Now().Add(usual)
	}
	entry := audit.Entry{Actor: by, Action: "authority.rotate-key"}
	var name string
	var err error
	all := a.series()
	which := slices.IndexFunc(all, func(s series) bool { return s.use == use })
	switch {
	case use == UseNodes:
		var id [6]byte
		_, _ = rand.Read(id[:]) // never fails
		name = caPrefix + hex.EncodeToString(id[:])
		err = a.makeCA(ctx, store.Key{Kind: Kind, Name: name}, caTemplate(houseCA), after(caLead), entry)
	case which >= 0:
		name, err = all[which].make(ctx, after(keyLead), entry)
	default:
		return Key{}, fault.Invalid(fault.Violation{Field: "use", Reason: fmt.Sprintf("%q is none of %s, %s and %s", use, UseNodes, UseGrants, UseIdentity)})
	}
	if err != nil {
		return Key{}, fmt.Errorf("rotate the key of %s: %w", use, err)
	}
	if err := a.reload(ctx); err != nil {
		return Key{}, err
	}
	return a.find(name)
}

// Retire ends the trust in a key before its time. The one that signs cannot be retired.
func (a *Authority) Retire(ctx context.Context, by, name string) error {
	if err := a.reload(ctx); err != nil {
		return err
	}
	k, err := a.find(name)
	if err != nil {
		return err
	}
	if k.State == "signing" {
		return fault.New(codes.FailedPrecondition, "%s signs now; make its successor first: postern ca rotate %s", name, k.Use)
	}
	if err := a.retire(ctx, by, name, a.revision(name)); err != nil {
		return fmt.Errorf("retire %s: %w", name, err)
	}
	return a.reload(ctx)
}

func (a *Authority) find(name string) (Key, error) {
	keys, err := a.Keys()
	if err != nil {
		return Key{}, err
	}
	for _, k := range keys {
		if k.Name == name {
			return k, nil
		}
	}
	return Key{}, fault.New(codes.NotFound, "there is no key %q that could be replaced", name)
}

func (a *Authority) revision(name string) int64 {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, c := range a.house {
		if c.name == name {
			return c.revision
		}
	}
	for _, one := range a.series() {
		for _, k := range *one.keys {
			if one.prefix+k.id == name {
				return k.revision
			}
		}
	}
	return 0
}
