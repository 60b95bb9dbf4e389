package authority

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/run"
)

const (
	// A key signs for keyAge. A new one is published keyLead before it signs, so that
	// everybody trusts it by then, and the old one is trusted for keyAge more.
	keyAge  = 90 * 24 * time.Hour
	keyLead = 10 * time.Minute
	// checkEvery is how often Run looks whether a key is due.
	checkEvery = time.Hour
	// retryAfter is how long Run waits after the store failed.
	retryAfter = time.Second
)

func (a *Authority) openKeys(ctx context.Context) error {
	keys, err := a.read(ctx)
	if err != nil {
		return err
	}
	for i := range uses {
		u := &uses[i]
		if len(keys[u.name]) > 0 {
			continue
		}
		name := u.first
		if u.age > 0 {
			name = u.successor()
		}
		err := a.create(ctx, u, name, a.cfg.Now(), audit.Entry{Actor: "system", Action: "authority.create-" + u.first})
		if err != nil && !store.IsConflict(err) { // another replica may have been first
			return err
		}
	}
	if err := a.reload(ctx); err != nil {
		return err
	}
	return a.rotate(ctx)
}

// read reads all keys of the store, by use.
func (a *Authority) read(ctx context.Context) (map[string][]*signer, error) {
	entries, _, err := a.cfg.Store.List(ctx, Kind, "", 0)
	if err != nil {
		return nil, err
	}
	keys := map[string][]*signer{}
	for _, e := range entries {
		for i := range uses {
			u := &uses[i]
			if !u.has(e.Name) {
				continue
			}
			rec, err := a.decode(ctx, e)
			if err != nil {
				return nil, err
			}
			s, err := u.signer(e, rec)
			if err != nil {
				return nil, err
			}
			keys[u.name] = append(keys[u.name], s)
		}
	}
	for _, all := range keys {
		slices.SortFunc(all, func(x, y *signer) int { return cmp.Or(x.signs.Compare(y.signs), strings.Compare(x.name, y.name)) })
	}
	return keys, nil
}

// reload follows the store; a use without a key keeps what it had.
func (a *Authority) reload(ctx context.Context) error {
	keys, err := a.read(ctx)
	if err != nil {
		return err
	}
	for _, u := range uses {
		if len(keys[u.name]) == 0 {
			return fmt.Errorf("the store has no key for %s any more", u.name)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys = keys
	return nil
}

// rotate makes the keys that are due, and removes those by which nothing can be verified
// any more.
func (a *Authority) rotate(ctx context.Context) error {
	now := a.cfg.Now()
	a.mu.RLock()
	keys := maps.Clone(a.keys)
	a.mu.RUnlock()
	changed := false
	for i := range uses {
		u := &uses[i]
		all := keys[u.name]
		if u.age > 0 && now.Sub(all[len(all)-1].signs) > u.age {
			if err := a.create(ctx, u, u.successor(), now.Add(u.lead), audit.Entry{Actor: "system", Action: "authority.create-" + u.first}); err != nil {
				return err
			}
			changed = true
		}
		for i := 1; i < len(all) && now.Sub(all[i].signs) > u.overlap; i++ {
			if err := a.retire(ctx, "system", all[i-1].name, all[i-1].revision); err != nil {
				return err
			}
			changed = true
		}
	}
	if !changed {
		return nil
	}
	return a.reload(ctx)
}

// retire removes a key; one that another replica has removed is gone as well.
func (a *Authority) retire(ctx context.Context, by, name string, revision int64) error {
	k := store.Key{Kind: Kind, Name: name}
	_, err := a.cfg.Audit.Commit(ctx, audit.Entry{Actor: by, Action: "authority.retire-key", Object: k.String(), Outcome: "ok"},
		store.Op{Key: k, Delete: true, If: revision})
	if store.IsConflict(err) {
		return nil
	}
	return err
}

// Run follows keys that other replicas make and makes new ones when they are due.
func (a *Authority) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := a.follow(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Logger.WarnContext(ctx, "keys are not followed; retrying", "error", err)
			run.Pause(ctx, retryAfter)
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
