// Package pump moves bytes between sockets and the core of an engine. A core is one
// direction of one connection: a step over unread bytes that never blocks and knows no
// socket. The pump reads for it, takes memory only while there is something to read,
// and runs what may block outside the step, so that another driver, such as one event
// loop for many connections, can carry the same cores.
package pump

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/wire"
)

// A Core is one direction of a connection. It is used by one goroutine at a time.
type Core interface {
	// Step looks at the unread bytes, deals with as many as it can, and returns how
	// many those were. It is called whenever there are new bytes and after a Park, then
	// perhaps with the same bytes as before. It must not keep in. ErrDone ends the pump
	// without an error.
	Step(in []byte) (n int, next Next, err error)
}

// Next is what a Core waits for.
type Next struct {
	// Bytes is how many unread bytes the next step hopes for in all; the core has
	// checked it against a limit. Zero asks for any.
	Bytes int
	// More asks for another step at once, with the bytes that are left: there is enough to
	// send first.
	More bool
	// Park, if not nil, is run before the next step, outside of it, and may block.
	Park func(ctx context.Context) error
	// Watch, if not nil, makes the pump go on reading while Park runs. It is shown the
	// unread bytes and says whether the peer gave up; then, or when the peer is gone,
	// the context of Park ends with cause ErrGone.
	Watch func(unread []byte) bool
	// Ashore, beside a Park, asks for steps that may wait: from now on none is on an event
	// loop.
	Ashore bool
}

var (
	// ErrDone is returned by a Core that has seen the end of the conversation.
	ErrDone = errors.New("pump: done")
	// ErrGone is the cause with which a parked wait ends when the peer has gone.
	ErrGone = errors.New("pump: the peer has gone")
)

// An OutError is why something that a step wrote could not be sent after it.
type OutError struct {
	Out net.Conn
	Err error
}

func (e *OutError) Error() string { return "write: " + e.Err.Error() }

// Unwrap is the reason.
func (e *OutError) Unwrap() error { return e.Err }

// Run reads from conn and steps core until the core is done, conn ends, or ctx does.
// The error is nil after ErrDone, io.EOF when the peer closed, the cause of ctx, an
// *OutError, or what the core returned. To end it from outside, cancel ctx and then call
// Poke. Run owns the read side and the read deadline of conn; it does not close it. Where
// loops have taken conn and all of outs, which are all that the core writes to, a loop
// does the steps.
func Run(ctx context.Context, conn net.Conn, core Core, outs ...net.Conn) error {
	p := &pump{conn: conn, core: core}
	pass := p.pass
	if f := feedOf(conn); f != nil {
		if p.raw, p.feed = f.raw, f; p.board(outs) {
			pass = func() error { return f.sock.ride(p) }
		}
	} else if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			p.raw = raw
		}
	}
	defer func() { wire.Put(p.buf) }()
	for {
		err := pass()
		for {
			if derr := p.drain(); err == nil {
				err = derr
			}
			if err != nil || p.next.Park == nil && !p.next.More {
				break
			}
			if p.next.Ashore {
				pass = p.pass
			}
			if p.next.Park != nil {
				err = p.park(ctx)
			}
			if err == nil {
				err = p.steps()
			}
		}
		switch {
		case errors.Is(err, ErrDone):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			// A poke: somebody wants the context or the socket looked at again.
			_ = conn.SetReadDeadline(time.Time{})
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		case err != nil:
			return err
		}
	}
}

// Poke wakes a pump that reads from conn, so that it looks at its context and reads
// again: a close that arrived together with data is noticed no later than that.
func Poke(conn net.Conn) { _ = conn.SetReadDeadline(time.Unix(1, 0)) }

type pump struct {
	conn net.Conn
	raw  syscall.RawConn // nil where there is no bare socket
	feed *Feed           // that conn is, or that is beneath it
	core Core
	buf  *wire.Buffer
	next Next

	// Where a loop does the steps:
	outs   []*sock
	to     []net.Conn    // what outs are beneath
	err    error         // why the loop has ended
	handed chan struct{} // the loop has handed the pump back
}

