package request

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/dataplane/request/h1"
)

// Config is what a Server works with.
type Config struct {
	TLS            *tls.Config // of the listener; nil only where plaintext is allowed
	AllowPlaintext bool
	// Serve answers one request, which has been admitted nowhere yet; h is what its headers say.
	Serve func(w http.ResponseWriter, r *http.Request, h *Head, c *Conn)
	// Rides reports whether Serve waits for nothing but the client and the Visit's HTTP1,
	// or calls pump.Off before. Loops then carry it. Both may be nil.
	Rides  func(r *http.Request, h *Head) bool
	Loops  *pump.Loops
	Limits Limits
	Logger *slog.Logger
}

// Limits bound what a Server takes from outside; zero values take the defaults.
type Limits struct {
	Handshake time.Duration // for TLS, for the head of a request, and between two parts of its body; 30 s
	Idle      time.Duration // of a connection without requests; 3 min
	Session   time.Duration // of a session without requests whose task says nothing; 5 min
	Linger    time.Duration // of a session without connections; 5 s
	Taking    time.Duration // of a client that takes nothing of what is written to it; 5 min
	Head      int           // bytes of a request's head; 64 KiB
	Streams   int           // at once on a connection of HTTP/2; 128
}

func (l *Limits) defaults() {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&l.Handshake, 30 * time.Second}, {&l.Idle, 3 * time.Minute}, {&l.Session, 5 * time.Minute}, {&l.Linger, 5 * time.Second}, {&l.Taking, 5 * time.Minute}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if l.Head <= 0 {
		l.Head = 64 << 10
	}
	if l.Streams <= 0 {
		l.Streams = 128
	}
}

// A Server serves connections of requests. It is safe for concurrent use.
type Server struct {
	cfg  Config
	book Book
	http *http.Server
	// active is how many requests are under way.
	active atomic.Int64
}

// NewServer makes a Server.
func NewServer(cfg Config) *Server {
	cfg.Limits.defaults()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.TLS = Secure(cfg.TLS)
	s := &Server{cfg: cfg, book: Book{Idle: cfg.Limits.Session, Linger: cfg.Limits.Linger, Loops: cfg.Loops}}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: cfg.Limits.Handshake, IdleTimeout: cfg.Limits.Idle, MaxHeaderBytes: cfg.Limits.Head,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: cfg.Limits.Streams, SendPingTimeout: cfg.Limits.Idle, PingTimeout: cfg.Limits.Handshake, WriteByteTimeout: cfg.Limits.Taking},
		ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, of(nc))
		},
		ErrorLog: log.New(io.Discard, "", 0), // what clients do wrong is not worth a line each
	}
	return s
}

type connKey struct{}

// of finds the Conn below TLS.
func of(nc net.Conn) *Conn {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, _ := nc.(*socket)
	return c.conn
}

// A Conn is one client connection.
type Conn struct {
	s    *Server
	door engine.Door
	host *x509.Certificate // of the listener; nil without TLS

	mu     sync.Mutex
	visits map[*Visit]*stay
	closed bool
}

// A stay is the time of a connection and a session together.
type stay struct {
	ctx context.Context
	end func()
}

// Join finds or opens the session of a request, which must leave it.
func (c *Conn) Join(ctx context.Context, claim Claim) (*Visit, error) {
	b := &c.s.book
	v, err := b.join(ctx, c.door, claim)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, have := c.visits[v]; !have && !c.closed {
		if c.visits == nil {
			c.visits = map[*Visit]*stay{}
		}
		for old, s := range c.visits {
			if !b.left(old) {
				continue
			}
			if s != nil {
				s.end()
			}
			delete(c.visits, old) // and is not counted any more, which would keep nothing open
		}
		c.visits[v] = nil
		b.attach(v)
	}
	return v, nil
}

// Stay is a context that ends with the connection of a request of HTTP/1.1, and with its
// session, whose cause it then has. It is the same for all such requests: what one of them
// has beneath it must end with the request.
func (c *Conn) Stay(r *http.Request, v *Visit) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, have := c.visits[v]
	if s != nil {
		return s.ctx
	}
	ctx, end := Both(r.Context(), v)
	if have {
		c.visits[v] = &stay{ctx, end}
	}
	return ctx
}

