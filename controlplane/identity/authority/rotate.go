package authority

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/pkg/fault"
)

const (
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

// Keys are all keys, by use and age.
func (a *Authority) Keys() ([]Key, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var keys []Key
	now := a.cfg.Now()
	for _, u := range uses {
		signing := a.signing(u.name)
		for _, s := range a.keys[u.name] {
			der, err := s.der()
			if err != nil {
				return nil, err
			}
			k := Key{Name: s.name, Use: u.name, Created: s.created, Signs: s.signs, Fingerprint: fingerprint(der), State: "signing"}
			switch {
			case s.signs.After(now):
				k.State = "next"
			case s.signs.Before(signing.signs):
				k.State = "former"
			}
			keys = append(keys, k)
		}
	}
	return keys, nil
}

// der is by what others know a key.
func (s *signer) der() ([]byte, error) {
	if s.cert != nil {
		return s.cert.Raw, nil
	}
	return x509.MarshalPKIXPublicKey(s.key.Public())
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// Uses are what keys can be replaced for.
func Uses() (names []string) {
	for _, u := range uses {
		names = append(names, u.name)
	}
	return names
}

// Rotate makes the successor of the key for a use. It is trusted at once, and signs after
// lead; nil is the usual one. The old one is trusted until nothing that it signed is good
// any more, and then goes by itself. Errors are *fault.Error where the caller is wrong.
func (a *Authority) Rotate(ctx context.Context, by, of string, lead *time.Duration) (Key, error) {
	i := slices.IndexFunc(uses, func(u use) bool { return u.name == of })
	if i < 0 {
		return Key{}, fault.Invalid(fault.Violation{Field: "use", Reason: fmt.Sprintf("%q is none of %s", of, strings.Join(Uses(), ", "))})
	}
	u := &uses[i]
	after := u.lead
	if lead != nil {
		after = *lead
	}
	if after < u.least || after > maxLead {
		return Key{}, fault.Invalid(fault.Violation{Field: "lead", Reason: fmt.Sprintf("%s is not between %s and %s", after, u.least, maxLead)})
	}
	name := u.successor()
	err := a.create(ctx, u, name, a.cfg.Now().Add(after), audit.Entry{Actor: by, Action: "authority.rotate-key"})
	if err != nil {
		return Key{}, fmt.Errorf("rotate the key of %s: %w", of, err)
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
	for _, all := range a.keys {
		for _, s := range all {
			if s.name == name {
				return s.revision
			}
		}
	}
	return 0
}
