package nodeapi_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// A farStore is a store behind a way that can be cut: calls fail, and open watches go
// quiet and say what was missed once the way is mended.
type farStore struct {
	*storetest.Memory
	mu     sync.Mutex
	mended chan struct{} // nil while the way is whole
}

var errCut = errors.New("the way to the store is cut")

func (f *farStore) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mended == nil {
		f.mended = make(chan struct{})
	}
}

func (f *farStore) mend() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mended != nil {
		close(f.mended)
		f.mended = nil
	}
}

func (f *farStore) way() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mended
}

func (f *farStore) List(ctx context.Context, kind, after string, limit int) ([]store.Entry, int64, error) {
	if f.way() != nil {
		return nil, 0, errCut
	}
	return f.Memory.List(ctx, kind, after, limit)
}

func (f *farStore) Get(ctx context.Context, k store.Key) (store.Entry, error) {
	if f.way() != nil {
		return store.Entry{}, errCut
	}
	return f.Memory.Get(ctx, k)
}

func (f *farStore) Commit(ctx context.Context, ops ...store.Op) (int64, error) {
	if f.way() != nil {
		return 0, errCut
	}
	return f.Memory.Commit(ctx, ops...)
}

func (f *farStore) Epoch(ctx context.Context) (string, error) {
	if f.way() != nil {
		return "", errCut
	}
	return f.Memory.Epoch(ctx)
}

func (f *farStore) Watch(ctx context.Context, from int64, kinds ...string) (store.Watcher, error) {
	if f.way() != nil {
		return nil, errCut
	}
	w, err := f.Memory.Watch(ctx, from, kinds...)
	if err != nil {
		return nil, err
	}
	return farWatcher{w, f}, nil
}

type farWatcher struct {
	store.Watcher
	far *farStore
}

func (w farWatcher) Next(ctx context.Context) (store.Batch, error) {
	b, err := w.Watcher.Next(ctx)
	for mended := w.far.way(); mended != nil; mended = w.far.way() {
		select {
		case <-mended:
		case <-ctx.Done():
			return store.Batch{}, ctx.Err()
		}
	}
	return b, err
}

// truth knows when each count was committed, as the subject of a lock, which goes at
// once, and as a label of a resource, which waits to settle.
type truth struct {
	mu              sync.Mutex
	locks, resource []time.Time // of each count
}

func (tr *truth) commit(h *house, rng *rand.Rand) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if rng.IntN(2) == 0 || len(tr.locks) == 0 {
		h.put(lockOn("count", &typesv1.LockSpec{Subject: fmt.Sprint("c", len(tr.locks)), Reason: "x"}))
		tr.locks = append(tr.locks, time.Now())
	}
	if rng.IntN(2) == 0 || len(tr.resource) == 0 {
		r := resource("db")
		r.GetResource().Metadata.Labels = map[string]string{"n": fmt.Sprint("c", len(tr.resource))}
		h.put(r)
		tr.resource = append(tr.resource, time.Now())
	}
}

// staleness is how old what the node enforces is, in truth.
func (tr *truth) staleness(n *node) time.Duration {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	now := n.holder.Current()
	return max(
		behind(tr.locks, func(count string) bool {
			_, _, ok := now.Locked(count, "", "", "", "", time.Now())
			return ok
		}),
		behind(tr.resource, func(count string) bool {
			r, ok := now.Resource("db")
			return ok && r.GetMetadata().GetLabels()["n"] == count
		}))
}

// behind is the time since the first commit that is not in force.
func behind(at []time.Time, inForce func(count string) bool) time.Duration {
	for i := len(at) - 1; i >= 0; i-- {
		if inForce(fmt.Sprint("c", i)) {
			if i == len(at)-1 {
				return 0
			}
			return time.Since(at[i+1])
		}
	}
	return time.Since(at[0])
}

