package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
)

// followEvery is how long entries are gathered that a follower is told of together: what it
// was told costs a commit.
const followEvery = time.Second

// told is up to which sequence a follower was told.
type told struct{ Through int64 }

// Follow tells of every entry, in order and from the first on, until ctx is done. What was
// told is in the store under the follower's name, so that whoever leads next of all
// replicas goes on there; after an error, or a process that was stopped, the newest may be
// told again.
func (l *Log) Follow(ctx context.Context, name string, tell func([]*apiv1.AuditEntry) error) error {
	return l.store.Lead(ctx, "audit-"+name, func(ctx context.Context, guard store.Op) error {
		key := store.Key{Kind: KindHead, Name: "told-" + name}
		var t told
		e, err := l.store.Get(ctx, key)
		if err == nil {
			err = json.Unmarshal(e.Value, &t)
		} else if errors.Is(err, store.ErrNotFound) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("audit: what %s was told: %w", name, err)
		}
		w, err := l.store.Watch(ctx, 0, KindHead)
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		defer w.Close()
		for revision := e.Revision; ; {
			var newest int64
			if newest, revision, err = l.follow(ctx, key, &t, revision, guard, tell); err != nil {
				return fmt.Errorf("audit: tell %s: %w", name, err)
			}
			if err := appended(ctx, w, newest); err != nil {
				return err
			}
			if !run.Pause(ctx, followEvery) {
				return ctx.Err()
			}
		}
	})
}

// follow tells of what there is. The newest revision is that of the newest entry; the other
// is of what was told, as the one given.
func (l *Log) follow(ctx context.Context, key store.Key, t *told, revision int64, guard store.Op, tell func([]*apiv1.AuditEntry) error) (newest, after int64, err error) {
	h, err := l.readHead(ctx)
	if err != nil {
		return 0, 0, err
	}
	for last := h.entry.GetSequence(); t.Through < last; {
		page, err := l.read(ctx, t.Through, min(t.Through+readPage, last)+1)
		if err != nil {
			return 0, 0, err
		}
		if err := tell(page); err != nil {
			return 0, 0, err
		}
		t.Through += int64(len(page))
		value, err := json.Marshal(t)
		if err != nil {
			return 0, 0, err
		}
		if revision, err = l.store.Commit(ctx, guard, store.Op{Key: key, Value: value, If: revision}); err != nil {
			return 0, 0, err
		}
	}
	return h.revision, revision, nil
}
