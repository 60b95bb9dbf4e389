// Package keyring holds the recording keys: the X25519 keys to whose public half nodes
// seal the data key of each session. The private halves live in the store, sealed by a
// Keeper, and in memory. A new one is made now and then; the old ones stay, since what
// was sealed to them can be read with nothing else.
package keyring

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

// kind is the kind of the keys in the store; their names are their ids.
const kind = "recordingkey"

const (
	keyAge     = 90 * 24 * time.Hour
	checkEvery = time.Hour
	retryAfter = time.Minute
)

// A Keeper seals small values at rest. The same aad must be given to open them.
type Keeper interface {
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	Open(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// A Committer makes changes together with the audit entry that tells of them.
type Committer interface {
	Commit(ctx context.Context, e audit.Entry, ops ...store.Op) (revision int64, err error)
}

// Config is what a Ring needs. All is required.
type Config struct {
	Store  store.Store
	Keeper Keeper
	Audit  Committer
	Now    func() time.Time
	Logger *slog.Logger
}

// A Ring is the keys of all time. It is safe for concurrent use.
type Ring struct {
	cfg Config

	mu   sync.RWMutex
	keys []key // by age, the oldest first
}

type key struct {
	id      string
	created time.Time
	private *secret.PrivateKey
}

// stored is a key as the store has it.
type stored struct {
	Created time.Time
	Sealed  []byte // the private key, sealed to the key's own name
}

func aad(id string) []byte { return []byte("postern/recordingkey/v1\x00" + id) }

// Open reads the keys, and makes the first where there is none.
func Open(ctx context.Context, cfg Config) (*Ring, error) {
	r := &Ring{cfg: cfg}
	if err := r.refresh(ctx); err != nil {
		return nil, fmt.Errorf("recording keys: %w", err)
	}
	return r, nil
}

// Public is the public half of the key that sessions which begin now are sealed to.
func (r *Ring) Public() []byte {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[len(r.keys)-1].private.PublicKey()
}

// Unwrap opens the data key of a session. A key that another replica has made meanwhile
// is looked for.
func (r *Ring) Unwrap(ctx context.Context, session postern.SessionID, w record.WrappedKey) (secret.Bytes, error) {
	k := r.find(w.ID)
	if k == nil {
		if err := r.reload(ctx); err != nil {
			return secret.Bytes{}, fmt.Errorf("recording keys: %w", err)
		}
		if k = r.find(w.ID); k == nil {
			return secret.Bytes{}, fmt.Errorf("%w: recording key %q is not known here", record.ErrKey, w.ID)
		}
	}
	return w.Unwrap(k, session)
}

func (r *Ring) find(id string) *secret.PrivateKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, k := range r.keys {
		if k.id == id {
			return k.private
		}
	}
	return nil
}

// Run makes new keys when they are due, and follows those of other replicas, until ctx
// is done.
func (r *Ring) Run(ctx context.Context) error {
	wait := checkEvery
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		}
		wait = checkEvery
		if err := r.refresh(ctx); err != nil && ctx.Err() == nil {
			r.cfg.Logger.WarnContext(ctx, "recording keys are not looked after; retrying", "error", err)
			wait = retryAfter
		}
	}
}

// refresh reads all keys, and makes one where the newest is old or there is none.
func (r *Ring) refresh(ctx context.Context) error {
	if err := r.reload(ctx); err != nil {
		return err
	}
	r.mu.RLock()
	n := len(r.keys)
	fresh := n > 0 && r.cfg.Now().Sub(r.keys[n-1].created) < keyAge
	r.mu.RUnlock()
	if fresh {
		return nil
	}
	if err := r.create(ctx); err != nil {
		return err
	}
	return r.reload(ctx)
}

func (r *Ring) create(ctx context.Context) error {
	private, err := secret.GenerateKey()
	if err != nil {
		return err
	}
	raw, err := private.Marshal()
	if err != nil {
		return err
	}
	defer raw.Wipe()
	id := record.RecordingKeyID(private.PublicKey())
	s := stored{Created: r.cfg.Now()}
	if s.Sealed, err = r.cfg.Keeper.Seal(ctx, raw.Reveal(), aad(id)); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	value, err := json.Marshal(s)
	if err != nil {
		return err
	}
	k := store.Key{Kind: kind, Name: id}
	_, err = r.cfg.Audit.Commit(ctx, audit.Entry{Actor: "system", Action: "recording.create-key", Object: k.String()}, store.Op{Key: k, Value: value})
	return err
}

func (r *Ring) reload(ctx context.Context) error {
	entries, _, err := r.cfg.Store.List(ctx, kind, "", 0)
	if err != nil {
		return err
	}
	keys := make([]key, 0, len(entries))
	for _, e := range entries {
		var s stored
		if err := json.Unmarshal(e.Value, &s); err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
		raw, err := r.cfg.Keeper.Open(ctx, s.Sealed, aad(e.Name))
		if err != nil {
			return fmt.Errorf("unseal %s: %w", e.Key, err)
		}
		private, err := secret.ParsePrivateKey(raw)
		clear(raw)
		if err == nil && record.RecordingKeyID(private.PublicKey()) != e.Name {
			err = errors.New("it is another key than its name says")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
		keys = append(keys, key{e.Name, s.Created, private})
	}
	slices.SortFunc(keys, func(a, b key) int { return a.created.Compare(b.created) })
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = keys
	return nil
}