// TestStalenessNeverUnderstates runs random schedules of commits, cut ways between node
// and replicas and between replicas and store, and broken watches, and compares what
// the node says of itself with the truth.
func TestStalenessNeverUnderstates(t *testing.T) {
	dir := t.TempDir()
	for seed := range uint64(16) {
		synctest.Test(t, func(*testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			h := newHouse(t)
			defer h.stop()
			h.put(resource("db"))
			far := map[string]*farStore{"a:1": {Memory: h.mem}, "b:1": {Memory: h.mem}}
			replicas := map[string]*replica{}
			for addr, f := range far {
				replicas[addr] = h.replica(f)
			}
			w := newWire(replicas)
			n := h.node(h.enrolled(replicas["a:1"], w, "a:1", "n1", fmt.Sprintf("%s/%d", dir, seed)), w, "a:1", "b:1")
			tr := &truth{}
			tr.commit(h, rng)
			addr := func() string { return []string{"a:1", "b:1"}[rng.IntN(2)] }
			checks, known := 0, 0
			for began := time.Now(); time.Since(began) < 4*time.Minute; {
				switch rng.IntN(14) {
				case 0:
					far[addr()].cut()
				case 1, 2:
					far[addr()].mend()
				case 3:
					w.set(addr(), true)
				case 4, 5:
					w.set(addr(), false)
				case 6:
					h.mem.BreakWatches()
				case 7, 8, 9:
					tr.commit(h, rng)
				case 10:
					w.mu.Lock()
					late := rand.New(rand.NewPCG(seed, rng.Uint64()))
					w.delay = func() time.Duration { return time.Duration(late.Int64N(int64(time.Second))) }
					w.mu.Unlock()
				case 11:
					w.mu.Lock()
					w.delay = nil
					w.mu.Unlock()
				}
				pause := int64(1500 * time.Millisecond)
				if rng.IntN(2) == 0 {
					pause = int64(60 * time.Millisecond)
				}
				time.Sleep(time.Duration(rng.Int64N(pause)))
				said, is := n.Staleness(), tr.staleness(n)
				checks++
				if said < is {
					t.Fatalf("seed %d, check %d: the node says %s and is %s behind", seed, checks, said, is)
				}
				if said < 5*time.Second {
					known++
				}
			}
			if known < checks/20 {
				t.Errorf("seed %d: the node was fresh in %d of %d checks: the schedule shows nothing", seed, known, checks)
			}
			for a := range far {
				far[a].mend()
				w.set(a, false)
			}
			w.mu.Lock()
			w.delay = nil
			w.mu.Unlock()
			time.Sleep(2 * time.Minute)
			if n.Staleness() > 4*time.Second || tr.staleness(n) != 0 {
				t.Errorf("seed %d: after all was mended the node says %s and is %s behind", seed, n.Staleness(), tr.staleness(n))
			}
		})
	}
}

func TestFailOver(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(*testing.T) {
		h := newHouse(t)
		defer h.stop()
		h.put(resource("db"))
		a, b := h.replica(h.mem), h.replica(h.mem)
		w := newWire(map[string]*replica{"a:1": a, "b:1": b})
		n := h.node(h.enrolled(a, w, "a:1", "n1", dir), w, "a:1", "b:1")
		time.Sleep(2 * time.Second)
		w.set("a:1", true)
		time.Sleep(5 * time.Second)
		if !n.Connected() || n.Staleness() > 3*time.Second {
			t.Errorf("connected %v, staleness %s after the first replica was lost", n.Connected(), n.Staleness())
		}
		rev := h.put(lockOn("l", &typesv1.LockSpec{Subject: "eve", Reason: "x"}))
		synctest.Wait()
		if n.holder.Version().Revision < rev {
			t.Errorf("the node is at %s, want %d", n.holder.Version(), rev)
		}
		w.set("b:1", true)
		before := n.Staleness()
		time.Sleep(time.Minute)
		if got := n.Staleness(); got < before+time.Minute || n.Connected() {
			t.Errorf("cut off for a minute the node says %s, connected %v", got, n.Connected())
		}
	})
}

func TestANewEpochOverTheWire(t *testing.T) {
	withNode(t, func(h *house, r *replica, w *wire, n *node) {
		epoch, err := h.mem.NewEpoch(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if v := n.holder.Version(); v.Epoch != epoch || n.Staleness() > 3*time.Second {
			t.Errorf("at %s with staleness %s, want the epoch %s", v, n.Staleness(), epoch)
		}
	})
}
