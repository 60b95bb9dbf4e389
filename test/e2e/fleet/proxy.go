package fleet

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/ports"
)

// A Proxy is a wire that can be cut: it passes TCP on to a target, slowly, or not at all.
// It is safe for concurrent use.
type Proxy struct {
	Addr   string
	target string
	ln     net.Listener
	group  *run.Group

	mu    sync.Mutex
	rate  int           // bytes a second in each direction of a connection; 0 is no bound
	delay time.Duration // of every byte, in each direction
	cut   bool
	conns map[net.Conn]struct{}
}

// NewProxy listens before a target until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := ports.Listen()
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: ln.Addr().String(), target: target, ln: ln, group: run.New(context.Background()), conns: map[net.Conn]struct{}{}}
	p.group.Go("accept", func(context.Context) error {
		for {
			c, err := ln.Accept()
			if err != nil {
				return nil
			}
			p.group.Go("pass on", func(ctx context.Context) error { p.serve(ctx, c); return nil })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		p.Cut()
		p.group.Stop()
		_ = p.group.Wait()
	})
	return p
}

// Cut closes every connection, and those that come, until Heal.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut = true
	for c := range p.conns {
		_ = c.Close()
	}
}

// Heal ends Cut and Throttle.
func (p *Proxy) Heal() { p.set(0) }

// Delay makes every byte of connections that come take so much longer, in each direction.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Throttle passes on so many bytes a second.
func (p *Proxy) Throttle(bytesPerSecond int) { p.set(bytesPerSecond) }

func (p *Proxy) set(rate int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut, p.rate = false, rate
}

func (p *Proxy) bound() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rate
}

// keep remembers a connection so that Cut can close it; false where it is cut already.
func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut {
		p.conns[c] = struct{}{}
	}
	return !p.cut
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *Proxy) serve(ctx context.Context, client net.Conn) {
	defer p.forget(client)
	if !p.keep(client) {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer p.forget(server)
	if !p.keep(server) {
		return
	}
	p.mu.Lock()
	delay := p.delay
	p.mu.Unlock()
	both := run.New(ctx)
	for _, w := range []struct{ to, from net.Conn }{{server, client}, {client, server}} {
		to := io.Writer(w.to)
		if delay > 0 {
			late := &late{delay: delay, to: w.to, waiting: make(chan piece, 1024), over: make(chan struct{})}
			both.Go("late", func(ctx context.Context) error { late.run(ctx); return io.EOF })
			to = late
		}
		both.Go("pass on", func(ctx context.Context) error { p.pump(ctx, to, w.from); return io.EOF })
	}
	<-both.Context().Done()
	_, _ = client.Close(), server.Close()
	_ = both.Wait()
}

// late writes what it is given some time later, in order.
type late struct {
	delay   time.Duration
	to      net.Conn
	waiting chan piece
	over    chan struct{} // closed once nothing is written any more
}

type piece struct {
	at time.Time
	b  []byte
}

func (l *late) Write(b []byte) (int, error) {
	select {
	case l.waiting <- piece{time.Now().Add(l.delay), append([]byte(nil), b...)}:
		return len(b), nil
	case <-l.over:
		return 0, net.ErrClosed
	}
}

func (l *late) run(ctx context.Context) {
	defer close(l.over)
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-l.waiting:
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(p.at)):
			}
			if _, err := l.to.Write(p.b); err != nil {
				return
			}
		}
	}
}

// pump copies small pieces, each after the time that it would take.
func (p *Proxy) pump(ctx context.Context, to io.Writer, from net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		part := buf
		rate := p.bound()
		if rate > 0 {
			part = buf[:min(len(buf), max(1, rate/10))]
		}
		n, err := from.Read(part)
		if n > 0 {
			if rate > 0 {
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Duration(n) * time.Second / time.Duration(rate)):
				}
			}
			if _, err := to.Write(part[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
