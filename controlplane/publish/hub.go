// Package publish tells nodes what to enforce. A Hub follows the store's replica and
// keeps, for all nodes that reach the same resources, the state that they are to have;
// each stream remembers the state that its node was sent, and is sent the difference.
// So a slow node costs nobody anything: what it has missed is found anew when it can
// take it. Locks and ended grants go first, in messages of their own.
//
// It authorises nobody (nodeapi does), writes nothing, and knows no credential. What
// the policy means is pkg/policy's.
package publish

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	// pace is the least time between two changes of policy that are published: the first
	// goes out at once, what follows it sooner waits and goes together. Publishing takes
	// at most one part in paceShare of the time. Locks and ended grants do not wait.
	pace      = 5 * time.Millisecond
	paceShare = 5
	// housekeeping is how often keys and ended grants are looked at.
	housekeeping = time.Second
	// maxHistory bounds the states that a returning node can be told the difference
	// from, and maxHistoryItems what they hold in all.
	maxHistory      = 1024
	maxHistoryItems = 4 << 20
)

// Config is what a Hub needs; all is required but Logger and Now.
type Config struct {
	Cache Cache
	// Keys are by what nodes verify, now.
	Keys   func() Keys
	Logger *slog.Logger
	Now    func() time.Time
}

// Keys are by what nodes verify. They are not changed once they were given to a Hub.
type Keys struct {
	Grants     map[string][]byte // the public keys that sign grants, by id
	House      []byte            // PEM of the CAs of control plane and nodes; empty where nodes are not told
	ClientCAs  [][]byte          // DER of the CAs of grant certificates
	SSHUserCAs [][]byte          // wire forms of the CAs of SSH grant certificates
	SSHHostCA  []byte            // wire form of the one that signs SSH host keys now; empty where nodes are not told
	Issuers    []*nodev1.Issuer  // at which people sign in
}

func (k *Keys) equal(o *Keys) bool {
	return maps.EqualFunc(k.Grants, o.Grants, bytes.Equal) && bytes.Equal(k.House, o.House) && slices.EqualFunc(k.ClientCAs, o.ClientCAs, bytes.Equal) &&
		slices.EqualFunc(k.SSHUserCAs, o.SSHUserCAs, bytes.Equal) && bytes.Equal(k.SSHHostCA, o.SSHHostCA) &&
		slices.EqualFunc(k.Issuers, o.Issuers, func(a, b *nodev1.Issuer) bool { return proto.Equal(a, b) })
}

// A Hub publishes policy to nodes. It is safe for concurrent use.
type Hub struct {
	cache    Cache
	readKeys func() Keys
	log      *slog.Logger
	now      func() time.Time

	ready    chan struct{} // closed once something is published
	kick     chan struct{} // wakes the loop
	compiled compiled

	mu      sync.Mutex
	streams *run.Group // of the goroutines of streams, while Run runs
	world   world
	pending change // found and not yet published
	changes uint64 // of anything but locks and ended grants, that were found
	// asOf is an instant of this process: whatever the store had then is published.
	asOf     time.Time
	pulled   time.Time       // such an instant for what the world has
	settles  time.Time       // until then changes of policy wait for more of their kind
	covered  postern.Version // everything up to here is published
	version  postern.Version // of what is published
	said     postern.Version // what whole updates say: version, or more where a node needs it
	urgent   *layer
	keys     *Keys
	scopes   map[scopeKey]*published
	history  []*published // the newest last
	retained int          // items that the history holds
	frames   map[frameKey]*frame
	nodes    map[postern.NodeName]*stream // the newest stream of each node
	gone     map[postern.NodeName]status  // the last that is known of others
}

// New makes a Hub that publishes nothing before Run.
func New(cfg Config) *Hub {
	h := &Hub{
		cache: cfg.Cache, readKeys: cfg.Keys, log: cfg.Logger, now: cfg.Now,
		ready: make(chan struct{}), kick: make(chan struct{}, 1),
		scopes: map[scopeKey]*published{}, frames: map[frameKey]*frame{},
		nodes: map[postern.NodeName]*stream{}, gone: map[postern.NodeName]status{},
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	h.world = world{log: h.log, now: h.now}
	h.compiled.init()
	return h
}

// Run publishes until ctx is done, and then ends every stream. It is called once. A
// Cache that has no version yet is waited for.
func (h *Hub) Run(ctx context.Context) error {
	changed, unsubscribe := h.cache.Subscribe()
	defer unsubscribe()
	streams := run.New(ctx)
	h.mu.Lock()
	h.streams = streams
	h.mu.Unlock()

	h.kick <- struct{}{} // whatever the cache has already
	g := run.New(ctx)
	g.Go("compile", h.compile)
	g.Go("publish", func(ctx context.Context) error { return h.loop(ctx, changed) })
	err := g.Wait()

	h.mu.Lock()
	h.streams = nil
	h.mu.Unlock()
	streams.Stop()
	return errors.Join(err, streams.Wait())
}

// Version is the newest version that nodes are told of; zero before the first.
func (h *Hub) Version() postern.Version {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version
}

// nudge makes the loop look at what pull has found.
func (h *Hub) nudge() {
	if h.pending == (change{}) {
		return
	}
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

func (h *Hub) loop(ctx context.Context, changed <-chan struct{}) error {
	tick := time.NewTicker(housekeeping)
	defer tick.Stop()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-h.kick:
		case <-tick.C:
			h.housekeep()
		case <-settled:
			settled = nil
		}
		if wait := h.advance(); wait > 0 && settled == nil {
			settled = time.After(wait)
		}
	}
}

