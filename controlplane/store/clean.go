package store

import (
	"context"
	"log/slog"
	"time"
)

// Clean removes the values of a kind that are over, at once and then again and again, while
// this process leads in doing so. It returns when ctx is done, with its error.
func Clean(ctx context.Context, s Store, kind string, every time.Duration, over func(Entry) bool, logger *slog.Logger) error {
	return s.Lead(ctx, kind+"-cleaner", func(ctx context.Context, guard Op) error {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			if err := clean(ctx, s, kind, over, guard); err != nil && ctx.Err() == nil {
				logger.WarnContext(ctx, "what is over was not removed", "kind", kind, "error", err)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	})
}

func clean(ctx context.Context, s Store, kind string, over func(Entry) bool, guard Op) error {
	entries, _, err := s.List(ctx, kind, "", 0)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !over(e) {
			continue
		}
		if _, err := s.Commit(ctx, guard, Op{Key: e.Key, Delete: true, If: e.Revision}); err != nil && !IsConflict(err) {
			return err
		}
	}
	return nil
}
