package http

import (
	"sync"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// A patience bounds for how long a client takes nothing of an answer: one that does not
// read must not hold the resource's connection for ever. Nil has no bound.
type patience struct {
	limit time.Duration
	cut   func() // ends a write that waits
	timer *time.Timer

	mu   sync.Mutex
	late bool
	over bool
}

// newPatience bounds writes to the client, on a connection that takes deadlines.
func (x *exchange) newPatience(until func(time.Time) error) *patience {
	return &patience{limit: x.e.server.Limits().Taking, cut: func() { _ = until(time.Unix(1, 0)) }}
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
