package http

import (
	"context"
	"sync"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// A patience bounds for how long a client takes nothing of an answer: one that does not
// read must not hold the resource's connection for ever, nor a session that has to end. Nil
// has no bound.
type patience struct {
	limit time.Duration
	cut   func() // ends a write that waits
	stop  func() bool
	timer *time.Timer

	mu   sync.Mutex
	late bool
	over bool
}

// newPatience bounds writes to the client, whose deadline until sets. It is over with ctx,
// too.
func newPatience(ctx context.Context, limit time.Duration, until func(time.Time) error) *patience {
	p := &patience{limit: limit, cut: func() { _ = until(time.Unix(1, 0)) }}
	p.stop = context.AfterFunc(ctx, p.lose)
	return p
}

// gives is told before a part is written, and took once it was.
func (p *patience) gives() {
	switch {
	case p == nil:
	case p.timer == nil:
		p.timer = time.AfterFunc(p.limit, p.lose)
	default:
		p.timer.Reset(p.limit)
	}
}

func (p *patience) took() {
	if p != nil && p.timer != nil {
		p.timer.Stop()
	}
}

// lose ends the write, unless the answer has ended.
func (p *patience) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.late = true
		p.cut()
	}
}

// end is told once nothing is written any more.
func (p *patience) end() {
	if p == nil {
		return
	}
	p.took()
	p.stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
}

// errUntaken is why an exchange ends whose client is there, and does not read.
var errUntaken = &postern.Refusal{Code: postern.CodeCancelled, Reason: "the client took nothing of the answer for too long"}

// why is the reason for which a write has failed: the given one where patience is not over.
func (p *patience) why(err error) error {
	if p == nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.late {
		return errUntaken
	}
	return err
}
