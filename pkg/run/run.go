// Package run starts goroutines that are waited for. A panic becomes an error, the
// first error stops the rest, and its cause is kept. No other package has a bare go
// statement: whoever starts a goroutine waits for it.
package run

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

// A Part is one long-running piece of a process.
type Part struct {
	Name string
	// Run works until ctx is done, and then returns nil or ctx's error. A Part that
	// returns before that, with or without an error, ends its Group.
	Run func(ctx context.Context) error
}

// All runs the parts until ctx is done or one of them returns, stops the rest, and
// waits for them. The error is that of the part that ended it; nil when ctx ended it.
func All(ctx context.Context, parts ...Part) error {
	g := New(ctx)
	for _, p := range parts {
		g.Go(p.Name, func(ctx context.Context) error {
			if err := p.Run(ctx); err != nil {
				return err
			}
			if ctx.Err() == nil {
				return errors.New("ended early")
			}
			return nil
		})
	}
	return g.Wait()
}

// A Group is a set of goroutines with one context.
type Group struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	once   sync.Once
	err    error
}

// New makes a Group whose goroutines end when parent does.
func New(parent context.Context) *Group {
	ctx, cancel := context.WithCancelCause(parent)
	return &Group{ctx: ctx, cancel: cancel}
}

// Context ends when the group does.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts fn. An error or a panic of fn ends the group; returning nil does not.
func (g *Group) Go(name string, fn func(ctx context.Context) error) {
	g.wg.Go(func() { g.call(name, fn) })
}

// Do is Go on the caller's own goroutine: it returns once fn has ended, and Wait tells
// what became of it.
func (g *Group) Do(name string, fn func(ctx context.Context) error) { g.call(name, fn) }

func (g *Group) call(name string, fn func(ctx context.Context) error) {
	err := caught(func() error { return fn(g.ctx) })
	if err != nil && !(g.ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		g.fail(fmt.Errorf("%s: %w", name, err))
	}
}

// Apart runs fn on a goroutine of its own and waits for it. What fn needs of stack is
// given back, where the caller would keep it for as long as it lives.
func Apart(fn func() error) (err error) {
	var wg sync.WaitGroup
	wg.Go(func() { err = caught(fn) })
	wg.Wait()
	return err
}

// A Panic is the error that a panic becomes.
type Panic struct {
	Value any
	Stack []byte
}

func (p *Panic) Error() string { return fmt.Sprintf("panic: %v\n%s", p.Value, p.Stack) }

// caught is what fn returns, or its panic.
func caught(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &Panic{v, debug.Stack()}
		}
	}()
	return fn()
}

// Stop ends the group without an error.
func (g *Group) Stop() { g.cancel(nil) }

func (g *Group) fail(err error) {
	g.once.Do(func() { g.err = err })
	g.cancel(err)
}

// Wait waits for every goroutine and returns the first error.
func (g *Group) Wait() error {
	g.wg.Wait()
	g.cancel(nil)
	return g.err
}
