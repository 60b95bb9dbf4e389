package h1

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posterngate/postern/dataplane/pump"
)

// Config bounds one connection.
type Config struct {
	Head  int           // bytes of a head
	Begin time.Duration // for a head to come, once it has begun
	Idle  time.Duration // between requests
	Stall time.Duration // between two parts of a body
	Take  time.Duration // for a client to take what one Write gives it, or the end of an answer
	// Bad answers what is no request; it may be nil.
	Bad func(w http.ResponseWriter, err *Error)
	// Loops carry the connection once Board says so, while it waits for a request, and while
	// one is answered for which Rides says so: its handler waits for nothing else than the
	// client and the connections of a Client, or calls pump.Off before. memo is what Memo
	// points to. All may be nil.
	Loops *pump.Loops
	Board func() bool
	Rides func(r *http.Request, memo any) bool
}

// watchAfter is when a request that is still being answered has its client watched.
const watchAfter = 100 * time.Millisecond

// maxDrain is how much of a body that nobody read is thrown away, so that the next request
// can be read.
const maxDrain = 256 << 10

// lingerTime is for how long a client may be silent that is sending a body which nobody wants.
const lingerTime = 500 * time.Millisecond

// A conn is one connection.
type conn struct {
	cfg  Config
	nc   *taker
	r    *bufio.Reader
	bw   *bufio.Writer
	w    *writer
	head []byte      // reused
	said *said       // by the last head
	hdr  http.Header // of answers, reused
	from string      // where the client is
	tls  *tls.ConnectionState
	by   *pump.Carrier      // nil where no loop may carry the connection
	due  atomic.Int64       // when reading ends that is under way or comes next, in Unix nanoseconds; 0 where nobody knows
	ctx  context.Context    // of all requests: a client that leaves ends the connection
	end  context.CancelFunc // of ctx

	seated bool // a loop carries it

	watching sync.Mutex    // guards what follows
	timer    *time.Timer   // begins the watch
	asked    bool          // there is a request that may be watched
	watched  chan struct{} // closed when the watch has ended; nil where it has not begun
}

// pools of what each connection needs while it is served.
var (
	readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 16<<10) }}
	writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 36<<10) }}
)

// Serve answers requests one after the other until either side ends; the caller closes nc.
// A handler must not change the header of a request, which others may have too. One that
// panics with http.ErrAbortHandler ends the connection in the middle of its answer, and closes
// it where the client could take that for the end.
func Serve(ctx context.Context, nc net.Conn, cfg Config, h http.Handler) (err error) {
	if cfg.Loops == nil || cfg.Board == nil || cfg.Rides == nil {
		return serveBy(ctx, nc, cfg, h, nil)
	}
	pump.Carry(func(by *pump.Carrier) {
		defer pump.Seat(nc, nil)
		err = serveBy(pump.With(ctx, by), nc, cfg, h, by)
	})
	return err
}

func serveBy(ctx context.Context, nc net.Conn, cfg Config, h http.Handler, by *pump.Carrier) error {
	c := &conn{by: by, cfg: cfg, nc: &taker{Conn: nc, limit: cfg.Take}, from: nc.RemoteAddr().String(), r: readers.Get().(*bufio.Reader), bw: writers.Get().(*bufio.Writer), hdr: http.Header{}}
	c.ctx, c.end = context.WithCancel(ctx)
	defer c.end()
	if t, ok := nc.(*tls.Conn); ok {
		s := t.ConnectionState()
		c.tls = &s
	}
	c.r.Reset(nc)
	c.bw.Reset(c.nc)
	hijacked := false
	defer func() {
		if !hijacked {
			c.r.Reset(nil)
			c.bw.Reset(nil)
			readers.Put(c.r)
			writers.Put(c.bw)
		}
	}()
	for {
		if c.seated {
			by.On()
		}
		r, err := c.next()
		rides := err == nil && by != nil && r.Body == http.NoBody && cfg.Rides(r, c.said.memo)
		if c.seated && !rides {
			by.Off()
		}
		if err != nil {
			return c.refuse(err)
		}
		again, err := c.answer(r, h)
		if c.w.hijacked {
			hijacked = true
			return err
		}
		if err != nil || !again {
			return err
		}
		if rides && !c.seated {
			c.seat()
		}
	}
}

// seat has a loop carry the connection from now on, if it is time for that.
func (c *conn) seat() {
	if c.cfg.Board() && c.cfg.Loops.Board(c.nc) == nil {
		pump.Seat(c.nc, c.by)
		c.seated = true
		c.due.Store(0) // the loop knows of no deadline
		c.nc.moved()
	}
}

