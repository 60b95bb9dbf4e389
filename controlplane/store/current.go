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

// A question is one look at the store that several calls share.
type question struct {
	done chan struct{}
	view *View
	err  error
}

// Current is a view that has everything that was committed before the call, as a read of
// the store would. Calls that come together share one question to the store; one that was
// asked before a call came does not count for it. An error says that it cannot be told now:
// ask the store itself.
func (c *Cache) Current(ctx context.Context) (*View, error) {
	c.questions.Lock()
	if c.next == nil {
		c.next = &question{done: make(chan struct{})}
	}
	q := c.next
	c.questions.Unlock()
	for {
		select {
		case <-q.done:
			return q.view, q.err
		case c.turn <- struct{}{}:
			c.answer(ctx)
			<-c.turn
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// answer asks the question that nobody has asked yet, if there is one; the turn is the
// caller's.
func (c *Cache) answer(ctx context.Context) {
	c.questions.Lock()
	q := c.next
	c.next = nil
	c.questions.Unlock()
	if q == nil {
		return
	}
	// The question is not the caller's alone, so that it must not fail with the caller.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), questionWait)
	defer cancel()
	q.view, q.err = c.upToDate(ctx)
	close(q.done)
}

func (c *Cache) upToDate(ctx context.Context) (*View, error) {
	entries, revision, err := c.store.List(ctx, KindEpoch, "", 1)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, behindWait)
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