// Both is a context that ends with parent, and with a session, whose cause it then has.
func Both(parent context.Context, v *Visit) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := context.AfterFunc(v.Context(), func() { cancel(context.Cause(v.Context())) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Leave ends a request's hold on its session.
func (c *Conn) Leave(v *Visit) { c.s.book.leave(v) }

func (c *Conn) close() {
	c.mu.Lock()
	c.closed = true
	visits := c.visits
	c.visits = nil
	c.mu.Unlock()
	for v, s := range visits {
		if s != nil {
			s.end()
		}
		c.s.book.detach(v)
	}
}

// socket is the client's connection; done is closed with it.
type socket struct {
	net.Conn
	r    *bufio.Reader
	conn *Conn
	once sync.Once
	done chan struct{}
}

// NetConn is what is beneath.
func (s *socket) NetConn() net.Conn { return s.Conn }

func (s *socket) Read(p []byte) (int, error) { return s.r.Read(p) }

func (s *socket) Close() error {
	defer s.once.Do(func() { close(s.done) })
	return s.Conn.Close()
}

// peeked is how many bytes tell TLS from plaintext.
const tlsHandshake = 0x16

// Serve speaks to one client until either side ends.
func (s *Server) Serve(ctx context.Context, nc net.Conn, d engine.Door) error {
	conn := &Conn{s: s, door: d}
	nc = pump.NewFeed(nc, nil)
	sock := &socket{Conn: nc, r: bufio.NewReaderSize(nc, 16<<10), conn: conn, done: make(chan struct{})}
	defer conn.close()
	defer func() { _ = sock.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = sock.Close() })
	defer stop()
	if err := nc.SetDeadline(time.Now().Add(s.cfg.Limits.Handshake)); err != nil {
		return err
	}
	first, err := sock.r.Peek(1)
	if err != nil {
		return fmt.Errorf("first byte: %w", err)
	}
	var served net.Conn = sock
	switch {
	case first[0] == tlsHandshake && s.cfg.TLS != nil:
		t := tls.Server(sock, s.cfg.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("handshake: %w", err)
		}
		served = t
		if conn.host, err = s.certificate(); err != nil {
			return err
		}
	case !s.cfg.AllowPlaintext && s.cfg.TLS != nil:
		_, _ = io.WriteString(nc, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\npostern: speak TLS to this listener\n  hint: use https\n")
		return errPlaintext
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	if t, ok := served.(*tls.Conn); !ok || t.ConnectionState().NegotiatedProtocol != "h2" {
		ctx := context.WithValue(ctx, connKey{}, conn)
		err = h1.Serve(ctx, served, h1.Config{
			Head: s.cfg.Limits.Head, Begin: s.cfg.Limits.Handshake, Idle: s.cfg.Limits.Idle, Stall: s.cfg.Limits.Handshake, Take: s.cfg.Limits.Taking,
			Loops: s.cfg.Loops, Board: s.busy, Rides: s.rides,
			Bad: func(w http.ResponseWriter, e *h1.Error) {
				Refuse(w, &http.Request{URL: &url.URL{}, Header: http.Header{}}, Bad(e.Reason))
			},
		}, s.http.Handler)
		return errors.Join(err, ignoreClosed(served.Close()))
	}
	err = s.http.Serve(&once{conn: served, done: sock.done})
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// crowd is how many requests must be under way at once for a loop to take a connection: one
// alone is answered sooner without.
const crowd = 4

func (s *Server) busy() bool { return s.active.Load() >= crowd }

func (s *Server) rides(r *http.Request, memo any) bool {
	h, ok := memo.(*Head)
	return ok && h.no == nil && s.cfg.Rides != nil && s.cfg.Rides(r, h)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// certificate is what the listener shows, by whose names it may be asked.
func (s *Server) certificate() (*x509.Certificate, error) {
	var c *tls.Certificate
	switch {
	case s.cfg.TLS.GetCertificate != nil:
		var err error
		if c, err = s.cfg.TLS.GetCertificate(&tls.ClientHelloInfo{SupportedVersions: []uint16{tls.VersionTLS13}}); err != nil {
			return nil, err
		}
	case len(s.cfg.TLS.Certificates) > 0:
		c = &s.cfg.TLS.Certificates[0]
	default:
		return nil, errors.New("request: the listener has no certificate")
	}
	if c.Leaf != nil {
		return c.Leaf, nil
	}
	return x509.ParseCertificate(c.Certificate[0])
}

// misdirected reports whether a request is for a host that this listener is not: on its
// way it may have been judged for another.
func (c *Conn) misdirected(r *http.Request) bool {
	host := strings.ToLower(r.Host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return c.host != nil && c.host.VerifyHostname(strings.Trim(host, "[]")) != nil
}

// once is a listener of one connection, which has gone when that has.
type once struct {
	conn net.Conn
	done chan struct{}
	gave bool
}

func (o *once) Accept() (net.Conn, error) {
	if !o.gave {
		o.gave = true
		return o.conn, nil
	}
	<-o.done
	return nil, net.ErrClosed
}

func (o *once) Close() error   { return nil }
func (o *once) Addr() net.Addr { return o.conn.LocalAddr() }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c, _ := r.Context().Value(connKey{}).(*Conn)
	s.active.Add(1)
	defer s.active.Add(-1)
	if r.ProtoMajor == 2 {
		one := &stream{ResponseWriter: w, limit: s.cfg.Limits.Taking}
		defer one.end()
		if r.Body != http.NoBody && !streams(r) {
			r.Body = &body{ReadCloser: r.Body, of: one, limit: s.cfg.Limits.Handshake}
		}
		w = one
	}
	h := c.head(w, r)
	if h.no != nil {
		Refuse(w, r, h.no)
		return
	}
	s.cfg.Serve(w, r, h, c)
}
