// Package listen accepts connections and hands each to its engine, off the accept loop.
// It bounds how many there are and drains them; the handshake, TLS included, is the
// engine's own.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/run"
)

// DefaultMaxConns bounds the connections of one listener, so that a flood ends here and
// not in memory.
const DefaultMaxConns = 20_000

// fullEvery is how often operators are told that a listener is full.
const fullEvery = 10 * time.Second

// Config says where to listen and who serves.
type Config struct {
	Addr     string // host:port; port 0 takes a free one
	Engine   engine.Engine
	Door     engine.Door
	MaxConns int // 0 means DefaultMaxConns
	Logger   *slog.Logger
}

// A Listener is one bound socket of one protocol.
type Listener struct {
	cfg   Config
	ln    net.Listener
	conns atomic.Int64

	mu       sync.Mutex
	draining bool
}

// New binds the socket, so that the address is known before Run.
func New(cfg Config) (*Listener, error) {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", cfg.Engine.Protocol(), err)
	}
	return &Listener{cfg: cfg, ln: ln}, nil
}

// Addr is the bound address.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Run accepts until ctx is done, then ends every connection and waits for it.
func (l *Listener) Run(ctx context.Context) error {
	g := run.New(ctx)
	stop := context.AfterFunc(g.Context(), func() { _ = l.ln.Close() })
	defer stop()
	g.Go("accept", func(ctx context.Context) error { return l.accept(ctx, g) })
	return g.Wait()
}

func (l *Listener) accept(ctx context.Context, g *run.Group) error {
	var delay time.Duration
	refused, told := 0, time.Time{} // of who finds it full, until operators were told
	for {
		c, err := l.ln.Accept()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			// Drained: the socket is closed and the connections go on.
			<-ctx.Done()
			return ctx.Err()
		case err != nil:
			// Out of descriptors, most likely: what is open goes on, and so do we.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			l.cfg.Logger.Warn("accept failed", "protocol", l.cfg.Engine.Protocol(), "error", err, "retry_in", delay)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(delay):
			}
			continue
		}
		delay = 0
		if l.conns.Add(1) > int64(l.cfg.MaxConns) {
			l.conns.Add(-1)
			_ = c.Close()
			if refused++; time.Since(told) > fullEvery {
				l.cfg.Logger.Warn("listener is full", "protocol", l.cfg.Engine.Protocol(), "max_conns", l.cfg.MaxConns, "refused", refused)
				refused, told = 0, time.Now()
			}
			continue
		}
		g.Go("connection", func(ctx context.Context) error {
			defer l.conns.Add(-1)
			l.serve(ctx, c)
			return nil
		})
	}
}

// serve keeps a panic of one connection to that connection.
func (l *Listener) serve(ctx context.Context, c net.Conn) {
	defer func() {
		if v := recover(); v != nil {
			_ = c.Close()
			l.cfg.Logger.Error("connection panicked", "protocol", l.cfg.Engine.Protocol(), "panic", fmt.Sprint(v))
		}
	}()
	ctx, span := otel.Tracer("postern/listen").Start(ctx, "connection", trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("postern.protocol", string(l.cfg.Engine.Protocol()))))
	defer span.End()
	err := l.cfg.Engine.Serve(ctx, c, l.cfg.Door)
	if p := (*run.Panic)(nil); errors.As(err, &p) {
		l.cfg.Logger.Error("connection panicked", "protocol", l.cfg.Engine.Protocol(), "panic", fmt.Sprint(p.Value))
		return
	}
	if err != nil && ctx.Err() == nil {
		l.cfg.Logger.Debug("connection ended", "protocol", l.cfg.Engine.Protocol(), "client", c.RemoteAddr(), "error", err)
	}
}

// Drain closes the socket; open connections go on.
func (l *Listener) Drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.draining {
		l.draining = true
		_ = l.ln.Close()
	}
}
