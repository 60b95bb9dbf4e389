package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"
)

// backendKey is what cancels a statement at the target. It never reaches the client,
// who has a key of our own.
type backendKey struct {
	pid    uint32
	secret []byte
}

const cancelCode = 80877102

// cancelTime bounds a cancel request to the target.
const cancelTime = 3 * time.Second

// onCancel deals with the client's wish to cancel what runs or waits. The target drops
// a cancel that overtakes its statement, so that it is repeated while the same statement
// is still under way.
func (c *conn) onCancel() {
	c.mu.Lock()
	holding := c.holding
	victim, running := c.running()
	c.mu.Unlock()
	if holding != nil {
		holding(errCancelled)
		return
	}
	for try := 0; running && try < cancelTries; try++ {
		if try > 0 && !c.pause(cancelPause) {
			return
		}
		c.mu.Lock()
		now, still := c.running()
		running = still && now == victim && !c.cancelling
		if running {
			c.cancelling, c.cancelSent = true, true
		}
		c.mu.Unlock()
		if running {
			c.cancelTarget()
			c.cancelled()
		}
	}
}

const (
	cancelTries = 4
	cancelPause = 50 * time.Millisecond
)

// running says which segment the target is at. The caller holds mu.
func (c *conn) running() (segment uint64, ok bool) {
	if e := c.q.first(); e != nil {
		return e.segment, true
	}
	return 0, false
}

// pause waits, and reports whether the session still lives.
func (c *conn) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.s.Context().Done():
		return false
	}
}

// startCancel cancels what the target runs. Nothing is sent until that has been
// delivered, so that it cannot hit a later statement. The caller holds mu.
func (c *conn) startCancel() {
	if c.cancelling || c.q.n == 0 || c.q.first().cancelled {
		return
	}
	c.cancelling, c.cancelSent, c.q.first().cancelled = true, true, true
	c.group.Go("cancel", func(context.Context) error {
		c.cancelTarget()
		c.cancelled()
		return nil
	})
}

// cancelled lets the client's pump go on after a cancel was delivered.
func (c *conn) cancelled() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cancelling = false
	c.signal()
}

// quell stops what the target runs when the session ends: otherwise it would finish,
// and commit, what nobody waits for. It goes on until the target has said that it
// stopped, for a cancel that overtakes its statement is dropped.
func (c *conn) quell() {
	for range cancelTries {
		c.cancelTarget()
		if c.stopped() {
			return
		}
	}
}

// stopped reports whether the target says, within cancelPause, that it stopped, or has gone.
// Once a kill has closed the connection nobody can say so.
func (c *conn) stopped() bool {
	_ = c.target.SetReadDeadline(time.Now().Add(cancelPause))
	for {
		typ, _, err := readMessage(c.target, c.e.limits.Message)
		switch {
		case errors.Is(err, net.ErrClosed):
			<-time.After(cancelPause)
			return false
		case err != nil:
			return !isTimeout(err)
		case typ == 'E' || typ == 'Z':
			return true
		}
	}
}

// cancelTarget sends the target's own cancel request and waits until it was taken. It
// also works while the session ends.
func (c *conn) cancelTarget() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.s.Context()), cancelTime)
	defer cancel()
	if err := c.e.sendCancel(ctx, c); err != nil {
		c.log.Warn("cancel did not reach the resource", "error", err)
	}
}

func (e *Engine) sendCancel(ctx context.Context, c *conn) error {
	nc, err := c.s.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	deadline, _ := ctx.Deadline()
	if err := nc.SetDeadline(deadline); err != nil {
		return err
	}
	secured, err := secure(ctx, nc, c.terms.TLS, nil)
	if err != nil {
		return err
	}
	msg := binary.BigEndian.AppendUint32(nil, uint32(12+len(c.login.key.secret))) //nolint:gosec // at most 256
	msg = binary.BigEndian.AppendUint32(msg, cancelCode)
	msg = binary.BigEndian.AppendUint32(msg, c.login.key.pid)
	if _, err := secured.Write(append(msg, c.login.key.secret...)); err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(secured, 1<<10)) // closed once it was delivered
	return nil
}
