package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
)

// dialTimeout bounds the TCP connection to a resource.
const dialTimeout = 10 * time.Second

// Dial connects to the resource. The session owns the connection. It works until Close,
// after a kill too: what the session was running must be cancelled at the resource.
func (s *Session) Dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(s.terms.Host, strconv.Itoa(s.terms.Port)))
	if err != nil {
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: fmt.Sprintf("resource %q cannot be reached from node %s", s.terms.Resource, s.k.cfg.Node), Hint: "tell the operators", Cause: err}
	}
	owned := &conn{TCPConn: c.(*net.TCPConn)}
	if !s.adopt(owned) {
		_ = c.Close()
		return nil, errors.New("session: closed")
	}
	return owned, nil
}

// adopt makes a connection the session's, unless that has ended.
func (s *Session) adopt(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.conns == nil {
		s.conns = map[*conn]struct{}{}
	}
	s.conns[c] = struct{}{}
	c.owner.Store(s)
	return true
}

// A conn is a session's until somebody closes it, or it waits in a pool for the next one:
// a session of many requests makes many.
type conn struct {
	*net.TCPConn
	owner atomic.Pointer[Session]
	moved atomic.Pointer[func() error] // closes the socket, once a loop has taken it
}

var (
	_ pump.Bare  = (*conn)(nil)
	_ pump.Mover = (*conn)(nil)
)

// Bare lets pumps have the socket itself.
func (c *conn) Bare() *net.TCPConn { return c.TCPConn }

// Moved is told how the socket is closed from now on.
func (c *conn) Moved(hangUp func() error) { c.moved.Store(&hangUp) }

func (c *conn) Close() error {
	if s := c.owner.Load(); s != nil {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}
	return c.TCPConn.Close()
}

// hangUp closes the socket, whoever has it.
func (c *conn) hangUp() {
	if fn := c.moved.Load(); fn != nil {
		_ = (*fn)()
	}
	_ = c.TCPConn.Close()
}

func (s *Session) closeConns() {
	s.mu.Lock()
	conns := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range conns {
		c.hangUp()
	}
}

// disown takes a connection from a session that ends because its client has left.
func (s *Session) disown(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, mine := s.conns[c]; !mine || s.closed || s.ctx.Err() != nil {
		return false
	}
	delete(s.conns, c)
	c.owner.Store(nil)
	return true
}

// Connections are the addresses, with ports, from which this node is connected to a
// resource now.
func (k *Keeper) Connections(r postern.ResourceName) []string {
	var out []string
	for _, s := range k.live() {
		if s.terms.Resource != r {
			continue
		}
		s.mu.Lock()
		for c := range s.conns {
			out = append(out, c.LocalAddr().String())
		}
		s.mu.Unlock()
	}
	return append(out, k.waiting(r)...)
}