// advance takes in what the cache has and publishes what may go out now. It tells how
// long the rest has to wait; zero where nothing is left.
func (h *Hub) advance() (wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pull()
	began := time.Now()
	wait = h.settles.Sub(began)
	switch {
	case h.world.version.IsZero():
		return 0
	case h.version.Epoch != h.world.version.Epoch, h.pending.policy && wait <= 0:
		h.publish(true)
		ended := time.Now()
		h.settles = ended.Add(max(pace, (paceShare-1)*ended.Sub(began)))
	case h.pending.urgent:
		h.publish(false)
	}
	if !h.pending.policy {
		return 0
	}
	return max(wait, 0)
}

// pull brings the world up to the cache, and where that changes nothing that is
// published, notes how fresh it is. The caller holds mu.
func (h *Hub) pull() {
	began, stale, v := h.now(), h.cache.Staleness(), h.cache.View().Version()
	found := h.world.pull(h.cache)
	h.pending.policy = h.pending.policy || found.policy
	if found.policy {
		h.changes++
	}
	h.pending.urgent = h.pending.urgent || found.urgent
	if h.world.version.Covers(v) {
		h.pulled = began.Add(-stale)
	}
	if h.pending == (change{}) && h.version.Epoch == h.world.version.Epoch {
		h.allPublished()
	}
}

// allPublished notes that nothing of the world is kept back.
func (h *Hub) allPublished() {
	h.covered = h.world.version
	if h.pulled.After(h.asOf) || h.version.Epoch != h.world.version.Epoch {
		h.asOf = h.pulled
	}
}

// publish makes new states and wakes every stream. With all, the scopes are found anew;
// else only locks, ended grants and keys are, and while changes of policy wait the
// version stays, for it would promise them. The caller holds mu.
func (h *Hub) publish(all bool) {
	h.urgent = h.urgentLayer()
	h.takeKeys()
	h.pending.urgent = false
	if all {
		h.pending.policy = false
	}
	if !h.pending.policy {
		h.allPublished()
		h.version = h.world.version
	}
	h.frames = map[frameKey]*frame{}
	before := h.scopes
	h.scopes = map[scopeKey]*published{}
	locked, reaches := h.lockedNodes(), map[labelsKey][]string{}
	for _, s := range h.nodes {
		if all {
			h.rescope(s, reaches)
		}
		if h.scopes[s.scope] == nil {
			h.scopes[s.scope] = h.stateOf(s.reach, before[s.scope], all)
		}
		s.retarget(h.scopes[s.scope], h.now())
		if reason, ok := locked[string(s.name)]; ok {
			s.lockOut(reason)
		}
	}
	h.compiled.ask()
	select {
	case <-h.ready:
	default:
		close(h.ready)
	}
}

// lockedNodes are the nodes that a lock names, and why.
func (h *Hub) lockedNodes() map[string]string {
	locked := map[string]string{}
	for _, it := range h.urgent.items {
		l := it.full.GetLock().GetSpec()
		if l.GetNode() != "" && (l.GetExpires() == nil || l.GetExpires().AsTime().After(h.now())) {
			locked[l.GetNode()] = l.GetReason()
		}
	}
	return locked
}

// stateOf makes the state of a scope; what is as it was before keeps its address.
func (h *Hub) stateOf(reach []string, before *published, all bool) *published {
	var old *layer
	if before != nil {
		old = before.scoped
	}
	scoped := old
	if all || old == nil {
		scoped = newLayer(h.world.scope(reach), old)
	}
	p := newPublished(state{h.version, content{h.urgent, scoped, h.keys}})
	if before == nil || before.content != p.content {
		h.remember(p)
	} else {
		p.hash = before.hash
	}
	return p
}

// remember keeps a state for nodes that come back with it.
func (h *Hub) remember(p *published) {
	h.history = append(h.history, p)
	h.retained += p.size()
	for len(h.history) > maxHistory || h.retained > maxHistoryItems && len(h.history) > 1 {
		h.retained -= h.history[0].size()
		h.history[0] = nil
		h.history = h.history[1:]
	}
}

// recall finds the state with a hash in the epoch of applied, without its ended grants:
// whether the node knows of those cannot be told, and telling twice does no harm.
func (h *Hub) recall(applied postern.Version, hash []byte) state {
	for _, p := range slices.Backward(h.history) {
		if found := p.hash(); p.version.Epoch == applied.Epoch && bytes.Equal(found[:], hash) {
			s := p.state
			s.version = applied
			s.urgent = newLayer(slices.DeleteFunc(slices.Clone(s.urgent.items), func(it *item) bool { return it.end != nil }), nil)
			s.keys = nil
			return s
		}
	}
	return state{}
}

func (h *Hub) urgentLayer() *layer {
	h.world.forget()
	items := slices.Collect(maps.Values(h.world.ended))
	for _, it := range h.world.objects {
		if it.full.GetLock() != nil {
			items = append(items, it)
		}
	}
	return newLayer(items, h.urgent)
}

// takeKeys takes the keys by which nodes verify, and reports whether they changed.
func (h *Hub) takeKeys() bool {
	keys := h.readKeys()
	if h.keys != nil && h.keys.equal(&keys) {
		return false
	}
	h.keys = &keys
	return true
}

// housekeep looks for new keys.
func (h *Hub) housekeep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.version.IsZero() && h.takeKeys() {
		h.pending.urgent = true
	}
}
