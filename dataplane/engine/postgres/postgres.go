// Package postgres is the engine for PostgreSQL's protocol, version 3. It speaks to the
// client and to the target, turns Query, Parse, Bind and Execute into Statements and
// executions, and forwards what its session admits as whole spans. What was judged is
// what is sent; what was refused is replaced by something that fails at the target in
// the same way. Deciding, recording and lending are its session's.
package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	pgsql "github.com/posterngate/postern/pkg/sql/postgres"
)

// Config is what an Engine works with.
type Config struct {
	// TLS is the server side towards clients. Nil takes no TLS, and then no client at
	// all unless AllowPlaintext is set.
	TLS *tls.Config
	// ClientCAs are the CAs of grant certificates, nil while they are not known: clients
	// are then asked for none.
	ClientCAs func() *x509.CertPool
	// AllowPlaintext lets clients send their token over a connection without TLS.
	AllowPlaintext bool
	// Parser understands SQL; required.
	Parser pgsql.Parser
	// Loops carry the sessions' sockets; nil gives each direction a goroutine that reads.
	Loops  *pump.Loops
	Logger *slog.Logger
	Limits Limits
}

// Limits bound what an Engine takes from outside; zero values take the defaults.
type Limits struct {
	Handshake time.Duration // for the client's half of the handshake; 15 s
	Login     time.Duration // for opening the session and logging in; 30 s
	Prepare   time.Duration // for judging one text; 15 s
	Startup   int           // bytes of a startup packet; 10,000
	Token     int           // bytes of a password message; 16 KiB
	Message   int           // bytes of one message but for rows and COPY data; 16 MiB
	Names     int           // prepared statements and cursors of a session; 10,000
	Kept      int           // bytes of what is known of them, and of parameters; 64 MiB
	Pipeline  int           // messages under way; 10,000
	Underway  int           // bytes of what is known of their statements; 16 MiB, and one more
	Catalog   int           // bytes of a catalogue; 512 MiB
	MaskedRow int           // bytes of a row whose values are masked on their way; 16 MiB
}

func (l Limits) orDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	wait(&l.Handshake, 15*time.Second)
	wait(&l.Login, 30*time.Second)
	wait(&l.Prepare, 15*time.Second)
	set(&l.Startup, 10_000)
	set(&l.Token, 16<<10)
	set(&l.Message, 16<<20)
	set(&l.Names, 10_000)
	set(&l.Kept, 64<<20)
	set(&l.Pipeline, 10_000)
	set(&l.Underway, 16<<20)
	set(&l.Catalog, 512<<20)
	set(&l.MaskedRow, 16<<20)
	return l
}

// An Engine serves PostgreSQL clients. It is safe for concurrent use.
type Engine struct {
	cfg      Config
	limits   Limits
	tls      *tls.Config
	log      *slog.Logger
	catalogs *catalogs
	keys     *keyCache
	shelf    shelf
}

var _ engine.Engine = (*Engine)(nil)

// New makes an Engine.
func New(cfg Config) *Engine {
	e := &Engine{cfg: cfg, limits: cfg.Limits.orDefaults(), log: cfg.Logger, keys: newKeyCache()}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if cfg.TLS != nil {
		e.tls = cfg.TLS.Clone()
		e.tls.NextProtos = []string{alpn}
		engine.AskCertificate(e.tls, cfg.ClientCAs)
	}
	e.catalogs = &catalogs{engine: e, slots: map[string]*slot{}}
	return e
}

// Protocol is "postgres".
func (e *Engine) Protocol() postern.Protocol { return postern.Postgres }

// Serve speaks to one client until either side ends.
func (e *Engine) Serve(ctx context.Context, nc net.Conn, d engine.Door) error {
	defer func() { _ = nc.Close() }()
	var s engine.Session
	var c *conn
	err := run.Apart(func() (err error) { // it takes much more stack than what follows
		h, err := e.handshake(ctx, nc, d)
		if err != nil || h == nil {
			return err
		}
		octx, cancel := context.WithTimeout(ctx, e.limits.Login)
		s, err = d.Open(octx, h.claim)
		cancel()
		h.claim.Token.Wipe()
		if err != nil {
			s = nil
			return e.tell(h.conn, err)
		}
		c, err = e.session(ctx, s, h)
		return err
	})
	if c != nil {
		defer func() { _ = pump.HangUp(c.out.conn) }()
		defer c.tokens.wipe()
		if err == nil {
			err = c.run(ctx)
		}
	}
	if s != nil {
		s.Close(err)
	}
	return err
}

// session logs in at the target, and greets the client. The conn that it returns, also
// with an error, holds tokens.
func (e *Engine) session(ctx context.Context, s engine.Session, h *hello) (*conn, error) {
	if err := h.params.heldPath(s.Terms()); err != nil {
		return nil, e.tell(h.conn, err)
	}
	authenticated := false
	if s.Terms().Hold {
		if err := e.awaitSession(ctx, s, h); err != nil {
			return nil, e.tell(h.conn, err)
		}
		authenticated = true
	}
	lctx, cancel := context.WithTimeout(s.Context(), e.limits.Login)
	defer cancel()
	l, err := e.connect(lctx, s, h.params)
	if err == nil {
		_, err = e.catalogs.get(lctx, catalogKey(s.Terms()), s)
	}
	if err != nil {
		if l != nil {
			l.tokens.wipe()
			_ = l.Close()
		}
		if cause := context.Cause(s.Context()); cause != nil {
			err = cause
		}
		return nil, e.tell(h.conn, err)
	}
	c := newConn(e, s, l, h.conn)
	if err := c.greet(h, l, authenticated); err != nil {
		_ = l.Close()
		return c, fmt.Errorf("greet: %w", err)
	}
	return c, nil
}

// tell says a refusal in the protocol's own form; it is the end of the connection.
func (e *Engine) tell(c net.Conn, err error) error {
	r := postern.AsRefusal(err)
	_ = c.SetDeadline(time.Now().Add(lastWordsTime))
	if _, werr := c.Write(errorOf(r, "FATAL").append(nil, 'E')); werr != nil {
		return errors.Join(err, werr)
	}
	return err
}

// Explain makes the Statement for a text as a session would send it, so that it can be
// judged without being run. No account is borrowed for it: a schema named like the
// account is the one thing that it cannot resolve.
func (e *Engine) Explain(ctx context.Context, s engine.Session, text string) (*engine.Statement, error) {
	names := resolution{path: searchPath(s.Terms())}
	cat, err := e.catalogs.again(ctx, catalogKey(s.Terms()), s)
	if err != nil {
		return nil, err
	}
	return e.build(cat, names, nil, text), nil
}
