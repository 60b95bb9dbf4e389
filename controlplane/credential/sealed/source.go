package sealed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/store"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/secret"
)

// Source lends the logins kept in Secret objects: username and password, with a sessionToken
// where they are a temporary access key, or username, certificate and privateKey in PEM; or just one value, as the password of nobody.
type Source struct {
	store  store.Store
	keeper Keeper
}

var _ credential.Source = (*Source)(nil)

// NewSource makes a Source over the Secret objects of a store.
func NewSource(s store.Store, k Keeper) *Source { return &Source{store: s, keeper: k} }

// Key is the value of a Secret object that holds just one; the caller wipes it.
func (s *Source) Key(ctx context.Context, name string) (secret.Bytes, error) {
	values, err := s.Fields(ctx, name)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer wipe(values)
	if values["value"].Len() == 0 {
		return secret.Bytes{}, fmt.Errorf("secret %q holds no value: it has just the key value", name)
	}
	return secret.New(bytes.Clone(values["value"].Reveal())), nil
}

// Fields opens a Secret by its name. The caller owns the values.
func (s *Source) Fields(ctx context.Context, name string) (map[string]secret.Bytes, error) {
	e, err := s.store.Get(ctx, store.Key{Kind: "secret", Name: name})
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("there is no secret %q", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read secret %q: %w", name, err)
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return nil, err
	}
	return OpenSecret(ctx, s.keeper, o.GetSecret())
}

func wipe(values map[string]secret.Bytes) {
	for _, v := range values {
		v.Wipe()
	}
}

// Issue reads the login. There is nothing to revoke, and it has no end.
func (s *Source) Issue(ctx context.Context, r credential.Request) (credential.Issued, error) {
	name := r.Ref.GetSealed()
	values, err := s.Fields(ctx, name)
	if err != nil {
		return credential.Issued{}, err
	}
	defer wipe(values)
	c := &nodev1.Credential{
		Account:     string(values["username"].Reveal()),
		Password:    bytes.Clone(values["password"].Reveal()),
		Certificate: bytes.Clone(values["certificate"].Reveal()),
		PrivateKey:  bytes.Clone(values["privateKey"].Reveal()),

		SessionToken: bytes.Clone(values["sessionToken"].Reveal()),
	}
	if v := values["value"].Reveal(); len(v) > 0 {
		c.Password = bytes.Clone(v) // one text, such as a key of an API
		return credential.Issued{Credential: c}, nil
	}
	if c.Account == "" || len(c.Password) == 0 && len(c.PrivateKey) == 0 {
		return credential.Issued{}, fmt.Errorf("secret %q is no login: it needs username, and password or certificate and privateKey", name)
	}
	return credential.Issued{Credential: c}, nil
}

// Renew has nothing to do: the login has no end of its own.
func (s *Source) Renew(_ context.Context, _ []byte, until time.Time) (time.Time, error) {
	return until, nil
}

// Revoke has nothing to do: the login is shared.
func (s *Source) Revoke(context.Context, []byte) error { return nil }
