package h1

import (
	"net"
	"sync"
	"time"
)

// A taker is the connection to a client, which has to take what is written to it: a Write
// waits for no longer than its limit. The bound is of one part, so that an answer may take as
// long to come as it likes, and to go as long as its client keeps reading.
type taker struct {
	net.Conn
	limit time.Duration

	mu  sync.Mutex
	set bool      // there is a deadline of somebody else's, which stands
	due time.Time // of the Write that is under way or comes next; zero where nobody knows
}

func (t *taker) NetConn() net.Conn { return t.Conn }

// maxPart is how much has to be taken within the limit, in bytes.
const maxPart = 36 << 10

// Write fails with os.ErrDeadlineExceeded once the client has not taken a part in time.
func (t *taker) Write(p []byte) (n int, err error) {
	for more := true; more && err == nil; more = n < len(p) {
		if err = t.bound(); err == nil {
			var k int
			k, err = t.Conn.Write(p[n:min(len(p), n+maxPart)])
			n += k
		}
	}
	return n, err
}

// bound moves the deadline on. As with reading, one that is little sooner is left.
func (t *taker) bound() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	due := time.Now().Add(t.limit)
	if sooner := due.Sub(t.due); t.set || sooner >= 0 && sooner <= t.limit/16 {
		return nil
	}
	t.due = due
	return t.Conn.SetWriteDeadline(due)
}

// SetWriteDeadline ends all that is written later, in the place of the bound; the zero time
// brings that back.
func (t *taker) SetWriteDeadline(at time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set, t.due = !at.IsZero(), time.Time{}
	return t.Conn.SetWriteDeadline(at)
}

func (t *taker) SetDeadline(at time.Time) error {
	if err := t.SetReadDeadline(at); err != nil {
		return err
	}
	return t.SetWriteDeadline(at)
}

// moved is told when the socket has become a loop's, which knows of no deadline.
func (t *taker) moved() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due = time.Time{}
}
