package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/posterngate/postern/controlplane/credential"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
)

// overrun is how much longer than its lease a child token may live.
const overrun = time.Minute

// Source lends credentials out of Vault. It is safe for concurrent use.
type Source struct {
	cfg   Config
	login *login
}

var _ credential.Source = (*Source)(nil)

// New makes a Source; it does not speak to Vault yet.
func New(cfg Config) (*Source, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	base, err := cfg.client()
	if err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg}
	s.login = newLogin(&s.cfg, base)
	return s, nil
}

// Run logs in and keeps the login alive until ctx is done.
func (s *Source) Run(ctx context.Context) error { return s.login.run(ctx) }

// handle is what it takes to end a lease.
type handle struct {
	Accessor string    `json:"accessor"`
	LeaseID  string    `json:"lease,omitempty"`
	TokenEnd time.Time `json:"tokenEnd"`
}

func (h handle) bytes() ([]byte, error) { return json.Marshal(h) }

func parseHandle(b []byte) (handle, error) {
	var h handle
	if err := json.Unmarshal(b, &h); err != nil || h.Accessor == "" {
		return handle{}, errors.New("the handle of a vault lease is damaged")
	}
	return h, nil
}

// Issue makes a child token, records its accessor, and reads the secret with it.
func (s *Source) Issue(ctx context.Context, r credential.Request) (credential.Issued, error) {
	path, engine, err := locate(r.Ref.GetVault())
	if err != nil {
		return credential.Issued{}, err
	}
	child, h, err := s.child(ctx, r)
	if err != nil {
		return credential.Issued{}, fmt.Errorf("make a vault token for the lease: %w", err)
	}
	recorded, err := h.bytes()
	if err == nil {
		err = r.Record(ctx, recorded)
	}
	if err != nil {
		return credential.Issued{}, errors.Join(err, s.drop(ctx, h))
	}
	if engine == sshCA {
		return s.fromSSH(ctx, child, path, r, h)
	}
	answer, err := child.Logical().ReadWithContext(ctx, path)
	if err != nil {
		return credential.Issued{}, fmt.Errorf("read %s: %w", path, err)
	}
	if answer == nil {
		return credential.Issued{}, fmt.Errorf("read %s: there is nothing", path)
	}
	switch engine {
	case kv:
		data, _ := answer.Data["data"].(map[string]any)
		return s.standing(ctx, path, data, h)
	case static:
		return s.standing(ctx, path, answer.Data, h)
	case database, sshCA:
	}
	return s.fromDatabase(path, answer, h)
}

// child makes the orphan token of one lease.
func (s *Source) child(ctx context.Context, r credential.Request) (*api.Client, handle, error) {
	life := r.Until.Sub(s.cfg.Now()) + overrun
	ttl := fmt.Sprintf("%ds", int64((life+time.Second-1)/time.Second))
	renewable := false
	began := s.cfg.Now()
	var auth *api.SecretAuth
	err := s.do(ctx, func(own *api.Client) error {
		made, err := own.Auth().Token().CreateWithRoleWithContext(ctx, &api.TokenCreateRequest{
			TTL: ttl, ExplicitMaxTTL: ttl, Renewable: &renewable, NoDefaultPolicy: true, DisplayName: "postern", Type: "service",
			Metadata: map[string]string{"lease": string(r.Lease), "grant": string(r.Grant), "node": string(r.Node)},
		}, s.cfg.TokenRole)
		if err == nil && (made == nil || made.Auth == nil) {
			err = errors.New("the answer holds no token")
		}
		if err == nil {
			auth = made.Auth
		}
		return err
	})
	if err != nil {
		return nil, handle{}, err
	}
	h := handle{Accessor: auth.Accessor, TokenEnd: began.Add(time.Duration(auth.LeaseDuration) * time.Second)}
	switch {
	case h.Accessor == "":
		return nil, handle{}, fmt.Errorf("token role %q gives batch tokens, which cannot be revoked: set token_type to service", s.cfg.TokenRole)
	case !auth.Orphan:
		return nil, handle{}, errors.Join(fmt.Errorf("token role %q gives tokens that die with their parent: set orphan", s.cfg.TokenRole), s.drop(ctx, h))
	case auth.LeaseDuration <= 0:
		return nil, handle{}, errors.Join(fmt.Errorf("token role %q gives tokens without an end", s.cfg.TokenRole), s.drop(ctx, h))
	}
	client, err := with(s.login.base, auth.ClientToken)
	if err != nil {
		return nil, handle{}, errors.Join(err, s.drop(ctx, h))
	}
	return client, h, nil
}