// board reports whether loops have taken everything.
func (p *pump) board(outs []net.Conn) bool {
	if p.feed.sock == nil {
		return false
	}
	for _, o := range outs {
		f := feedOf(o)
		if f == nil || f.sock == nil {
			p.outs = nil
			return false
		}
		p.outs = append(p.outs, f.sock)
	}
	p.to, p.handed = outs, make(chan struct{}, 1)
	return true
}

// drain waits until what steps on a loop wrote is on its way.
func (p *pump) drain() error {
	for i, o := range p.outs {
		if err := o.drain(); err != nil {
			return &OutError{p.to[i], err}
		}
	}
	return nil
}

// pass reads and steps until the core parks or something ends.
func (p *pump) pass() error {
	if p.raw != nil && rawReads {
		return p.passRaw()
	}
	for {
		space := p.space(wire.Small)
		n, err := p.conn.Read(space)
		if err := p.took(n, err); err != nil {
			return err
		}
		if p.next.Park != nil {
			return nil
		}
		if n == len(space) {
			p.widen()
		} else if p.buf.Len() == 0 && p.buf.Cap() > wire.Small {
			p.drop()
		}
	}
}

// took accounts for what a read gave, and steps.
func (p *pump) took(n int, err error) error {
	if n > 0 {
		p.buf.Wrote(n)
		if serr := p.steps(); serr != nil {
			return serr
		}
	}
	if err == nil && n == 0 {
		return io.ErrNoProgress
	}
	return err
}

// steps steps until the core waits for something, or what it wrote does.
func (p *pump) steps() error {
	for {
		if err := p.step(); err != nil || !p.next.More || p.stalled() {
			return err
		}
	}
}

func (p *pump) step() error {
	if p.buf == nil {
		return nil
	}
	n, next, err := p.core.Step(p.buf.Bytes())
	p.buf.Consume(n)
	p.next = next
	return err
}

func (p *pump) space(size int) []byte {
	if p.buf == nil {
		p.buf = wire.Get(size)
	}
	return p.buf.Space(p.next.Bytes)
}

// widen moves to a large buffer, once a small one was filled by one read.
func (p *pump) widen() {
	if p.buf.Cap() < wire.Large {
		large := wire.Get(wire.Large)
		p.buf.MoveTo(large)
		wire.Put(p.buf)
		p.buf = large
	}
}

// drop gives an empty buffer back while there is nothing to read.
func (p *pump) drop() {
	if p.buf != nil && p.buf.Len() == 0 {
		wire.Put(p.buf)
		p.buf = nil
	}
}

// park runs what may block, and meanwhile reads if the core asks for it.
func (p *pump) park(ctx context.Context) error {
	fn, watch := p.next.Park, p.next.Watch
	p.next = Next{}
	if watch == nil {
		return fn(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g := run.New(ctx)
	ended := make(chan struct{})
	var parked error
	g.Go("park", func(ctx context.Context) error {
		defer Poke(p.conn)
		defer close(ended)
		parked = fn(ctx)
		return nil
	})
	gone := p.watch(ended, watch)
	if gone != nil {
		cancel(ErrGone)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_ = p.conn.SetReadDeadline(time.Time{})
	if ctx.Err() != nil && gone == nil {
		return context.Cause(ctx)
	}
	if gone != nil {
		return gone
	}
	return parked
}

// watch reads until the parked function has ended, and returns why the peer is gone.
func (p *pump) watch(ended <-chan struct{}, gaveUp func([]byte) bool) error {
	for {
		select {
		case <-ended:
			return nil
		default:
		}
		if p.buf != nil && p.buf.Len() >= wire.Large {
			// The peer sends ahead without bounds; let it wait.
			<-ended
			return nil
		}
		n, err := p.conn.Read(p.space(wire.Small))
		if n > 0 {
			p.buf.Wrote(n)
			if gaveUp(p.buf.Bytes()) {
				return ErrGone
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case <-ended:
				return nil
			default:
				_ = p.conn.SetReadDeadline(time.Time{})
			}
			continue
		}
		if err != nil {
			return err
		}
	}
}
