// Package lease keeps the credentials that this node has on loan: opened with the node's
// key, in memory alone, renewed while they are needed, wiped when they end. What a
// credential is used for, and when a session ends, is left to the session.
package lease

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// A Lease is a credential on loan. It is safe for concurrent use.
type Lease struct {
	book     *Book
	id       postern.LeaseID
	resource postern.ResourceName
	done     chan struct{}

	mu       sync.Mutex
	held     engine.Credential
	expires  time.Time
	err      error // why it ended; nil while it lives
	released bool  // the control plane knows

	plan plan // the scheduler's; under book.mu
}

// ID names the lease.
func (l *Lease) ID() postern.LeaseID { return l.id }

// Done is closed when the lease has ended: by expiry, revocation or Release.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Err says why the lease ended, as a *postern.Refusal; nil before Done is closed.
func (l *Lease) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Use gives fn a copy of the credential, which is wiped when fn returns; fn must not
// keep it. It fails once the lease has ended.
func (l *Lease) Use(fn func(*engine.Credential) error) error {
	c, err := l.copied()
	if err != nil {
		return err
	}
	defer wipe(&c)
	return fn(&c)
}

func (l *Lease) copied() (engine.Credential, error) {
	if !l.book.now().Before(l.end()) {
		l.finish(l.expired())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return engine.Credential{}, l.err
	}
	return engine.Credential{
		Account:     l.held.Account,
		Password:    secret.New(bytes.Clone(l.held.Password.Reveal())),
		Certificate: bytes.Clone(l.held.Certificate),
		PrivateKey:  secret.New(bytes.Clone(l.held.PrivateKey.Reveal())),
		MaskKeys:    maskKeys(l.held.MaskKeys),

		SessionToken: secret.New(bytes.Clone(l.held.SessionToken.Reveal())),
	}, nil
}

func maskKeys(held map[string]secret.Bytes) map[string]secret.Bytes {
	out := make(map[string]secret.Bytes, len(held))
	for name, key := range held {
		out[name] = secret.New(bytes.Clone(key.Reveal()))
	}
	return out
}

// Release ends the lease here, and then at the control plane. It is idempotent; after an
// error it may be called again, and if it is not, the control plane ends the lease once
// it is not renewed.
func (l *Lease) Release(ctx context.Context) error {
	l.finish(&postern.Refusal{Code: postern.CodeKilled, Reason: "the session's credential was given back"})
	l.mu.Lock()
	released := l.released
	l.mu.Unlock()
	if released {
		return nil
	}
	if _, err := l.book.cfg.Control.Release(ctx, &nodev1.ReleaseRequest{Lease: string(l.id)}); err != nil {
		return err
	}
	l.mu.Lock()
	l.released = true
	l.mu.Unlock()
	return nil
}

// finish ends the lease on this node, once.
func (l *Lease) finish(why error) {
	l.mu.Lock()
	first := l.err == nil
	if first {
		l.err = why
		wipe(&l.held)
		close(l.done)
	}
	l.mu.Unlock()
	if first {
		l.book.drop(l)
	}
}

func (l *Lease) end() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.expires
}

func (l *Lease) expired() error {
	return &postern.Refusal{
		Code: postern.CodeKilled, Reason: "the credential for resource \"" + string(l.resource) + "\" has expired",
		Hint: "connect again",
	}
}

func wipe(c *engine.Credential) {
	for _, key := range c.MaskKeys {
		key.Wipe()
	}
	c.Password.Wipe()
	c.PrivateKey.Wipe()
	c.SessionToken.Wipe()
	clear(c.Certificate)
	*c = engine.Credential{}
}
