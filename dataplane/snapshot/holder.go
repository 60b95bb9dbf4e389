// Package snapshot holds what a node enforces now. A Holder takes the control plane's
// updates, compiles what they change, and swaps one pointer to the whole; readers never
// wait. It keeps nothing on disk: a node that starts without the control plane denies
// everything. What the policy means is pkg/policy's; how old it may be is control's.
package snapshot

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// maxObjects bounds what a node holds.
	maxObjects = 200_000
	// endSlack keeps an ended grant beyond its end, for clocks that differ.
	endSlack = time.Minute
)

// A Holder holds the current policy. It is safe for concurrent use.
type Holder struct {
	current atomic.Pointer[view]

	mu      sync.Mutex // held to change anything
	rules   set        // all objects but locks
	locks   set
	changed chan struct{} // closed and replaced by every swap
	subs    map[chan struct{}]struct{}
}

// A view is all that readers see of one moment. It is immutable.
type view struct {
	policy     *policy.Snapshot
	rejections []*nodev1.Rejection
	covered    postern.Version // everything up to here is in policy
	updates    uint64          // how many were applied
	hash       object.Hash
	ended      map[postern.GrantID]ending
	keys       map[string]ed25519.PublicKey
	clientCAs  *x509.CertPool // nil until it is known
	userCAs    []ssh.PublicKey
	issuers    []*nodev1.Issuer
}

type ending struct {
	reason string
	until  time.Time
}

// New makes a Holder that denies everything.
func New() *Holder {
	h := &Holder{changed: make(chan struct{}), subs: map[chan struct{}]struct{}{}}
	nothing, _ := policy.Compile(postern.Version{}, nil)
	h.current.Store(&view{policy: nothing, hash: hashOf(set{}, set{})})
	return h
}

// Current is the policy to enforce now. It is never nil.
func (h *Holder) Current() *policy.Snapshot { return h.current.Load().policy }

// Version is the newest version that is enforced: that of Current, or a later one that
// changed nothing here. It is zero before the first update.
func (h *Holder) Version() postern.Version { return h.current.Load().covered }

// Updates is how many updates were applied: where it is what it was, so is everything
// that the control plane tells nodes of.
func (h *Holder) Updates() uint64 { return h.current.Load().updates }

// Hash is the hash of all objects held; it stands for the Version in a hello.
func (h *Holder) Hash() []byte {
	v := h.current.Load()
	if v.covered.IsZero() {
		return nil
	}
	return v.hash[:]
}

// Ended reports whether a grant was ended before its time, and why.
func (h *Holder) Ended(g postern.GrantID) (reason string, ended bool) {
	e, ok := h.current.Load().ended[g]
	return e.reason, ok
}

// GrantKey is the key that signs grants under an id.
func (h *Holder) GrantKey(id string) (ed25519.PublicKey, bool) {
	k, ok := h.current.Load().keys[id]
	return k, ok
}

// ClientCAs are the CAs of grant certificates, or nil while they are not known; then no
// client certificate is good for anything. They are not to be changed.
func (h *Holder) ClientCAs() *x509.CertPool { return h.current.Load().clientCAs }

// UserCAs are the CAs of SSH grant certificates; none while they are not known. They are
// not to be changed.
func (h *Holder) UserCAs() []ssh.PublicKey { return h.current.Load().userCAs }

// Issuers are those at which people sign in. They are not to be changed.
func (h *Holder) Issuers() []*nodev1.Issuer { return h.current.Load().issuers }

// Subscribe returns a channel that gets a value after every swap, and a function that
// ends it. Signals that were not taken yet are one.
func (h *Holder) Subscribe() (<-chan struct{}, func()) {
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.subs[ch] = struct{}{}
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, ch)
	}
}

// WaitFor waits until v is enforced.
func (h *Holder) WaitFor(ctx context.Context, v postern.Version) error {
	for {
		h.mu.Lock()
		changed, have := h.changed, h.Version()
		h.mu.Unlock()
		if have.Covers(v) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for policy version %s, have %s: %w", v, have, context.Cause(ctx))
		}
	}
}
