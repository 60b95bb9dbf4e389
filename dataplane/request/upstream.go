package request

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
)

// What a session keeps of its way to a resource.
const (
	maxIdleConns   = 64
	idleConnFor    = 90 * time.Second
	maxAnswerHead  = 256 << 10 // bytes
	tlsTimeout     = 10 * time.Second
	upstreamBuffer = 32 << 10
)

// connect makes the ways to the resource. They dial through the session, which closes
// what they have opened when it ends.
func (v *Visit) connect() {
	secure, err := verify(v.Terms())
	if v.Terms().HTTP.Auth == "certificate" {
		secure.GetClientCertificate = v.certificate
	}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if err != nil {
				return nil, err
			}
			return v.Dial(ctx)
		},
		TLSClientConfig: secure, ForceAttemptHTTP2: true, DisableCompression: true,
		MaxIdleConns: maxIdleConns, MaxIdleConnsPerHost: maxIdleConns, IdleConnTimeout: idleConnFor,
		TLSHandshakeTimeout: tlsTimeout, MaxResponseHeaderBytes: maxAnswerHead,
		ReadBufferSize: upstreamBuffer, WriteBufferSize: upstreamBuffer,
	}
	v.Upstream = t
	v.HTTP1 = t.Clone()
	v.HTTP1.ForceAttemptHTTP2 = false
	v.HTTP1.Protocols = new(http.Protocols)
	v.HTTP1.Protocols.SetHTTP1(true)
	v.HTTP2 = t.Clone()
	v.HTTP2.Protocols = new(http.Protocols)
	v.HTTP2.Protocols.SetHTTP2(true)
	v.HTTP2.Protocols.SetUnencryptedHTTP2(true)
}

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

// verify makes the configuration by which a resource is known.
func verify(t *engine.Terms) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.TLS.ServerName}
	if len(t.TLS.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(t.TLS.CA) {
			return c, errors.New("request: the CA of the resource cannot be read")
		}
	}
	switch t.TLS.Mode {
	case "disable", "", "verify-full":
	case "verify-ca":
		roots := c.RootCAs
		c.InsecureSkipVerify = true //nolint:gosec // all but the name is verified below
		c.VerifyConnection = func(s tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, cert := range s.PeerCertificates[1:] {
				between.AddCert(cert)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
			return err
		}
	default:
		return c, errors.New("request: the resource's TLS mode is not known")
	}
	return c, nil
}
