package identity

import (
	"crypto/sha256"
	"sync"
)

// maxRead bounds the tokens of people that are kept as they were read. They are of people
// who have signed in: strangers cannot fill it.
const maxRead = 2000

// read keeps what tokens say, by their hashes, so that one that comes with each call is not
// read each time. That it says so is all that is kept: it is verified at each call. It is
// safe for concurrent use.
type read struct {
	mu   sync.RWMutex
	kept map[[sha256.Size]byte]*token
}

// token is peek, or what it has said before.
func (r *read) token(raw string) (*token, error) {
	if len(raw) <= maxTokenBytes {
		r.mu.RLock()
		t := r.kept[sha256.Sum256([]byte(raw))]
		r.mu.RUnlock()
		if t != nil {
			return t, nil
		}
	}
	return peek(raw)
}

// keep is called with tokens that were verified.
func (r *read) keep(t *token) {
	r.mu.RLock()
	_, known := r.kept[t.hash]
	r.mu.RUnlock()
	if known {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept == nil || len(r.kept) >= maxRead {
		r.kept = map[[sha256.Size]byte]*token{}
	}
	r.kept[t.hash] = t
}
