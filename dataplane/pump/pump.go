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
	// Park, if not nil, is run before the next step, outside of it, and may block.
	Park func(ctx context.Context) error
	// Watch, if not nil, makes the pump go on reading while Park runs. It is shown the
	// unread bytes and says whether the peer gave up; then, or when the peer is gone,
	// the context of Park ends with cause ErrGone.
	Watch func(unread []byte) bool
}

var (
	// ErrDone is returned by a Core that has seen the end of the conversation.
	ErrDone = errors.New("pump: done")
	// ErrGone is the cause with which a parked wait ends when the peer has gone.
	ErrGone = errors.New("pump: the peer has gone")
)

// Run reads from conn and steps core until the core is done, conn ends, or ctx does.
// The error is nil after ErrDone, io.EOF when the peer closed, the cause of ctx, or
// what the core returned. To end it from outside, cancel ctx and then call Poke. Run
// owns the read side and the read deadline of conn; it does not close it.
func Run(ctx context.Context, conn net.Conn, core Core) error {
	p := &pump{conn: conn, core: core}
	if f := feedOf(conn); f != nil {
		p.raw, p.feed = f.raw, f
	} else if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			p.raw = raw
		}
	}
	defer func() { wire.Put(p.buf) }()
	for {
		err := p.pass()
		for err == nil && p.next.Park != nil {
			if err = p.park(ctx); err == nil {
				err = p.step()
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
		if serr := p.step(); serr != nil {
			return serr
		}
	}
	if err == nil && n == 0 {
		return io.ErrNoProgress
	}
	return err
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