// next reads the head of the next request.
func (c *conn) next() (*http.Request, error) {
	if c.r.Buffered() == 0 {
		if err := c.within(c.cfg.Idle); err != nil {
			return nil, err
		}
		if _, err := c.r.Peek(1); err != nil {
			return nil, err
		}
	}
	if b, _ := c.r.Peek(c.r.Buffered()); !bytes.Contains(b, headEnd) { // or it is there already
		if err := c.within(c.cfg.Begin); err != nil {
			return nil, err
		}
	}
	var err error
	if c.head, err = readHead(c.r, c.head[:0], c.cfg.Head); err != nil {
		return nil, err
	}
	r, said, err := parseHead(c.ctx, c.head, c.said)
	if err != nil {
		return nil, err
	}
	c.said = said
	r.RemoteAddr, r.TLS = c.from, c.tls
	clear(c.hdr)
	c.w = &writer{c: c, r: r, header: c.hdr, memo: &c.said.memo}
	r.Body = http.NoBody
	if r.ContentLength != 0 {
		b := &body{c: c, frames: frames{r: c.r, left: max(r.ContentLength, 0), chunked: r.ContentLength < 0}}
		if b.chunked {
			b.trailer = http.Header{}
			r.Trailer = b.trailer
		}
		r.Body = b
		switch expect := r.Header["Expect"]; {
		case len(expect) == 1 && strings.EqualFold(expect[0], "100-continue"):
			b.await = r.ProtoMinor == 1
		case len(expect) > 0:
			return nil, bad("it is not known what the client expects")
		}
	}
	delete(r.Header, "Expect")
	return r, nil
}

// within bounds the reading that comes next. A bound that stands and is at most a sixteenth
// sooner is left: to move it costs as much as to read.
func (c *conn) within(d time.Duration) error {
	now := time.Now()
	if sooner := now.Add(d).UnixNano() - c.due.Load(); sooner >= 0 && sooner <= int64(d/16) {
		return nil
	}
	return c.until(now.Add(d))
}

// until bounds reading, for whoever reads.
func (c *conn) until(t time.Time) error {
	due := int64(0)
	if !t.IsZero() {
		due = t.UnixNano()
	}
	c.due.Store(due)
	return c.nc.SetReadDeadline(t)
}

// answer has a request answered, and says whether another may follow.
func (c *conn) answer(r *http.Request, h http.Handler) (again bool, err error) {
	b, _ := r.Body.(*body)
	if b == nil { // else whoever reads it notices
		c.watch()
	}
	defer c.unwatch()
	if !c.handle(h, r) {
		if c.w.open {
			_ = pump.HangUp(c.nc) // TLS would say goodbye
		}
		return false, nil
	}
	if c.w.hijacked {
		return false, nil
	}
	c.unwatch()
	if err := c.w.finish(); err != nil {
		return false, err
	}
	if c.w.close {
		return false, nil
	}
	if b != nil && !b.ended {
		if errors.Is(b.err, errClosed) || b.closed.Load() {
			c.linger()
			return false, nil
		}
		if b.await || b.err != nil {
			return false, nil
		}
		_ = c.until(time.Now().Add(c.cfg.Stall))
		if _, err := io.Copy(io.Discard, io.LimitReader(&b.frames, maxDrain)); err != nil {
			return false, nil //nolint:nilerr // the client has its answer
		}
		if !b.ended {
			c.linger()
			return false, nil
		}
	}
	return true, nil
}

// linger lets a client that is still sending read the answer that it has been given, before
// the connection ends under it: many read nothing before they have sent all.
func (c *conn) linger() {
	for end := time.Now().Add(c.cfg.Stall); time.Now().Before(end); {
		_ = c.until(time.Now().Add(lingerTime))
		if _, err := c.r.Peek(1); err != nil {
			return
		}
		_, _ = c.r.Discard(c.r.Buffered())
	}
}

// handle is false where the answer was broken off.
func (c *conn) handle(h http.Handler, r *http.Request) (ok bool) {
	defer func() {
		if v := recover(); v != nil {
			if err, is := v.(error); !is || !errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			ok = false
		}
	}()
	h.ServeHTTP(c.w, r)
	return true
}

// watch notices a client that leaves while a request is being answered of which nothing is
// left to be read. It begins late, so that short requests do not pay for it.
func (c *conn) watch() {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.asked = true
	if c.timer == nil {
		c.timer = time.AfterFunc(watchAfter, c.look)
		return
	}
	c.timer.Reset(watchAfter)
}

// look is the watch. One that was begun for a request that is over may find the next one,
// which it then watches early.
func (c *conn) look() {
	c.watching.Lock()
	if !c.asked || c.watched != nil {
		c.watching.Unlock()
		return
	}
	if c.by != nil && !c.by.Evict() {
		c.timer.Reset(watchAfter)
		c.watching.Unlock()
		return
	}
	done := make(chan struct{})
	defer close(done)
	c.watched = done
	err := c.until(time.Time{})
	c.watching.Unlock()
	if err != nil {
		return
	}
	if _, err := c.r.Peek(1); err != nil {
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			c.end()
		}
	}
}

// unwatch ends the watch, so that the connection can be read again.
func (c *conn) unwatch() {
	c.watching.Lock()
	defer c.watching.Unlock()
	if !c.asked {
		return
	}
	c.asked = false
	c.timer.Stop()
	for c.watched != nil {
		_ = c.until(time.Unix(1, 0))
		select {
		case <-c.watched:
			c.watched = nil
		case <-time.After(time.Millisecond):
		}
	}
}

// refuse ends a connection, with an answer where the client has said something.
func (c *conn) refuse(err error) error {
	var e *Error
	if !errors.As(err, &e) {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	if c.cfg.Bad != nil {
		_ = c.nc.SetWriteDeadline(time.Now().Add(c.cfg.Begin))
		c.w = &writer{c: c, r: &http.Request{ProtoMinor: 1, Close: true, Header: http.Header{}}, header: http.Header{}}
		c.cfg.Bad(c.w, e)
		_ = c.w.finish()
	}
	return err
}
