package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"
)

// login is this process's own token: taken when it is first needed, renewed by run, and
// taken anew when it has ended. It is safe for concurrent use.
type login struct {
	cfg  *Config
	base *api.Client // without a token

	// turn is held by the one who asks Vault for a token, or for more time: nobody waits for
	// that whose token is good, or whose time is up.
	turn chan struct{}

	mu      sync.Mutex  // guards what follows
	client  *api.Client // with the token; nil before the first login
	since   time.Time
	end     time.Time // zero for a token without an end
	renew   bool
	changed chan struct{} // closed and replaced by each login or loss
}

func newLogin(cfg *Config, base *api.Client) *login {
	return &login{cfg: cfg, base: base, turn: make(chan struct{}, 1), changed: make(chan struct{})}
}

// relogin is how long a token is trusted after its login, whatever Vault answers: a
// refusal then is one of policy.
const relogin = 10 * time.Second

// get is a client with a token that should still live.
func (l *login) get(ctx context.Context) (*api.Client, error) {
	if c := l.good(); c != nil {
		return c, nil
	}
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	defer l.give()
	if c := l.good(); c != nil { // somebody else has logged in
		return c, nil
	}
	return l.again(ctx)
}

// good is the client whose token should still live; nil where there is none.
func (l *login) good() *api.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.end.IsZero() || l.cfg.Now().Before(l.end) {
		return l.client
	}
	return nil
}

func (l *login) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("log in to vault: %w", context.Cause(ctx))
	}
}

func (l *login) give() { <-l.turn }

// lost says that Vault refused the client's token. It reports whether a new login may
// help.
func (l *login) lost(c *api.Client) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != c {
		return true
	}
	if l.cfg.Now().Sub(l.since) < relogin {
		return false
	}
	l.client = nil
	l.signal()
	return true
}

// again logs in; the turn is the caller's.
func (l *login) again(ctx context.Context) (*api.Client, error) {
	auth, err := l.authenticate(ctx)
	if err != nil {
		return nil, fmt.Errorf("log in to vault: %w", err)
	}
	client, err := with(l.base, auth.ClientToken)
	if err != nil {
		return nil, fmt.Errorf("log in to vault: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client, l.since = client, l.cfg.Now()
	l.lives(auth)
	l.signal()
	return client, nil
}

// lives notes how long the token does; l.mu is held, as for signal.
func (l *login) lives(auth *api.SecretAuth) {
	l.renew, l.end = auth.Renewable, time.Time{}
	if auth.LeaseDuration > 0 {
		l.end = l.cfg.Now().Add(time.Duration(auth.LeaseDuration) * time.Second)
	}
}

func (l *login) signal() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// authenticate trades what the configuration says for a token.
func (l *login) authenticate(ctx context.Context) (*api.SecretAuth, error) {
	switch {
	case l.cfg.TokenFile != "":
		return l.fromFile(ctx)
	case l.cfg.AppRole != nil:
		a := l.cfg.AppRole
		id, err := readSecret(a.SecretIDFile)
		if err != nil {
			return nil, err
		}
		return l.write(ctx, a.Mount, map[string]any{"role_id": a.RoleID, "secret_id": id})
	}
	j := l.cfg.JWT
	if j == nil {
		j = l.cfg.Kubernetes
	}
	token, err := readSecret(j.TokenFile)
	if err != nil {
		return nil, err
	}
	return l.write(ctx, j.Mount, map[string]any{"role": j.Role, "jwt": token})
}

func (l *login) write(ctx context.Context, mount string, body map[string]any) (*api.SecretAuth, error) {
	s, err := l.base.Logical().WriteWithContext(ctx, "auth/"+mount+"/login", body)
	if err != nil {
		return nil, err
	}
	if s == nil || s.Auth == nil || s.Auth.ClientToken == "" {
		return nil, errors.New("the answer holds no token")
	}
	return s.Auth, nil
}

// fromFile takes the token itself, and asks Vault how long it lives.
func (l *login) fromFile(ctx context.Context) (*api.SecretAuth, error) {
	token, err := readSecret(l.cfg.TokenFile)
	if err != nil {
		return nil, err
	}
	c, err := with(l.base, token)
	if err != nil {
		return nil, err
	}
	s, err := c.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return nil, err
	}
	ttl, err := s.TokenTTL()
	if err != nil {
		return nil, err
	}
	renewable, err := s.TokenIsRenewable()
	if err != nil {
		return nil, err
	}
	return &api.SecretAuth{ClientToken: token, LeaseDuration: int(ttl / time.Second), Renewable: renewable}, nil
}

// readSecret reads a file that holds one secret on one line.
func readSecret(path string) (string, error) {
	b, err := readFile(path)
	if err != nil {
		return "", err
	}
	defer clear(b)
	s := string(bytes.TrimSpace(b))
	if s == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return s, nil
}

// with is the client with a token of its own.
func with(base *api.Client, token string) (*api.Client, error) {
	c, err := base.CloneWithHeaders() // keeps the namespace
	if err != nil {
		return nil, err
	}
	c.SetToken(token)
	return c, nil
}

// run logs in and keeps the token alive until ctx is done.
func (l *login) run(ctx context.Context) error {
	wait := time.Duration(0)
	fails := 0
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
			if err := l.keep(ctx); err != nil && ctx.Err() == nil {
				l.cfg.Logger.WarnContext(ctx, "vault token was not renewed", slog.Any("error", err))
				fails++
				wait = jitter(min(time.Second<<min(fails, 5), 30*time.Second))
				continue
			}
		}
		fails, wait = 0, l.next()
	}
}

// keep renews the token, or logs in where there is none that can be renewed.
func (l *login) keep(ctx context.Context) error {
	if err := l.take(ctx); err != nil {
		return err
	}
	defer l.give()
	l.mu.Lock()
	client, renew := l.client, l.renew
	l.mu.Unlock()
	if client != nil && renew {
		s, err := client.Auth().Token().RenewSelfWithContext(ctx, 0)
		if err == nil && s != nil && s.Auth != nil && l.longer(client, s.Auth) {
			return nil
		}
	}
	_, err := l.again(ctx)
	return err
}

// longer notes how long a client's token lives now, and reports whether Vault has given it
// more time: near its maximum it does not.
func (l *login) longer(c *api.Client, auth *api.SecretAuth) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != c {
		return false // Vault has refused it meanwhile
	}
	before := l.end
	l.lives(auth)
	return l.end.IsZero() || l.end.After(before.Add(time.Second))
}

// next is how long the token can be left alone: two thirds of its life.
func (l *login) next() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		return 0
	}
	if l.end.IsZero() {
		return 24 * time.Hour
	}
	return jitter(max(l.end.Sub(l.cfg.Now())*2/3, time.Second))
}

// jitter spreads replicas: between nine and eleven tenths.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
