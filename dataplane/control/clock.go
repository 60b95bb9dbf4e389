package control

import (
	"math"
	"sync"
	"time"

	"github.com/posterngate/postern/pkg/hole"
)

// A clock knows how old the node's policy may be, by the node's own monotonic clock
// alone. Each ping carries the time at which it was sent; its echo says how old the
// replica's view was when it answered. Counted from the sending, that never says less
// than is true, however long either way took.
type clock struct {
	base time.Time

	mu     sync.Mutex
	sent   time.Duration // of the last ping, since base
	fresh  time.Duration // everything committed by then is enforced; since base
	known  bool
	denied bool
}

func newClock() *clock { return &clock{base: time.Now()} }

// ping is the time to send.
func (c *clock) ping() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = time.Since(c.base)
	return int64(c.sent)
}

// echoed takes in the answer to a ping. The node must enforce everything that came
// before it on the stream. An echo of what was never sent is ignored.
func (c *clock) echoed(nanos int64, replica time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Duration(nanos)
	if at <= 0 || at > c.sent || replica < 0 {
		return
	}
	c.denied = false
	if hole.Is("clock-echo") {
		at = time.Since(c.base)
	}
	if fresh := at - replica; !c.known || fresh > c.fresh {
		c.fresh, c.known = fresh, true
	}
}

// forget begins anew: what was known was of another epoch.
func (c *clock) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known = false
}

// deny makes the policy endlessly old until the control plane answers again: it has
// said that this node may not serve.
func (c *clock) deny() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.denied = true
}

// staleness is how old the policy may be; the longest duration where nothing is known.
func (c *clock) staleness() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.known || c.denied {
		return math.MaxInt64
	}
	return time.Since(c.base) - c.fresh
}
