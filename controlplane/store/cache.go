package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	probePeriod   = time.Second
	seldomPeriod  = 10 * time.Second // where nobody asks how stale the cache is
	probeWait     = 5 * time.Second
	stuckAfter    = 30 * time.Second // a watch that does not move while reads succeed
	comparePeriod = time.Minute
	firstBackoff  = 200 * time.Millisecond
	lastBackoff   = 5 * time.Second
)

// errRelist ends a watch whose history can no longer be trusted.
var errRelist = errors.New("store: everything must be listed again")

// Cache is a replica of some kinds in memory: all of them at one revision, moved on by
// one watch. A gap in the history, a new epoch, or a difference that the comparison
// finds makes it list everything again, and readers see that as one more change. It is
// safe for concurrent use.
type Cache struct {
	store  Store
	logger *slog.Logger
	kinds  []string
	probed time.Duration // how often the store is asked how far it is
	ready  chan struct{}
	view   atomic.Pointer[View]
	fresh  atomic.Pointer[time.Time] // the view has all that was committed before this

	questions run.Shared[*View] // to the store, how far it is

	mu    sync.Mutex // held to move the view on
	ring  ring
	moved chan struct{} // closed and replaced whenever the view moves
	subs  map[chan struct{}]struct{}
}

// NewCache makes an empty Cache of the kinds; Run fills it.
func NewCache(s Store, logger *slog.Logger, kinds ...string) *Cache {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Cache{
		store: s, logger: logger, kinds: kinds, probed: probePeriod, ring: ring{most: ringRevisions},
		ready: make(chan struct{}), moved: make(chan struct{}), subs: make(map[chan struct{}]struct{}),
	}
}

// WithoutStaleness is for a cache of which nobody asks that, nor what happened since a version:
// it looks each ten seconds, and not each second, whether the store is of another epoch and the
// watch still moves, and keeps as much history as its own comparison needs. It is called before
// all else.
func (c *Cache) WithoutStaleness() *Cache {
	c.probed, c.ring.most = seldomPeriod, fewRevisions
	return c
}

// Ready is closed once the cache has everything for the first time.
func (c *Cache) Ready() <-chan struct{} { return c.ready }

// View is everything at one version; nil before Ready.
func (c *Cache) View() *View { return c.view.Load() }

// Version is that of the view; zero before Ready.
func (c *Cache) Version() postern.Version { return c.View().Version() }

// Get finds one entry. The value belongs to the cache.
func (c *Cache) Get(k Key) (Entry, bool) { return c.View().Get(k) }

// List are the entries of a kind in order of name. The values belong to the cache.
func (c *Cache) List(kind string) []Entry { return c.View().List(kind) }

// Staleness is how old the view may be: the time since the last linearizable read whose
// revision the view has reached. Before Ready it is the longest duration.
func (c *Cache) Staleness() time.Duration {
	at := c.fresh.Load()
	if at == nil {
		return math.MaxInt64
	}
	return time.Since(*at)
}