// fromDatabase takes a user that was made for this lease.
func (s *Source) fromDatabase(path string, answer *api.Secret, h handle) (credential.Issued, error) {
	c, err := userAndPassword(path, answer.Data)
	if err != nil {
		return credential.Issued{}, err
	}
	if answer.LeaseID == "" || answer.LeaseDuration <= 0 {
		return credential.Issued{}, fmt.Errorf("read %s: the answer is no lease", path)
	}
	h.LeaseID = answer.LeaseID
	final, err := h.bytes()
	if err != nil {
		return credential.Issued{}, err
	}
	return credential.Issued{Credential: c, Handle: final, Expires: s.expires(answer, h)}, nil
}

// expires is when the user really ends: Vault may name a later end than its token's.
func (s *Source) expires(answer *api.Secret, h handle) time.Time {
	lease := s.cfg.Now().Add(time.Duration(answer.LeaseDuration) * time.Second)
	if h.TokenEnd.Before(lease) {
		return h.TokenEnd
	}
	return lease
}

// standing takes a login that stands there; the token has done its work.
func (s *Source) standing(ctx context.Context, path string, data map[string]any, h handle) (credential.Issued, error) {
	c, err := userAndPassword(path, data)
	if err != nil {
		return credential.Issued{}, err
	}
	if err := s.drop(ctx, h); err != nil {
		return credential.Issued{}, err
	}
	return credential.Issued{Credential: c}, nil
}

// userAndPassword reads a login, or an access key of AWS, temporary or not.
func userAndPassword(path string, data map[string]any) (*nodev1.Credential, error) {
	text := func(names ...string) string {
		for _, name := range names {
			if v, _ := data[name].(string); v != "" {
				return v
			}
		}
		return ""
	}
	user, password := text("username", "access_key"), text("password", "secret_key")
	if user == "" || password == "" {
		return nil, fmt.Errorf("read %s: username and password, or access_key and secret_key, are not both there", path)
	}
	return &nodev1.Credential{Account: user, Password: []byte(password), SessionToken: []byte(text("session_token", "security_token"))}, nil
}

// Renew asks for more time for a database user.
func (s *Source) Renew(ctx context.Context, b []byte, until time.Time) (time.Time, error) {
	h, err := parseHandle(b)
	if err != nil {
		return time.Time{}, err
	}
	var answer *api.Secret
	err = s.do(ctx, func(own *api.Client) error {
		answer, err = own.Sys().RenewWithContext(ctx, h.LeaseID, int(until.Sub(s.cfg.Now())/time.Second))
		if err == nil && answer == nil {
			err = errors.New("the answer is empty")
		}
		return err
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("renew a vault lease: %w", err)
	}
	return s.expires(answer, h), nil
}

// Revoke drops the database user at once, and then the token with whatever else hangs
// on it.
func (s *Source) Revoke(ctx context.Context, b []byte) error {
	h, err := parseHandle(b)
	if err != nil {
		return err
	}
	var dropUser error
	if h.LeaseID != "" {
		// In the body, and not in the path, which servers on the way may log.
		if dropUser = s.revoke(ctx, "sys/leases/revoke", map[string]any{"lease_id": h.LeaseID, "sync": true}); dropUser != nil {
			dropUser = fmt.Errorf("revoke a vault lease: %w", dropUser)
		}
	}
	return errors.Join(dropUser, s.drop(ctx, h))
}

// drop revokes the child token. It goes on though the caller has given up.
func (s *Source) drop(ctx context.Context, h handle) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	if err := s.revoke(ctx, "auth/token/revoke-accessor", map[string]any{"accessor": h.Accessor}); err != nil {
		return fmt.Errorf("revoke a vault token: %w", err)
	}
	return nil
}

// revoke asks Vault to revoke what, whose answer must be Vault's own.
func (s *Source) revoke(ctx context.Context, path string, what map[string]any) error {
	return s.do(ctx, func(own *api.Client) error {
		_, err := own.Logical().WriteWithContext(ctx, path, what)
		if gone(err) {
			return nil
		}
		return err
	})
}

// do calls fn with this process's own token, and once more after a new login if Vault
// refused it.
func (s *Source) do(ctx context.Context, fn func(own *api.Client) error) error {
	for try := 1; ; try++ {
		own, err := s.login.get(ctx)
		if err != nil {
			return err
		}
		err = fn(own)
		if !refused(err) || try > 1 || !s.login.lost(own) {
			return err
		}
	}
}

func refused(err error) bool {
	var r *api.ResponseError
	return errors.As(err, &r) && r.StatusCode == http.StatusForbidden
}

// gone reports whether Vault before 1.10 says that a token is not there any more; to whoever
// revokes a lease, or a token later on, it answers that this is done. Not found is what a proxy
// says, or Vault of a path, and of neither is anything known to be revoked.
func gone(err error) bool {
	var r *api.ResponseError
	return errors.As(err, &r) && r.StatusCode == http.StatusBadRequest && strings.Contains(strings.Join(r.Errors, " "), "invalid accessor")
}
