package store

import (
	"context"
	"fmt"
	"time"
)

const (
	// questionWait bounds one question to the store, and behindWait how long the watch may
	// take to have what the answer tells of.
	questionWait = 2 * time.Second
	behindWait   = 100 * time.Millisecond
)

// Current is a view that has everything that was committed before the call, as a read of
// the store would. Calls that come together share one question to the store. An error says
// that it cannot be told now: ask the store itself.
func (c *Cache) Current(ctx context.Context) (*View, error) {
	return c.questions.Do(ctx, c.upToDate)
}

func (c *Cache) upToDate(ctx context.Context) (*View, error) {
	ctx, cancel := context.WithTimeout(ctx, questionWait)
	defer cancel()
	entries, revision, err := c.store.List(ctx, KindEpoch, "", 1)
	if err != nil {
		return nil, err
	}
	ctx, cancel = context.WithTimeout(ctx, behindWait)
	defer cancel()
	if err := c.WaitFor(ctx, revision); err != nil {
		return nil, fmt.Errorf("store: the watch is behind revision %d: %w", revision, err)
	}
	view := c.View()
	if len(entries) != 1 || string(entries[0].Value) != view.Version().Epoch {
		return nil, fmt.Errorf("store: the epoch has changed: %w", errRelist)
	}
	return view, nil
}
