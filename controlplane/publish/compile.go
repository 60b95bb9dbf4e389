package publish

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// compiled is the control plane's own policy.
type compiled struct {
	current atomic.Pointer[compilation]
	wanted  chan struct{}

	mu   sync.Mutex
	subs map[chan struct{}]struct{}
}

// A compilation is a snapshot, and the number of the last change of rules that it has.
type compilation struct {
	snapshot *policy.Snapshot
	change   uint64
}

func (c *compiled) init() {
	empty, _ := policy.Compile(postern.Version{}, nil)
	c.current.Store(&compilation{snapshot: empty})
	c.wanted = make(chan struct{}, 1)
	c.subs = map[chan struct{}]struct{}{}
}

func (c *compiled) ask() {
	select {
	case c.wanted <- struct{}{}:
	default:
	}
}

// Snapshot is the policy of all objects, for the control plane's own use. It is never
// nil; before the first version it offers nothing.
func (h *Hub) Snapshot() *policy.Snapshot { return h.compiled.current.Load().snapshot }

// Subscribe returns a channel that gets a value after Snapshot has changed, and a
// function that ends it. Signals that were not taken yet are one.
func (h *Hub) Subscribe() (<-chan struct{}, func()) {
	c := &h.compiled
	ch := make(chan struct{}, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subs[ch] = struct{}{}
	return ch, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.subs, ch)
	}
}

// Compiled waits until Snapshot has a version, or ctx is done.
func (h *Hub) Compiled(ctx context.Context, v postern.Version) error {
	changed, stop := h.Subscribe()
	defer stop()
	for !h.Snapshot().Version().Covers(v) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
	return nil
}

// compile keeps Snapshot current. It is apart from publishing, so that a large policy
// keeps no lock from a node.
func (h *Hub) compile(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.compiled.wanted:
		}
		version, change, objects, locks := h.policyObjects()
		before := h.compiled.current.Load()
		next := &compilation{change: change}
		var rejected []policy.Rejection
		if change == before.change && !before.snapshot.Version().IsZero() {
			next.snapshot, rejected = before.snapshot.WithLocks(version, locks)
		} else {
			next.snapshot, rejected = before.snapshot.Next(version, append(objects, locks...))
		}
		for _, r := range rejected {
			h.log.Warn("object does not compile, whatever needs it is denied", "object", r.Object, "reason", r.Reason)
		}
		h.compiled.set(next)
	}
}

// Settled reports whether Snapshot has every change of rules that was found until now:
// nodes are told of a later one after this. Of locks it says nothing.
func (h *Hub) Settled() bool {
	has := h.compiled.current.Load().change // before what is found, which only grows
	h.mu.Lock()
	defer h.mu.Unlock()
	return has == h.changes && !h.world.version.IsZero()
}

// policyObjects are all objects, and the number of the last change of those that are no
// locks.
func (h *Hub) policyObjects() (v postern.Version, change uint64, objects, locks []*typesv1.Object) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, it := range h.world.objects {
		switch {
		case it.full.GetLock() != nil:
			locks = append(locks, it.full)
		case it.full.GetNode() == nil:
			objects = append(objects, it.full)
		}
	}
	for ref := range h.world.unread { // of which nothing but the name is known
		locks = append(locks, object.Bare(kindLock, strings.TrimPrefix(ref, kindLock+"/")))
	}
	return h.world.version, h.changes, objects, locks
}

func (c *compiled) set(next *compilation) {
	c.current.Store(next)
	c.mu.Lock()
	defer c.mu.Unlock()
	for ch := range c.subs {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}
