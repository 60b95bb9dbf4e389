package authority

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
)

const (
	// A key signs for keyAge. A new one is published keyLead before it signs, so that
	// everybody trusts it by then, and the old one is trusted for keyAge more: grants are
	// signed anew each time they are opened, and other tokens live for minutes.
	keyAge  = 90 * 24 * time.Hour
	keyLead = 10 * time.Minute
	// A CA is trusted for caOverlap after its successor signs: certificates of nodes that
	// it signed have ended by then.
	caOverlap = 2 * nodeLifetime
	// checkEvery is how often Run looks whether a key is due.
	checkEvery = time.Hour
	// retryAfter is how long Run waits after the store failed.
	retryAfter = time.Second
)

func (a *Authority) openKeys(ctx context.Context) error {
	if err := a.reload(ctx); err != nil {
		return err
	}
	return a.rotate(ctx)
}

// reload reads the CAs of the house and every key that signs.
func (a *Authority) reload(ctx context.Context) error {
	entries, _, err := a.cfg.Store.List(ctx, Kind, "", 0)
	if err != nil {
		return err
	}
	all := a.series()
	found := make([][]signingKey, len(all))
	var house []*ca
	for _, e := range entries {
		which := slices.IndexFunc(all, func(s series) bool { return strings.HasPrefix(e.Name, s.prefix) })
		if which < 0 && !isHouse(e.Name) {
			continue
		}
		rec, err := a.decode(ctx, e)
		if err != nil {
			return err
		}
		if which < 0 {
			c, err := rec.ca(e.Name, e.Revision)
			if err != nil {
				return fmt.Errorf("%s: %w", e.Key, err)
			}
			house = append(house, c)
			continue
		}
		private, ok := rec.private.(crypto.Signer)
		if !ok {
			return fmt.Errorf("%s cannot sign", e.Key)
		}
		id := strings.TrimPrefix(e.Name, all[which].prefix)
		found[which] = append(found[which], signingKey{id: id, revision: e.Revision, created: rec.Created, signs: rec.Signs, private: private})
	}
	if len(house) == 0 {
		return errors.New("the store has no CA any more")
	}
	slices.SortFunc(house, func(x, y *ca) int { return cmp.Or(x.signs.Compare(y.signs), strings.Compare(x.name, y.name)) })
	a.mu.Lock()
	defer a.mu.Unlock()
	a.house = house
	for i, s := range all {
		slices.SortFunc(found[i], bySigning)
		*s.keys = found[i]
	}
	return nil
}

// rotate makes the keys that are due, and removes keys and CAs by which nothing can be
// verified any more.
func (a *Authority) rotate(ctx context.Context) error {
	now := a.cfg.Now()
	a.mu.RLock()
	house := slices.Clone(a.house)
	a.mu.RUnlock()
	changed := false
	for _, s := range a.series() {
		did, err := a.due(ctx, s)
		if err != nil {
			return err
		}
		changed = changed || did
	}
	for i := 1; i < len(house) && now.Sub(house[i].signs) > caOverlap; i++ {
		if err := a.retire(ctx, "system", house[i-1].name, house[i-1].revision); err != nil {
			return err
		}
		changed = true
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
	if isConflict(err) {
		return nil
	}
	return err
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
