package fleet

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// A Proxy is a wire that can be cut: it passes TCP on to a target, slowly, or not at all.
// It is safe for concurrent use.
type Proxy struct {
	Addr   string
	target string
	ln     net.Listener
	group  *run.Group

	mu    sync.Mutex
	rate  int // bytes a second in each direction of a connection; 0 is no bound
	cut   bool
	conns map[net.Conn]struct{}
}

// NewProxy listens before a target until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := listen()
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
	both := run.New(ctx)
	both.Go("up", func(ctx context.Context) error { p.pump(ctx, server, client); return io.EOF })
	both.Go("down", func(ctx context.Context) error { p.pump(ctx, client, server); return io.EOF })
	<-both.Context().Done()
	_, _ = client.Close(), server.Close()
	_ = both.Wait()
}

// pump copies small pieces, each after the time that it would take.
func (p *Proxy) pump(ctx context.Context, to, from net.Conn) {
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
