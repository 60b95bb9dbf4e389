package h1

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/pump"
)

// A Client asks one server, over as many connections as are needed at once, which it keeps
// for the requests that follow. It goes to none but that which Dial reaches, whatever host
// a request names. It is safe for concurrent use.
type Client struct {
	// Dial connects to the server, with TLS where it speaks that.
	Dial    func(ctx context.Context) (net.Conn, error)
	Head    int           // bytes of an answer's head
	Idle    int           // connections that are kept while nothing is asked
	IdleFor time.Duration // for which one is kept
	// Loops take the connections that are asked by what they carry; nil where none are.
	Loops *pump.Loops

	mu    sync.Mutex
	idle  []*link // the last was used last
	timer *time.Timer
}

var _ http.RoundTripper = (*Client)(nil)

// Sizes of what a connection reads and writes through.
const (
	readBuffer  = 16 << 10
	writeBuffer = 4 << 10
)

// A link is one connection to a server. It serves one request at a time.
type link struct {
	c    *Client
	nc   net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	head []byte // reused
	said string // the last head that was parsed, and may be again; empty where there is none
	last http.Response
	memo any // of said, for who asks

	since time.Time // when it was kept
	used  bool      // it has served a request before
	heard bool      // the server has begun to answer this one
}

// RoundTrip asks r and returns the head of the answer, whose Body must be closed. What r
// carries is written while the answer comes, unless r.GetBody says that it is in memory, and
// neither read nor used once the Body is closed, or an error returned; a trailer is not sent.
// A request that can be repeated is, once, where it met a connection that the server has just
// closed. Where the connection becomes another protocol's, the Body is an io.ReadWriteCloser.
// The header of an answer must not be changed, since the next one may have it too. What
// servers say is an *Error where none should guess what it means.
func (c *Client) RoundTrip(r *http.Request) (*http.Response, error) {
	for fresh := false; ; fresh = true {
		l, err := c.take(r.Context(), fresh)
		if err != nil {
			closeBody(r)
			return nil, err
		}
		resp, err := l.trip(r)
		if err == nil {
			return resp, nil
		}
		if !l.used || l.heard || !repeatable(r) {
			if r.Context().Err() != nil {
				err = context.Cause(r.Context())
			}
			return nil, err
		}
	}
}

// repeatable reports whether a request may be sent twice.
func repeatable(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return !carries(r) && r.Context().Err() == nil
	}
	return false
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close()
	}
}

// take is a connection for one request: one that was kept and is still good, or a new one.
func (c *Client) take(ctx context.Context, fresh bool) (*link, error) {
	for !fresh {
		c.mu.Lock()
		n := len(c.idle) - 1
		if n < 0 {
			c.mu.Unlock()
			break
		}
		l := c.idle[n]
		c.idle[n] = nil
		c.idle = c.idle[:n]
		c.mu.Unlock()
		if pump.Quiet(l.nc) { // what is not open, or has said what nobody asked, is of no use
			l.used, l.heard = true, false
			c.seat(ctx, l)
			return l, nil
		}
		_ = l.nc.Close()
	}
	pump.Off(ctx)
	nc, err := c.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return c.link(nc), nil
}

// seat gives who rides on a loop the connection beneath it; one that no loop takes would be
// waited for.
func (c *Client) seat(ctx context.Context, l *link) {
	by := pump.CarrierOf(ctx)
	switch {
	case by == nil || !by.Rides():
	case c.Loops != nil && c.Loops.Board(l.nc) == nil:
		pump.Seat(l.nc, by)
	default:
		by.Off()
	}
}

func (c *Client) link(nc net.Conn) *link {
	nc = pump.Wrap(nc)
	return &link{c: c, nc: nc, r: bufio.NewReaderSize(nc, readBuffer), w: bufio.NewWriterSize(nc, writeBuffer)}
}

// Keep takes a connection to the server on which nothing has been said yet.
func (c *Client) Keep(nc net.Conn) { c.keep(c.link(nc)) }

// keep takes back a connection whose request has been answered to the end.
func (c *Client) keep(l *link) {
	if l.r.Buffered() > 0 { // nobody asked for that
		_ = l.nc.Close()
		return
	}
	pump.Seat(l.nc, nil)
	l.since = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) >= c.Idle {
		_ = l.nc.Close()
		return
	}
	c.idle = append(c.idle, l)
	if c.timer == nil {
		c.timer = time.AfterFunc(c.IdleFor, c.expire)
	}
}

// expire closes what has been kept for too long, and looks again later.
func (c *Client) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := 0
	for old < len(c.idle) && time.Since(c.idle[old].since) >= c.IdleFor {
		_ = c.idle[old].nc.Close()
		old++
	}
	c.idle = append(c.idle[:0], c.idle[old:]...)
	c.timer = nil
	if len(c.idle) > 0 {
		c.timer = time.AfterFunc(c.IdleFor-time.Since(c.idle[0].since), c.expire)
	}
}

// CloseIdleConnections closes what is kept.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.idle {
		_ = l.nc.Close()
	}
	c.idle = nil
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}
