package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/posterngate/postern/pkg/conf"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
)

// Bounds of the local listener.
const (
	localHandshake = 15 * time.Second
	renewBefore    = 2 * time.Minute // a grant that ends sooner is not used for a new connection
	maxLocalBody   = 64 << 10        // of a message in the handshake
)

// localDoor lets tools that know neither tokens nor TLS in through a loopback address:
// each connection goes to the nearest node that answers, with a grant token that is
// renewed as needed. It reads the handshake alone; after that bytes are passed on.
type localDoor struct {
	app *app
	api *api
	target
	ttl time.Duration

	mu    sync.Mutex
	token string
	until time.Time
}

// bindLocal binds a loopback address, which every user of the machine can reach, or,
// for a folder, a socket in it that only this user can.
func bindLocal(addr string) (net.Listener, error) {
	if filepath.IsAbs(addr) {
		if err := os.MkdirAll(addr, 0o700); err != nil {
			return nil, err
		}
		path := filepath.Join(addr, ".s.PGSQL.5432") // where libpq looks: host=FOLDER
		_ = os.Remove(path)                          // of a run before
		defer syscall.Umask(syscall.Umask(0o177))    // it is nobody else's from the first moment
		return net.Listen("unix", path)
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usage("--listen %q is neither host:port nor the absolute path of a folder", addr)
	}
	if !conf.Loopback(host) {
		return nil, usage("--listen takes a loopback address, such as 127.0.0.1:5432: everybody who reaches it acts as you")
	}
	return net.Listen("tcp", addr)
}

// listen serves until ctx is done. Who reaches the listener acts as the user: on a
// machine that others use too, a socket in a folder is the better choice.
func (a *app) listen(ctx context.Context, addr, permission string, ttl time.Duration) error {
	api, err := a.dial(ctx, false)
	if err != nil {
		return err
	}
	d := &localDoor{app: a, api: api, ttl: ttl}
	if d.target, err = a.resolve(ctx, api, permission); err != nil {
		return err
	}
	if d.protocol != "postgres" {
		return usage("--listen is for PostgreSQL, and %s speaks %s", d.resource, d.protocol)
	}
	if _, err := d.grant(ctx); err != nil { // so that what is wrong is told now
		return err
	}
	ln, err := bindLocal(addr)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.env.Stdout, "%s at %s, without a password; Ctrl-C ends it\n", d.user(), ln.Addr())
	g := run.New(ctx)
	g.Go("accept", func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
		defer stop()
		for {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			g.Go("connection", func(ctx context.Context) error {
				if err := d.serve(ctx, c); err != nil && ctx.Err() == nil {
					a.say("%s: %s", c.RemoteAddr(), err)
				}
				return nil
			})
		}
	})
	err = g.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// grant is a token with some life left.
func (d *localDoor) grant(ctx context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Until(d.until) > renewBefore {
		return d.token, nil
	}
	resp, err := d.api.grants.CreateGrant(ctx, connect.NewRequest(&apiv1.CreateGrantRequest{Task: d.task, Ttl: ttlOf(d.ttl)}))
	if err != nil {
		return "", err
	}
	d.token, d.until = resp.Msg.GetToken(), resp.Msg.GetGrant().GetEndTime().AsTime()
	return d.token, nil
}

// serve takes one connection through.
func (d *localDoor) serve(ctx context.Context, c net.Conn) error {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(localHandshake))
	start, err := d.startup(c)
	if err != nil {
		return err
	}
	node, err := d.open(ctx)
	if err != nil {
		return tellLocal(c, err)
	}
	defer node.Close()
	stopNode := context.AfterFunc(ctx, func() { _ = node.Close() })
	defer stopNode()
	_ = node.SetDeadline(time.Now().Add(localHandshake))
	switch start := start.(type) {
	case *pgproto3.CancelRequest:
		b, err := start.Encode(nil)
		if err != nil {
			return err
		}
		_, err = node.Write(b)
		return err
	case *pgproto3.StartupMessage:
		start.Parameters["user"] = d.user()
		if err := d.authenticate(ctx, node, start); err != nil {
			return tellLocal(c, err)
		}
	}
	if _, err := c.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 0}); err != nil { // AuthenticationOk
		return err
	}
	_ = c.SetDeadline(time.Time{})
	_ = node.SetDeadline(time.Time{})
	return splice(ctx, c, node)
}

