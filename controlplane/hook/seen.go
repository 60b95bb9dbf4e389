package hook

import (
	"context"
	"time"

	"github.com/posterngate/postern/controlplane/store"
)

// seenFor is how long it is known that a message was taken: by then it is late anyway.
const seenFor = 2 * tolerance

// Seen is the change that takes a message for the first time; it conflicts from then on.
func Seen(kind, name string, now time.Time) store.Op {
	return store.Op{Key: store.Key{Kind: kind, Name: name}, Value: []byte(now.Add(seenFor).UTC().Format(time.RFC3339)), If: 0}
}

// Sweep forgets messages that would be refused for being late.
func Sweep(ctx context.Context, s store.Store, kind string, now time.Time) error {
	all, _, err := s.List(ctx, kind, "", 0)
	if err != nil {
		return err
	}
	for _, e := range all {
		until, err := time.Parse(time.RFC3339, string(e.Value))
		if err == nil && now.Before(until) {
			continue
		}
		_, err = s.Commit(ctx, store.Op{Key: e.Key, Delete: true, If: e.Revision})
		if err != nil && !store.IsConflict(err) { // another replica may have been first
			return err
		}
	}
	return nil
}
