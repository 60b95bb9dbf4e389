package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/run"
)

// Memory is a store.Store in memory, for tests of what stands on a store: it passes the
// same suite, needs no process or file, works in a synctest bubble, and can be made to
// fail.
type Memory struct {
	mu       sync.Mutex
	revision int64
	floor    int64 // what came before is compacted
	entries  map[store.Key]store.Entry
	history  []store.Batch // one a revision, in order
	changed  chan struct{} // closed and replaced by every change
	broken   chan struct{} // closed and replaced by BreakWatches
	down     error
	leaders  map[string]chan struct{} // a slot an election
}

var _ store.Store = (*Memory)(nil)

// NewMemory is an empty store.
func NewMemory() *Memory {
	return &Memory{
		revision: 1,
		entries:  make(map[store.Key]store.Entry),
		changed:  make(chan struct{}),
		broken:   make(chan struct{}),
		leaders:  make(map[string]chan struct{}),
	}
}

// Fail makes every call answer err, until it is called with nil. Open watches go on
// without a word, as they do behind a partition.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
	close(m.changed)
	m.changed = make(chan struct{})
}

// BreakWatches ends every open watch with an error.
func (m *Memory) BreakWatches() {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.broken)
	m.broken = make(chan struct{})
}

// Compact forgets the history up to now.
func (m *Memory) Compact() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.floor, m.history = m.revision, nil
}

// Tamper changes a value and tells nobody: neither its revision nor a watch.
func (m *Memory) Tamper(k store.Key, value []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[k]
	e.Key, e.Value = k, value
	m.entries[k] = e
}

// Close implements store.Store.
func (*Memory) Close() error { return nil }

// Ping implements store.Store.
func (m *Memory) Ping(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.up(ctx)
}

func (m *Memory) up(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return m.down
}

// Get implements store.Store.
func (m *Memory) Get(ctx context.Context, k store.Key) (store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.up(ctx); err != nil {
		return store.Entry{}, err
	}
	e, ok := m.entries[k]
	if !ok {
		return e, fmt.Errorf("%s: %w", k, store.ErrNotFound)
	}
	e.Value = slices.Clone(e.Value)
	return e, nil
}

// GetAll implements store.Store.
func (m *Memory) GetAll(ctx context.Context, keys ...store.Key) ([]store.Entry, error) {
	if len(keys) == 0 || len(keys) > store.MaxOps {
		return nil, fmt.Errorf("read %d keys at once: want 1 to %d", len(keys), store.MaxOps)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.up(ctx); err != nil {
		return nil, err
	}
	var out []store.Entry
	for _, k := range keys {
		if e, ok := m.entries[k]; ok {
			e.Value = slices.Clone(e.Value)
			out = append(out, e)
		}
	}
	return out, nil
}

// List implements store.Store.
func (m *Memory) List(ctx context.Context, kind, after string, limit int) ([]store.Entry, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.up(ctx); err != nil {
		return nil, 0, err
	}
	var out []store.Entry
	for k, e := range m.entries {
		if k.Kind == kind && (after == "" || k.Name > after) {
			e.Value = slices.Clone(e.Value)
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b store.Entry) int { return strings.Compare(a.Name, b.Name) })
	if limit > 0 && len(out) > limit {
		out = out[:limit]
	}
	return out, m.revision, nil
}

// Commit implements store.Store.
func (m *Memory) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.up(ctx); err != nil {
		return 0, err
	}
	for _, o := range ops {
		if have := m.entries[o.Key].Revision; o.If != store.AnyRevision && have != o.If {
			return 0, &store.ConflictError{Key: o.Key, Want: o.If, Have: have}
		}
	}
	b := store.Batch{Revision: m.revision + 1}
	for _, o := range ops {
		_, exists := m.entries[o.Key]
		e := store.Entry{Key: o.Key, Value: slices.Clone(o.Value), Revision: b.Revision}
		switch {
		case o.Check:
		case o.Delete && exists:
			delete(m.entries, o.Key)
			e.Value = nil
			b.Events = append(b.Events, store.Event{Entry: e, Deleted: true})
		case !o.Delete:
			m.entries[o.Key] = e
			b.Events = append(b.Events, store.Event{Entry: e})
		}
	}
	if len(b.Events) == 0 {
		return m.revision, nil // only checks
	}
	m.revision = b.Revision
	m.history = append(m.history, b)
	close(m.changed)
	m.changed = make(chan struct{})
	return m.revision, nil
}

