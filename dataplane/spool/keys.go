package spool

import (
	"errors"
	"sync"
	"time"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

// wrapFor is for how long data keys are wrapped by one ephemeral key: whoever takes the
// node's memory can open what began since, beside what still runs.
const wrapFor = 20 * time.Second

// keys makes the data keys of sessions. It is safe for concurrent use.
type keys struct {
	mu    sync.Mutex
	wraps map[string]wrap // by the public key that they are wrapped for
}

type wrap struct {
	*record.Wrapper
	since time.Time
}

// next makes the data key of a session, for the holder of a recording key.
func (k *keys) next(to []byte, session postern.SessionID) (*record.DataKey, record.WrappedKey, error) {
	w, err := k.wrapper(to, nil)
	if err != nil {
		return nil, record.WrappedKey{}, err
	}
	key, wrapped, err := w.NewDataKey(session)
	if errors.Is(err, secret.ErrSealerUsed) {
		if w, err = k.wrapper(to, w); err != nil {
			return nil, record.WrappedKey{}, err
		}
		return w.NewDataKey(session)
	}
	return key, wrapped, err
}

// wrapper is the one of now for a public key; not is used up.
func (k *keys) wrapper(to []byte, not *record.Wrapper) (*record.Wrapper, error) {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	if w, ok := k.wraps[string(to)]; ok && w.Wrapper != not && now.Sub(w.since) < wrapFor {
		return w.Wrapper, nil
	}
	w, err := record.NewWrapper(to)
	if err != nil {
		return nil, err
	}
	if k.wraps == nil {
		k.wraps = map[string]wrap{}
	}
	k.wraps[string(to)] = wrap{w, now}
	return w, nil
}

// expire forgets those whose time is over.
func (k *keys) expire(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for to, w := range k.wraps {
		if now.Sub(w.since) >= wrapFor {
			delete(k.wraps, to)
		}
	}
}
