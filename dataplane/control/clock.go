package control

import (
	"math"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/posterngate/postern/pkg/hole"
)

// A clock knows how old the node's policy may be, by the node's own monotonic clock
// alone, and what the machine was suspended, for that clock stands still meanwhile. Each
// ping carries the time at which it was sent; its echo says how old the replica's view was
// when it answered. Counted from the sending, that never says less
// than is true, however long either way took.
type clock struct {
	base time.Time
	// suspended is how long the machine was, at the least and at the most, since an instant
	// that stays the same: to look takes a while.
	suspended func() (least, most time.Duration)
	before    time.Duration // what that was at base

	mu     sync.Mutex
	least  time.Duration // suspended since base, as far as it is known
	most   time.Duration
	ahead  time.Duration // how far wall time had gone on before the monotonic clock when it was looked at
	sent   time.Duration // of the last ping, since base
	fresh  time.Duration // everything committed by then is enforced; since base
	known  bool
	denied bool
}

// endless is as old as policy can be told to be.
const endless = 100 * 365 * 24 * time.Hour

// jump is how far wall time may go on before the monotonic clock, or fall behind, until it is
// looked whether the machine was suspended.
const jump = 100 * time.Millisecond

func newClock(suspended func() (least, most time.Duration)) *clock {
	before, _ := suspended()
	return &clock{base: time.Now(), suspended: suspended, before: before}
}

// ping is the time to send, rather too early than too late.
func (c *clock) ping() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look() // wall time may have been set back
	c.sent = c.now() - (c.most - c.least)
	return int64(c.sent)
}

// now is the time since base, rather too late than too early; c.mu is held. Statements ask for it, and suspension costs a
// system call: wall time, which goes on in a suspended machine, says when that is needed.
func (c *clock) now() time.Duration {
	at := time.Now()
	awake := at.Sub(c.base)
	ahead := time.Duration(at.UnixNano()-c.base.UnixNano()) - awake
	if (ahead - c.ahead).Abs() > jump {
		c.ahead = ahead
		c.look()
	}
	return awake + c.most
}

// look looks how long the machine was suspended; c.mu is held.
func (c *clock) look() {
	least, most := c.suspended()
	c.least, c.most = least-c.before, most-c.before
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
		at = c.now()
	}
	if fresh := at - min(replica, endless); !c.known || fresh > c.fresh {
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
	return c.now() - c.fresh
}

// suspended is how long the machine was suspended since it was started: the one clock is read
// before the other and behind it.
func suspended() (least, most time.Duration) {
	var first, all, last unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &first) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &all) != nil ||
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &last) != nil {
		return 0, 0 // no kernel that Go runs on is without them
	}
	return time.Duration(all.Nano() - last.Nano()), time.Duration(all.Nano() - first.Nano())
}
