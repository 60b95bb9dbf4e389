package index

import (
	"context"
	"errors"
	"sync"
	"time"
)

// A Batcher makes one transaction of the updates that wait at the same time: whoever
// comes while one is under way is part of the next. It is safe for concurrent use; the
// zero value lacks Commit.
type Batcher struct {
	// Commit makes updates in one transaction. It tells for each of them whether it
	// conflicts (ErrConflict, and the others are made), or fails as a whole.
	Commit func(ctx context.Context, updates []*Update) ([]error, error)

	once  sync.Once
	turn  chan struct{} // of one: whoever is in it commits for all
	mu    sync.Mutex
	queue []*waiting
}

type waiting struct {
	u    *Update
	done chan error // of one
}

const (
	maxBatch  = 64
	batchWait = 30 * time.Second // of one transaction
)

// Do makes an update with whatever others come at the time.
func (b *Batcher) Do(ctx context.Context, u *Update) error {
	b.once.Do(func() { b.turn = make(chan struct{}, 1) })
	w := &waiting{u: u, done: make(chan error, 1)}
	b.mu.Lock()
	b.queue = append(b.queue, w)
	b.mu.Unlock()
	select {
	case err := <-w.done:
		return err
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return b.leave(ctx, w)
	}
	defer func() { <-b.turn }()
	for {
		select {
		case err := <-w.done:
			return err
		default:
			b.commit(context.WithoutCancel(ctx), b.take())
		}
	}
}

// leave takes back an update that nobody has begun; another one is waited for, since it
// must not be changed meanwhile.
func (b *Batcher) leave(ctx context.Context, w *waiting) error {
	b.mu.Lock()
	for i, q := range b.queue {
		if q == w {
			b.queue = append(b.queue[:i], b.queue[i+1:]...)
			b.mu.Unlock()
			return ctx.Err()
		}
	}
	b.mu.Unlock()
	return <-w.done
}

// take is the next batch: at most one update of a session, since the second can only
// follow the first.
func (b *Batcher) take() []*waiting {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := map[string]bool{}
	var batch, rest []*waiting
	for _, w := range b.queue {
		if id := w.u.Session.GetId(); len(batch) < maxBatch && !seen[id] {
			seen[id] = true
			batch = append(batch, w)
		} else {
			rest = append(rest, w)
		}
	}
	b.queue = rest
	return batch
}

func (b *Batcher) commit(ctx context.Context, batch []*waiting) {
	ctx, cancel := context.WithTimeout(ctx, batchWait)
	defer cancel()
	updates := make([]*Update, len(batch))
	for i, w := range batch {
		updates[i] = w.u
	}
	each, err := b.Commit(ctx, updates)
	if err != nil && len(batch) > 1 {
		// One of them may be what cannot be kept; the others must not suffer from it. Where
		// the time is up each fails by itself, and nobody is told what was said of another.
		for _, w := range batch {
			b.commit(ctx, []*waiting{w})
		}
		return
	}
	for i, w := range batch {
		switch {
		case err != nil:
			w.done <- err
		case len(each) != len(batch):
			w.done <- errors.New("index: a batch was answered in part")
		default:
			w.done <- each[i]
		}
	}
}
