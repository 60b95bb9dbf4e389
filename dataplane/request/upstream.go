package request

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/dataplane/request/h1"
)

// What a session keeps of its way to a resource.
const (
	maxIdleConns  = 64
	idleConnFor   = 90 * time.Second
	maxAnswerHead = 256 << 10 // bytes
	tlsTimeout    = 10 * time.Second
)

// connect makes the ways to the resource. They dial through the session, which closes
// what they have opened when it ends.
func (v *Visit) connect() {
	plain := v.Terms().TLS.Mode == "disable"
	var secure *tls.Config
	var err error
	if !plain {
		secure, err = v.Terms().TLS.Client()
	}
	if secure != nil && v.Terms().HTTP.Auth == "certificate" {
		secure.GetClientCertificate = v.certificate
	}
	dial := func(ctx context.Context, versions ...string) (nc net.Conn, failed error) {
		defer func() { v.Reached(ctx, failed) }()
		if err != nil {
			return nil, err
		}
		if nc, failed = v.Dial(ctx); failed != nil {
			return nil, failed
		}
		nc = pump.NewFeed(nc, nil)
		if plain {
			return nc, nil
		}
		return shake(ctx, nc, secure, versions)
	}
	v.HTTP1 = &h1.Client{
		Dial: func(ctx context.Context) (net.Conn, error) { return dial(ctx, "http/1.1") },
		Head: maxAnswerHead, Idle: maxIdleConns, IdleFor: idleConnFor, Loops: v.book.Loops,
	}
	agreed := &way{one: v.HTTP1, turn: make(chan struct{}, 1), dial: func(ctx context.Context) (net.Conn, error) { return dial(ctx, "h2", "http/1.1") }}
	v.HTTP2 = &http.Transport{
		DialContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return agreed.take(ctx) },
		Protocols:      new(http.Protocols), DisableCompression: true,
		MaxIdleConns: maxIdleConns, MaxIdleConnsPerHost: maxIdleConns, IdleConnTimeout: idleConnFor, MaxResponseHeaderBytes: maxAnswerHead,
	}
	v.HTTP2.Protocols.SetHTTP2(true)
	v.HTTP2.Protocols.SetUnencryptedHTTP2(true)
	agreed.two = v.HTTP2
	v.Upstream = agreed
	if plain {
		v.Upstream = v.HTTP1
	}
}

// shake speaks TLS on a connection, which it closes where that fails.
func shake(ctx context.Context, nc net.Conn, secure *tls.Config, versions []string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	secure = secure.Clone()
	secure.NextProtos = versions
	t := tls.Client(nc, secure)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = nc.Close()
		return nil, err
	}
	return t, nil
}

// A way speaks the version of HTTP that the resource chose in its first handshake.
type way struct {
	one  *h1.Client
	two  *http.Transport
	dial func(ctx context.Context) (net.Conn, error) // offering both

	turn   chan struct{} // of one: guards what follows
	chosen http.RoundTripper
	spare  net.Conn // what it was chosen on, not used yet
}

// RoundTrip asks.
func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	via, err := w.choose(r.Context())
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	return via.RoundTrip(r)
}

func (w *way) choose(ctx context.Context) (http.RoundTripper, error) {
	if err := w.wait(ctx); err != nil {
		return nil, err
	}
	defer w.pass()
	if w.chosen != nil {
		return w.chosen, nil
	}
	nc, err := w.dial(ctx)
	if err != nil {
		return nil, err
	}
	if t, ok := nc.(*tls.Conn); ok && t.ConnectionState().NegotiatedProtocol == "h2" {
		w.chosen, w.spare = w.two, nc
		return w.chosen, nil
	}
	w.one.Keep(nc)
	w.chosen = w.one
	return w.chosen, nil
}

// take is a connection on which HTTP/2 is spoken.
func (w *way) take(ctx context.Context) (net.Conn, error) {
	if err := w.wait(ctx); err != nil {
		return nil, err
	}
	nc := w.spare
	w.spare = nil
	w.pass()
	if nc != nil {
		return nc, nil
	}
	return w.dial(ctx)
}

func (w *way) wait(ctx context.Context) error {
	select {
	case w.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *way) pass() { <-w.turn }

// certificate is the one that is lent, for one handshake. The resource must ask for it, or
// it would take the client for somebody else.
func (v *Visit) certificate(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	var out tls.Certificate
	err := v.Lend(r.Context(), engine.PurposeSession, func(c *engine.Credential) (err error) {
		out, err = tls.X509KeyPair(c.Certificate, c.PrivateKey.Reveal())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("the client certificate that is lent: %w", err)
	}
	return &out, nil
}

// Scheme is that of the resource.
func Scheme(t *engine.Terms) string {
	if t.TLS.Mode == "disable" {
		return "http"
	}
	return "https"
}
