package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// Control is the control plane's CredentialService, as this node calls it.
type Control interface {
	Lease(ctx context.Context, req *nodev1.LeaseRequest) (*nodev1.LeaseResponse, error)
	RenewLease(ctx context.Context, req *nodev1.RenewLeaseRequest) (*nodev1.RenewLeaseResponse, error)
	Release(ctx context.Context, req *nodev1.ReleaseRequest) (*nodev1.ReleaseResponse, error)
}

// Config is what a Book needs.
type Config struct {
	Node    postern.NodeName
	Key     func() *secret.PrivateKey // the node's HPKE key as it is now
	Control Control
	Logger  *slog.Logger
	Now     func() time.Time // time.Now where nil
}

// Bounds of what the control plane sends.
const (
	maxSealed = 256 << 10
	maxID     = 128
)

// A Book holds all leases of a node. It is safe for concurrent use.
type Book struct {
	cfg Config

	mu     sync.Mutex
	leases map[postern.LeaseID]*Lease
	plans  planned
	closed bool
	wake   chan struct{} // has room for one: something is due earlier than was thought
}

// NewBook makes an empty Book; its Run must run.
func NewBook(cfg Config) *Book {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Book{cfg: cfg, leases: map[postern.LeaseID]*Lease{}, wake: make(chan struct{}, 1)}
}

func (b *Book) now() time.Time { return b.cfg.Now() }

// Len is the number of leases held.
func (b *Book) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.leases)
}

var errStopped = &postern.Refusal{Code: postern.CodeKilled, Reason: "the node is stopping", Hint: "connect again"}

// Take borrows the credential of a resource for a session. Taking again for the same
// session and purpose gives the same Lease while it lives.
func (b *Book) Take(ctx context.Context, session postern.SessionID, grant postern.GrantID, resource postern.ResourceName, purpose engine.Purpose) (*Lease, error) {
	resp, err := b.cfg.Control.Lease(ctx, &nodev1.LeaseRequest{
		Session: string(session), Grant: string(grant), Resource: string(resource), Purpose: string(purpose),
	})
	if err != nil {
		return nil, err
	}
	l, err := b.open(session, resource, resp)
	if err != nil {
		return nil, fmt.Errorf("lease of %s: %w", resource, err)
	}
	return b.enter(ctx, l, resp)
}

// open decrypts an answer into a Lease that the book does not know yet.
func (b *Book) open(session postern.SessionID, resource postern.ResourceName, resp *nodev1.LeaseResponse) (*Lease, error) {
	id := resp.GetLease()
	if id == "" || len(id) > maxID || len(resp.GetSealed()) > maxSealed {
		return nil, errors.New("the control plane's answer is out of bounds")
	}
	expires := resp.GetExpireTime()
	if !expires.IsValid() || !b.now().Before(expires.AsTime()) {
		return nil, errors.New("the credential that was lent has expired already; are the clocks set?")
	}
	plain, err := secret.OpenWith(b.cfg.Key(), secret.CredentialInfo(string(b.cfg.Node), id, string(session)), resp.GetSealed())
	if err != nil {
		return nil, fmt.Errorf("the credential was not sealed to this node's key: %w", err)
	}
	defer clear(plain)
	var c nodev1.Credential
	if err := proto.Unmarshal(plain, &c); err != nil {
		return nil, errors.New("the credential is damaged") // the cause may quote it
	}
	keys := make(map[string]secret.Bytes, len(c.GetMaskKeys()))
	for name, key := range c.GetMaskKeys() {
		keys[name] = secret.New(key)
	}
	return &Lease{
		book: b, id: postern.LeaseID(id), resource: resource, done: make(chan struct{}), expires: expires.AsTime(),
		held: engine.Credential{
			Account: c.GetAccount(), Password: secret.New(c.GetPassword()),
			Certificate: c.GetCertificate(), PrivateKey: secret.New(c.GetPrivateKey()), SessionToken: secret.New(c.GetSessionToken()), MaskKeys: keys,
		},
	}, nil
}

// enter puts the lease into the book, or finds the one that is there already.
func (b *Book) enter(ctx context.Context, l *Lease, resp *nodev1.LeaseResponse) (*Lease, error) {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, errors.Join(errStopped, l.Release(ctx))
	}
	if have := b.leases[l.id]; have != nil {
		b.mu.Unlock()
		have.replace(l)
		return have, nil
	}
	b.leases[l.id] = l
	b.schedule(l, resp.GetRenewTime())
	b.mu.Unlock()
	return l, nil
}

// replace takes over the newer answer to the same lease: the older credential may have
// been revoked.
func (l *Lease) replace(newer *Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		wipe(&newer.held)
		return
	}
	wipe(&l.held)
	l.held, l.expires = newer.held, newer.expires
}

// drop forgets a lease that ended.
func (b *Book) drop(l *Lease) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leases[l.id] == l {
		delete(b.leases, l.id)
	}
	b.plans.remove(l)
}
