package run

import (
	"context"
	"sync"
)

// Shared is work that is done once for all who ask for it before it begins: who comes while
// it is under way is part of the next. It is safe for concurrent use; the zero value is
// ready.
type Shared[T any] struct {
	mu   sync.Mutex
	turn chan struct{} // of one: whoever is in it works for all
	next *share[T]     // that nobody has begun
}

type share[T any] struct {
	done chan struct{}
	got  T
	err  error
}

// Do returns what work has found that began after Do was called, by whomever. Work gets a
// context that does not end with that of one of them. An end of ctx is what comes of the
// call, and stops nothing.
func (s *Shared[T]) Do(ctx context.Context, work func(context.Context) (T, error)) (T, error) {
	s.mu.Lock()
	if s.turn == nil {
		s.turn = make(chan struct{}, 1)
	}
	if s.next == nil {
		s.next = &share[T]{done: make(chan struct{})}
	}
	mine, turn := s.next, s.turn
	s.mu.Unlock()
	select {
	case <-mine.done:
	case turn <- struct{}{}:
		select {
		case <-mine.done: // what is next is for those who wait for it, if they still do
		default:
			s.work(context.WithoutCancel(ctx), mine, work)
		}
		<-turn
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
	return mine.got, mine.err
}

// work does mine, which nobody has begun; the turn is the caller's.
func (s *Shared[T]) work(ctx context.Context, mine *share[T], work func(context.Context) (T, error)) {
	s.mu.Lock()
	s.next = nil // it is mine: what is next begins in a turn, and this is the first since
	s.mu.Unlock()
	mine.err = caught(func() (err error) {
		mine.got, err = work(ctx)
		return err
	})
	close(mine.done)
}
