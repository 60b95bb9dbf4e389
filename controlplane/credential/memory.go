package credential

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// keyedLocks lets one request at a time work on a lease in this process; between
// processes the ledger's compare-and-swap decides. The zero value is ready.
type keyedLocks struct {
	mu   sync.Mutex
	held map[postern.LeaseID]chan struct{}
}

// lock waits for the lease; the error is ctx's.
func (k *keyedLocks) lock(ctx context.Context, id postern.LeaseID) (unlock func(), err error) {
	for {
		k.mu.Lock()
		busy, ok := k.held[id]
		if !ok {
			if k.held == nil {
				k.held = map[postern.LeaseID]chan struct{}{}
			}
			done := make(chan struct{})
			k.held[id] = done
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, id)
				k.mu.Unlock()
				close(done)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// replies keeps sealed answers for a short time, so that a node whose answer was lost
// gets the same one. They open with the node's key alone. The zero value is ready.
type replies struct {
	mu    sync.Mutex
	byID  map[postern.LeaseID]reply
	order []postern.LeaseID // oldest first
}

type reply struct {
	key, sealed []byte
	at          time.Time
}

func (r *replies) put(id postern.LeaseID, key, sealed []byte, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID == nil {
		r.byID = map[postern.LeaseID]reply{}
	}
	for len(r.order) > 0 {
		old, ok := r.byID[r.order[0]]
		if ok && now.Sub(old.at) < replayWindow {
			break
		}
		delete(r.byID, r.order[0])
		r.order = r.order[1:]
	}
	r.byID[id] = reply{key: bytes.Clone(key), sealed: sealed, at: now}
	r.order = append(r.order, id)
}

func (r *replies) get(id postern.LeaseID, key []byte, now time.Time) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one, ok := r.byID[id]
	if !ok || !bytes.Equal(one.key, key) || now.Sub(one.at) >= replayWindow {
		return nil, false
	}
	return one.sealed, true
}

func (r *replies) drop(id postern.LeaseID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, id)
}
