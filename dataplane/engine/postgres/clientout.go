package postgres

import (
	"net"
	"sync"
	"time"
)

// A clientOut is the way to the client, which both pumps and people's answers use. What
// is inserted goes between whole messages.
type clientOut struct {
	conn net.Conn

	mu      sync.Mutex
	mid     bool // the last write ended within a message
	pending []byte
}

// write sends p; mid says whether it ends within a message.
func (o *clientOut) write(p []byte, mid bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mid = true // until the whole of p is out
	if _, err := o.conn.Write(p); err != nil {
		return err
	}
	o.mid = mid
	if mid || len(o.pending) == 0 {
		return nil
	}
	_, err := o.conn.Write(o.pending)
	o.pending = nil
	return err
}

// insert sends whole messages now, or as soon as the message under way has ended.
func (o *clientOut) insert(p []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mid {
		o.pending = append(o.pending, p...)
		return nil
	}
	_, err := o.conn.Write(p)
	o.mid = err != nil
	return err
}

// last sends a final message, if the client can still understand one.
func (o *clientOut) last(p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mid {
		return
	}
	_ = o.conn.SetWriteDeadline(time.Now().Add(lastWordsTime))
	_, _ = o.conn.Write(p)
}