// startup reads what a client says first; TLS is not offered, for the way is local.
func (d *localDoor) startup(c net.Conn) (pgproto3.FrontendMessage, error) {
	backend := pgproto3.NewBackend(c, c)
	backend.SetMaxBodyLen(maxLocalBody)
	for range 3 {
		m, err := backend.ReceiveStartupMessage()
		if err != nil {
			return nil, err
		}
		switch m.(type) {
		case *pgproto3.SSLRequest, *pgproto3.GSSEncRequest:
			if _, err := c.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		default:
			return m, nil
		}
	}
	return nil, errors.New("the client does not begin")
}

// open connects to the nearest node that answers, over TLS.
func (d *localDoor) open(ctx context.Context) (net.Conn, error) {
	nodes, err := d.app.nearest(ctx, d.api, d.resource, d.protocol)
	if err != nil {
		return nil, err
	}
	pool, err := d.app.pool()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, n := range nodes {
		c, err := dialTLS(ctx, n.addr, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})
		if err == nil {
			return c, nil
		}
		errs = append(errs, fmt.Errorf("node %s: %w", n.node.GetNode(), err))
	}
	return nil, errors.Join(errs...)
}

func dialTLS(ctx context.Context, addr string, cfg *tls.Config) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: probeTimeout}
	raw, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(localHandshake))
	request, err := (&pgproto3.SSLRequest{}).Encode(nil)
	if err == nil {
		_, err = raw.Write(request)
	}
	answer := make([]byte, 1)
	if err == nil {
		_, err = io.ReadFull(raw, answer)
	}
	if err == nil && answer[0] != 'S' {
		err = errors.New("it offers no TLS")
	}
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	cfg.ServerName = host
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}

// authenticate answers the node's question for a password with the token, up to and
// including AuthenticationOk; the rest of the greeting is the client's.
func (d *localDoor) authenticate(ctx context.Context, node net.Conn, start *pgproto3.StartupMessage) error {
	token, err := d.grant(ctx)
	if err != nil {
		return err
	}
	b, err := start.Encode(nil)
	if err != nil {
		return err
	}
	if _, err := node.Write(b); err != nil {
		return err
	}
	for {
		kind, body, err := message(node)
		if err != nil {
			return err
		}
		switch {
		case kind == 'R' && len(body) == 4 && body[3] == 3: // AuthenticationCleartextPassword
			if b, err = (&pgproto3.PasswordMessage{Password: token}).Encode(nil); err != nil {
				return err
			}
			if _, err := node.Write(b); err != nil {
				return err
			}
		case kind == 'R' && len(body) == 4 && body[3] == 0:
			return nil
		case kind == 'E':
			var e pgproto3.ErrorResponse
			if err := e.Decode(body); err != nil {
				return err
			}
			return refusedByNode{e}
		default:
			return fmt.Errorf("the node answered the login with a message %q", kind)
		}
	}
}

// message reads one message of the handshake, and not a byte more.
func message(r io.Reader) (kind byte, body []byte, err error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	n := int(uint32(head[1])<<24|uint32(head[2])<<16|uint32(head[3])<<8|uint32(head[4])) - 4
	if n < 0 || n > maxLocalBody {
		return 0, nil, fmt.Errorf("the node sent a message of %d bytes in the login", n)
	}
	body = make([]byte, n)
	_, err = io.ReadFull(r, body)
	return head[0], body, err
}

// refusedByNode is a node's own refusal, which the client is shown as it is.
type refusedByNode struct{ e pgproto3.ErrorResponse }

func (r refusedByNode) Error() string { return r.e.Message }

// tellLocal says in the protocol's form why a connection cannot be had.
func tellLocal(c net.Conn, err error) error {
	e := pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "58000", Message: "postern: " + err.Error()}
	var node refusedByNode
	if errors.As(err, &node) {
		e = node.e
	}
	if b, eerr := e.Encode(nil); eerr == nil {
		_, _ = c.Write(b)
	}
	return err
}

// splice passes bytes both ways until either side ends.
func splice(ctx context.Context, a, b net.Conn) error {
	g := run.New(ctx)
	pass := func(to, from net.Conn) func(context.Context) error {
		return func(context.Context) error {
			_, err := io.Copy(to, from)
			_ = to.Close() // the other direction ends too
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
	}
	g.Go("to node", pass(b, a))
	g.Go("to client", pass(a, b))
	return g.Wait()
}