// Epoch implements store.Store.
func (m *Memory) Epoch(ctx context.Context) (string, error) {
	for {
		e, err := m.Get(ctx, store.Key{Kind: store.KindEpoch, Name: "current"})
		if !errors.Is(err, store.ErrNotFound) {
			return string(e.Value), err
		}
		epoch, err := m.putEpoch(ctx, 0)
		if store.IsConflict(err) {
			continue // somebody else was first
		}
		return epoch, err
	}
}

// NewEpoch implements store.Store.
func (m *Memory) NewEpoch(ctx context.Context) (string, error) {
	return m.putEpoch(ctx, store.AnyRevision)
}

func (m *Memory) putEpoch(ctx context.Context, revision int64) (string, error) {
	m.mu.Lock()
	next := "epoch-" + strconv.FormatInt(m.revision, 10)
	m.mu.Unlock()
	_, err := m.Commit(ctx, store.Op{Key: store.Key{Kind: store.KindEpoch, Name: "current"}, Value: []byte(next), If: revision})
	return next, err
}

// Lead implements store.Store.
func (m *Memory) Lead(ctx context.Context, name string, fn func(context.Context, store.Op) error) error {
	m.mu.Lock()
	slot := m.leaders[name]
	if slot == nil {
		slot = make(chan struct{}, 1)
		m.leaders[name] = slot
	}
	m.mu.Unlock()
	key := store.Key{Kind: "leader", Name: name}
	for ctx.Err() == nil {
		select {
		case slot <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if rev, err := m.Commit(ctx, store.Op{Key: key, If: store.AnyRevision}); err == nil {
			g := run.New(ctx)
			g.Go(name, func(ctx context.Context) error { return fn(ctx, store.Op{Key: key, Check: true, If: rev}) })
			_ = g.Wait() // a leader that failed is followed by another
		}
		<-slot
		timer := time.NewTimer(10 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return context.Cause(ctx)
}

// Watch implements store.Store.
func (m *Memory) Watch(ctx context.Context, from int64, kinds ...string) (store.Watcher, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.up(ctx); err != nil {
		return nil, err
	}
	if from == 0 {
		from = m.revision + 1
	}
	if from > m.revision+1 {
		return nil, store.ErrCompacted
	}
	w := &memoryWatcher{m: m, next: from, broken: m.broken, kinds: make(map[string]bool)}
	for _, k := range kinds {
		w.kinds[k] = true
	}
	w.ctx, w.cancel = context.WithCancel(ctx)
	return w, nil
}

type memoryWatcher struct {
	m      *Memory
	ctx    context.Context
	cancel context.CancelFunc
	kinds  map[string]bool
	next   int64
	broken chan struct{}
}

func (w *memoryWatcher) Close() { w.cancel() }

func (w *memoryWatcher) Next(ctx context.Context) (store.Batch, error) {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		w.m.mu.Lock()
		changed, up := w.m.changed, w.m.down == nil
		b, ok, err := w.batch()
		progress := store.Batch{Revision: w.m.revision}
		w.m.mu.Unlock()
		if err != nil || (ok && up) {
			return b, err
		}
		select {
		case <-changed:
		case <-w.broken:
			return b, errors.New("the watch was broken")
		case <-timer.C:
			if up {
				return progress, nil
			}
			timer.Reset(time.Second)
		case <-ctx.Done():
			return b, context.Cause(ctx)
		case <-w.ctx.Done():
			return b, context.Cause(w.ctx)
		}
	}
}

// batch is the next revision; m.mu is held.
func (w *memoryWatcher) batch() (b store.Batch, ok bool, err error) {
	if w.next <= w.m.floor {
		return b, false, store.ErrCompacted
	}
	for _, h := range w.m.history {
		if h.Revision < w.next {
			continue
		}
		w.next = h.Revision + 1
		b.Revision = h.Revision
		for _, ev := range h.Events {
			if len(w.kinds) == 0 || w.kinds[ev.Kind] {
				b.Events = append(b.Events, ev)
			}
		}
		return b, true, nil
	}
	return b, false, nil
}

// Keys are the keys of a kind, sorted.
func (m *Memory) Keys(kind string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for k := range maps.Keys(m.entries) {
		if k.Kind == kind {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	return names
}
