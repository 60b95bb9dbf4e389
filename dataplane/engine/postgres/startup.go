package postgres

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/pkg/wire"
)

// The codes of the first packet of a connection.
const (
	sslRequest    = 80877103
	gssRequest    = 80877104
	protocolMajor = 3
	protocol30    = protocolMajor << 16
)

// alpn names the protocol in TLS, for clients that begin with TLS at once.
const alpn = "postgresql"

// tlsHandshake is the first byte of a TLS connection.
const tlsHandshake = 0x16

// hello is what a client has said of itself.
type hello struct {
	conn   net.Conn
	claim  engine.Claim
	params startup
}

// handshake reads the client's half, up to its token. It returns nil where the
// connection was there to cancel something. Whatever is wrong, the client was told.
func (e *Engine) handshake(ctx context.Context, nc net.Conn, d engine.Door) (*hello, error) {
	if err := nc.SetDeadline(time.Now().Add(e.limits.Handshake)); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	h := &hello{conn: nc}
	err := e.negotiate(ctx, h, d)
	switch {
	case errors.Is(err, errCancelRequest):
		return nil, nil
	case err != nil:
		var r *postern.Refusal
		if errors.As(err, &r) {
			return nil, e.tell(h.conn, err)
		}
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return h, nil
}

var errCancelRequest = errors.New("postgres: a cancel request")

func (e *Engine) negotiate(ctx context.Context, h *hello, d engine.Door) error {
	encrypted, direct := false, false
	var first [1]byte
	if _, err := io.ReadFull(h.conn, first[:]); err != nil {
		return err
	}
	if first[0] == tlsHandshake {
		if e.tls == nil {
			return broken("this listener takes no TLS")
		}
		h.conn = &prefixed{Conn: h.conn, prefix: first[:]}
		encrypted, direct = true, true
		if err := e.startTLS(ctx, h, true); err != nil {
			return err
		}
	} else {
		h.conn = &prefixed{Conn: h.conn, prefix: first[:]}
	}
	// At most: GSS refused, TLS taken, the startup packet.
	for range 3 {
		packet, err := e.readStartup(h.conn)
		if err != nil {
			return err
		}
		switch code := binary.BigEndian.Uint32(packet); {
		case code == cancelCode:
			if len(packet) <= 8 || len(packet) > 4+4+256 {
				return errCancelRequest
			}
			if err := d.Cancel(ctx, packet[4:]); err != nil {
				return err
			}
			return errCancelRequest
		case code == gssRequest && !encrypted:
			_, err = h.conn.Write([]byte{'N'})
		case code == sslRequest && !encrypted && e.tls == nil:
			_, err = h.conn.Write([]byte{'N'})
		case code == sslRequest && !encrypted:
			if _, err = h.conn.Write([]byte{'S'}); err == nil {
				encrypted = true
				err = e.startTLS(ctx, h, false)
			}
		case code>>16 == protocolMajor:
			return e.identify(h, packet, encrypted)
		case direct && (code == sslRequest || code == gssRequest):
			return broken("the connection is encrypted already")
		default:
			return broken(fmt.Sprintf("unsupported frontend protocol %d.%d", code>>16, code&0xffff))
		}
		if err != nil {
			return err
		}
	}
	return broken("too many requests before the startup packet")
}

// startTLS takes the server's side. A client that begins with TLS must name the protocol.
func (e *Engine) startTLS(ctx context.Context, h *hello, named bool) error {
	feed := pump.NewFeed(h.conn, nil)
	if p, ok := h.conn.(*prefixed); ok {
		feed = pump.NewFeed(p.Conn, p.prefix)
	}
	tc := tls.Server(feed, e.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	h.conn = tc
	st := tc.ConnectionState()
	if named && st.NegotiatedProtocol != alpn {
		return broken("a connection that begins with TLS must negotiate the protocol " + alpn)
	}
	h.claim.Certificate = engine.Shown(st)
	return nil
}

// readStartup reads one packet of the time before messages have types.
func (e *Engine) readStartup(r io.Reader) ([]byte, error) {
	var l [4]byte
	if _, err := io.ReadFull(r, l[:]); err != nil {
		return nil, err
	}
	n := int64(binary.BigEndian.Uint32(l[:])) - 4
	if n < 4 || n > int64(e.limits.Startup) {
		return nil, broken((&wire.LimitError{What: "the startup packet", Limit: e.limits.Startup}).Error())
	}
	p := make([]byte, n)
	_, err := io.ReadFull(r, p)
	return p, err
}

// identify reads who the client says it is, and its token.
func (e *Engine) identify(h *hello, packet []byte, encrypted bool) error {
	if p, ok := h.conn.(*prefixed); ok && len(p.prefix) == 0 {
		h.conn = p.Conn // the bare socket again
	}
	params, unknown, err := decodeStartup(packet)
	if err != nil {
		return err
	}
	if binary.BigEndian.Uint32(packet) != protocol30 || len(unknown) > 0 {
		if _, err := h.conn.Write(negotiateVersion(unknown)); err != nil {
			return err
		}
	}
	if !encrypted && !e.cfg.AllowPlaintext && !hole.Is("wire-plaintext") {
		return &postern.Refusal{
			Code: postern.CodeNoGrant, Reason: "this listener takes encrypted connections only",
			Hint: "connect with sslmode=verify-full",
		}
	}
	if h.params, err = params.check(); err != nil {
		return err
	}
	h.claim.Protocol = postern.Postgres
	h.claim.Permission = params["user"]
	h.claim.Database = params["database"]
	h.claim.ClientAddress = h.conn.RemoteAddr().String()
	h.claim.ClientProgram = params["application_name"]
	if h.claim.Permission == "" {
		return &postern.Refusal{Code: postern.CodeNoGrant, Reason: "the connection does not say which task it is for", Hint: "connect with user=TASK.RESOURCE; `postern tasks` lists yours"}
	}
	if h.claim.Certificate != nil { // it rules alone: no token is asked for
		return nil
	}
	return e.readToken(h)
}

// readToken asks for the password, which is a token.
func (e *Engine) readToken(h *hello) error {
	if _, err := h.conn.Write([]byte{'R', 0, 0, 0, 8, 0, 0, 0, 3}); err != nil {
		return err
	}
	typ, body, err := readMessage(h.conn, e.limits.Token)
	var limit *wire.LimitError
	if errors.As(err, &limit) {
		return broken(limit.Error())
	}
	if err != nil {
		return err
	}
	if typ != 'p' || len(body) < 1 || body[len(body)-1] != 0 {
		return broken("expected a password message")
	}
	h.claim.Token = secret.New(body[:len(body)-1])
	return nil
}

// negotiateVersion tells a client that version 3.0 is spoken, and which options are not
// understood.
func negotiateVersion(unknown []string) []byte {
	b, at := begin(nil, 'v')
	b = binary.BigEndian.AppendUint32(b, protocol30)
	b = binary.BigEndian.AppendUint32(b, uint32(len(unknown))) //nolint:gosec // bounded by the startup packet
	for _, o := range unknown {
		b = appendCString(b, o)
	}
	return end(b, at)
}

// prefixed is a connection of which some bytes were read already.
type prefixed struct {
	net.Conn
	prefix []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.prefix = p.prefix[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