// Subscribe returns a channel that gets a value after events, and a function that ends
// it. Signals that were not yet taken are one.
func (c *Cache) Subscribe() (<-chan struct{}, func()) {
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

// Since are the events after a version, in order; applying one twice changes nothing.
// It is false where the history does not reach back to it, or it is of another epoch:
// read the View.
func (c *Cache) Since(v postern.Version) ([]Event, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.Version(); now.IsZero() || now.Epoch != v.Epoch {
		return nil, false
	}
	return c.ring.since(v.Revision)
}

// WaitFor waits until the view has the revision, such as that of a commit.
func (c *Cache) WaitFor(ctx context.Context, revision int64) error {
	for {
		c.mu.Lock()
		moved, at := c.moved, c.Version().Revision
		c.mu.Unlock()
		if at >= revision {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Run keeps the cache current until ctx is done. It never gives up.
func (c *Cache) Run(ctx context.Context) error {
	backoff, relist := firstBackoff, true
	for {
		began := time.Now()
		err := c.follow(ctx, relist)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		relist = c.View() == nil || errors.Is(err, errRelist) || errors.Is(err, ErrCompacted)
		if time.Since(began) > stuckAfter {
			backoff = firstBackoff
		}
		c.logger.WarnContext(ctx, "store watch ended", "error", err, "relist", relist)
		run.Pause(ctx, backoff/2+rand.N(backoff))
		backoff = min(2*backoff, lastBackoff)
	}
}

// follow applies changes until something breaks, from a new listing or from where the
// view is.
func (c *Cache) follow(ctx context.Context, relist bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var w Watcher
	var err error
	if relist {
		w, err = c.load(ctx)
	} else {
		w, err = c.store.Watch(ctx, c.Version().Revision+1, c.kinds...)
	}
	if err != nil {
		return err
	}
	defer w.Close()
	g := run.New(ctx)
	g.Go("watch", func(ctx context.Context) error {
		for {
			b, err := w.Next(ctx)
			if err != nil {
				return err
			}
			c.advance(b)
		}
	})
	g.Go("probe", c.probe)
	g.Go("compare", c.compare)
	return g.Wait()
}

// load lists every kind, and watches until they are all at one revision. The watch it
// returns goes on from there.
func (c *Cache) load(ctx context.Context) (Watcher, error) {
	epoch, err := c.store.Epoch(ctx)
	if err != nil {
		return nil, err
	}
	asked := time.Now()
	view := &View{version: postern.Version{Epoch: epoch}, kinds: make(map[string]*sorted)}
	listed := make(map[string]int64) // at which revision, by kind
	first, last := int64(math.MaxInt64), int64(0)
	for _, kind := range c.kinds {
		entries, rev, err := c.store.List(ctx, kind, "", 0)
		if err != nil {
			return nil, err
		}
		view.kinds[kind], listed[kind] = newSorted(entries), rev
		first, last = min(first, rev), max(last, rev)
	}
	if last == 0 { // no kinds
		first = 0
	}
	w, err := c.store.Watch(ctx, first+1, c.kinds...)
	if err != nil {
		return nil, err
	}
	view = view.at(first)
	for view.version.Revision < last {
		b, err := w.Next(ctx)
		if err != nil {
			w.Close()
			return nil, err
		}
		fresh := b
		fresh.Events = nil
		for _, ev := range b.Events {
			if ev.Revision > listed[ev.Kind] {
				fresh.Events = append(fresh.Events, ev)
			}
		}
		view = view.apply(fresh)
	}
	c.replace(view, asked)
	return w, nil
}

// replace puts a listing in the place of the view. Within one epoch the difference
// becomes one more batch of the history.
func (c *Cache) replace(view *View, asked time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.View(); old.Version().Epoch == view.version.Epoch {
		c.ring.add(Batch{Revision: view.version.Revision, Events: view.diff(old)})
	} else {
		c.ring.reset(view.version.Revision)
	}
	c.move(view, true)
	c.fresh.Store(&asked)
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
}

func (c *Cache) advance(b Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.View()
	if b.Revision <= now.version.Revision {
		return
	}
	c.ring.add(b)
	c.move(now.apply(b), len(b.Events) > 0)
}

// move publishes a view; c.mu is held.
func (c *Cache) move(v *View, events bool) {
	c.view.Store(v)
	close(c.moved)
	c.moved = make(chan struct{})
	if !events {
		return
	}
	for ch := range c.subs {
		select {
		case ch <- struct{}{}:
		default: // one signal waits already
		}
	}
}

// probe reads epoch and revision of the store again and again, and notes when the view has
// reached that revision.
func (c *Cache) probe(ctx context.Context) error {
	for ; ctx.Err() == nil; run.Pause(ctx, c.probed) {
		if err := c.probeOnce(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cache) probeOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeWait)
	defer cancel()
	asked := time.Now()
	entries, rev, err := c.store.List(ctx, KindEpoch, "", 1)
	if err != nil {
		return nil // the staleness says it
	}
	if len(entries) != 1 || string(entries[0].Value) != c.Version().Epoch {
		return fmt.Errorf("the epoch has changed: %w", errRelist)
	}
	if c.WaitFor(ctx, rev) != nil {
		if c.Staleness() > stuckAfter {
			return errors.New("store: the watch does not move")
		}
		return nil
	}
	c.fresh.Store(&asked)
	return nil
}

// compare reads everything each minute and holds it against the view, since watches
// have lost events before.
func (c *Cache) compare(ctx context.Context) error {
	for {
		run.Pause(ctx, comparePeriod*9/10+rand.N(comparePeriod/5))
		if ctx.Err() != nil {
			return nil
		}
		for _, kind := range c.kinds {
			entries, rev, err := c.store.List(ctx, kind, "", 0)
			if err != nil {
				break // the next minute will do
			}
			if err := c.WaitFor(ctx, rev); err != nil {
				return err
			}
			if key, ok := c.differs(kind, entries, rev); ok {
				c.logger.ErrorContext(ctx, "store replica diverged", "key", key.String(), "revision", rev)
				return fmt.Errorf("the replica differs at %s: %w", key, errRelist)
			}
		}
	}
}

// differs finds a key whose entry in the view is not that of a listing at a revision
// that the view has passed, and that has not changed since.
func (c *Cache) differs(kind string, entries []Entry, rev int64) (Key, bool) {
	c.mu.Lock()
	view := c.View()
	later, ok := c.ring.since(rev)
	c.mu.Unlock()
	if !ok {
		return Key{}, false // cannot tell
	}
	changed := make(map[Key]bool, len(later))
	for _, ev := range later {
		changed[ev.Key] = true
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Name] = true
		have, ok := view.Get(e.Key)
		if !changed[e.Key] && (!ok || have.Revision != e.Revision || string(have.Value) != string(e.Value)) {
			return e.Key, true
		}
	}
	for e := range view.All(kind) {
		if !changed[e.Key] && !there[e.Name] {
			return e.Key, true
		}
	}
	return Key{}, false
}
