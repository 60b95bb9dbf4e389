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
// gets the same one: while the loan is still the one that it told of, for another control
// plane may have lent anew under the same name. They open with the node's key alone. The
// zero value is ready.
type replies struct {
	mu    sync.Mutex
	byID  map[postern.LeaseID]reply
	order []postern.LeaseID // oldest first
}

type reply struct {
	key, sealed []byte
	created     time.Time // of the loan
	at          time.Time
}

func (r *replies) put(one *lease, key, sealed []byte, now time.Time) {
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
	r.byID[one.id] = reply{key: bytes.Clone(key), sealed: sealed, created: one.Created, at: now}
	r.order = append(r.order, one.id)
}

func (r *replies) get(one *lease, key []byte, now time.Time) ([]byte, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	have, ok := r.byID[one.id]
	if !ok || !have.created.Equal(one.Created) || !bytes.Equal(have.key, key) || now.Sub(have.at) >= replayWindow {
		return nil, false
	}
	return have.sealed, true
}

func (r *replies) drop(id postern.LeaseID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.byID, id)
}
