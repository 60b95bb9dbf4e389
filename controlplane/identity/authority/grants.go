package authority

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

const (
	grantPrefix = "grant-"
	// grantContext separates signatures of grants from all others.
	grantContext = "postern/grant/v1"

	// A key signs for keyAge. A new one is published keyLead before it signs, so that
	// every node trusts it by then, and the old one is trusted for keyAge more: grants
	// are signed anew each time they are opened.
	keyAge  = 90 * 24 * time.Hour
	keyLead = 10 * time.Minute
	// checkEvery is how often Run looks whether a key is due.
	checkEvery = time.Hour
	// retryAfter is how long Run waits after the store failed.
	retryAfter = time.Second
)

type grantKey struct {
	id       string
	revision int64
	signs    time.Time
	private  ed25519.PrivateKey
}

func (k grantKey) public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

func (a *Authority) openGrantKeys(ctx context.Context) error {
	if err := a.reload(ctx); err != nil {
		return err
	}
	return a.rotate(ctx)
}

// reload reads every grant key.
func (a *Authority) reload(ctx context.Context) error {
	entries, _, err := a.cfg.Store.List(ctx, Kind, "", 0)
	if err != nil {
		return err
	}
	var keys []grantKey
	for _, e := range entries {
		id, ok := strings.CutPrefix(e.Name, grantPrefix)
		if !ok {
			continue
		}
		rec, err := a.decode(ctx, e)
		if err != nil {
			return err
		}
		private, ok := rec.private.(ed25519.PrivateKey)
		if !ok {
			return fmt.Errorf("%s is not an Ed25519 key", e.Key)
		}
		keys = append(keys, grantKey{id: id, revision: e.Revision, signs: rec.Signs, private: private})
	}
	slices.SortFunc(keys, func(x, y grantKey) int {
		if c := x.signs.Compare(y.signs); c != 0 {
			return c
		}
		return strings.Compare(x.id, y.id)
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	a.grants = keys
	return nil
}

// rotate makes the first key, or the next one where the newest is old, and removes
// keys that nothing can be signed with any more.
func (a *Authority) rotate(ctx context.Context) error {
	now := a.cfg.Now()
	a.mu.RLock()
	keys := slices.Clone(a.grants)
	a.mu.RUnlock()
	changed := false
	switch {
	case len(keys) == 0:
		if err := a.makeGrantKey(ctx, now); err != nil {
			return err
		}
		changed = true
	case now.Sub(keys[len(keys)-1].signs) > keyAge:
		if err := a.makeGrantKey(ctx, now.Add(keyLead)); err != nil {
			return err
		}
		changed = true
	}
	for i := 1; i < len(keys); i++ {
		if now.Sub(keys[i].signs) <= keyAge {
			break
		}
		old := store.Key{Kind: Kind, Name: grantPrefix + keys[i-1].id}
		_, err := a.cfg.Audit.Commit(ctx, audit.Entry{Actor: "system", Action: "authority.retire-grant-key", Object: old.String(), Outcome: "ok"},
			store.Op{Key: old, Delete: true, If: keys[i-1].revision})
		if err != nil && !isConflict(err) {
			return err
		}
		changed = true
	}
	if !changed {
		return nil
	}
	return a.reload(ctx)
}

func (a *Authority) makeGrantKey(ctx context.Context, signs time.Time) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(public)
	k := store.Key{Kind: Kind, Name: grantPrefix + hex.EncodeToString(sum[:6])}
	return a.write(ctx, k, record{Created: a.cfg.Now(), Signs: signs, private: private}, "authority.create-grant-key")
}

// SignGrant vouches for g to nodes, as it is now. The hash of its token stays here.
func (a *Authority) SignGrant(g *typesv1.Grant) (*typesv1.SignedGrant, error) {
	now := a.cfg.Now()
	a.mu.RLock()
	defer a.mu.RUnlock()
	var key *grantKey
	for i := range a.grants {
		if key == nil || !a.grants[i].signs.After(now) {
			key = &a.grants[i]
		}
	}
	if key == nil {
		return nil, errors.New("no key signs grants")
	}
	g = proto.CloneOf(g)
	g.TokenHash, g.CertificateHash = nil, nil
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(g)
	if err != nil {
		return nil, err
	}
	sig := ed25519.Sign(key.private, append([]byte(grantContext), b...))
	return &typesv1.SignedGrant{Grant: b, Signature: sig, KeyId: key.id}, nil
}

// GrantKeys are the public keys that nodes trust, by id; the caller owns the map.
func (a *Authority) GrantKeys() map[string][]byte {
	a.mu.RLock()
	defer a.mu.RUnlock()
	keys := make(map[string][]byte, len(a.grants))
	for _, k := range a.grants {
		keys[k.id] = slices.Clone(k.public())
	}
	return keys
}

// Run follows keys that other replicas make and makes new ones when they are due.
func (a *Authority) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := a.follow(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Logger.WarnContext(ctx, "keys are not followed; retrying", "error", err)
			wait(ctx, retryAfter)
		}
	}
	return ctx.Err()
}

func (a *Authority) follow(ctx context.Context) error {
	w, err := a.cfg.Store.Watch(ctx, 0, Kind)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := a.reload(ctx); err != nil { // what changed before the watch began
		return err
	}
	var checked time.Time
	for {
		if now := a.cfg.Now(); now.Sub(checked) >= checkEvery {
			if err := a.rotate(ctx); err != nil {
				return err
			}
			checked = now
		}
		batch, err := w.Next(ctx) // returns now and then, changes or not
		if err != nil {
			return err
		}
		if len(batch.Events) > 0 {
			if err := a.reload(ctx); err != nil {
				return err
			}
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func isConflict(err error) bool {
	var c *store.ConflictError
	return errors.As(err, &c)
}
