package postgres

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"testing"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
)

// TestClientCertificate: a certificate is shown in the place of a token, and then no
// token is asked for.
func TestClientCertificate(t *testing.T) {
	server, _ := serverCertificate(t)
	mine, _ := serverCertificate(t)
	known := x509.NewCertPool()
	var cas atomic.Pointer[x509.CertPool] // nil until the CA is known
	h := newHouse(t, func(c *Config) {
		c.TLS, c.AllowPlaintext = &tls.Config{Certificates: []tls.Certificate{server}, MinVersion: tls.VersionTLS12}, false
		c.ClientCAs = cas.Load
	})
	// secured speaks TLS, at once or after asking, and tells whether it was asked to show
	// a certificate.
	secured := func(t *testing.T, direct bool, version uint16, cert *tls.Certificate) (d *dialogue, asked bool) {
		t.Helper()
		d = h.dial(t)
		if !direct {
			d.send(packet(sslRequest, ""))
			if got := d.answer(); got != "S" {
				t.Fatalf("TLS: %q", got)
			}
		}
		tc := tls.Client(d.conn, &tls.Config{
			InsecureSkipVerify: true, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS12, MaxVersion: version, //nolint:gosec // the server is not what is tested
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if asked = true; cert == nil {
					return new(tls.Certificate), nil
				}
				return cert, nil
			},
		})
		d.conn = tc
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		return d, asked
	}
	believe := func(der []byte) { h.door.Set(func(p *enginetest.Policy) { p.Certificate = der }) }
	believe(mine.Certificate[0])

	t.Run("nothing is asked for while the CA is not known", func(t *testing.T) {
		d, asked := secured(t, false, tls.VersionTLS13, &mine)
		if got, _ := d.login(protocol30, startupBody); asked || got != "RRKZ" {
			t.Errorf("asked %v, then %s", asked, got)
		}
	})
	cas.Store(known)
	for what, direct := range map[string]bool{"after SSLRequest": false, "TLS at once": true} {
		t.Run(what, func(t *testing.T) {
			d, asked := secured(t, direct, tls.VersionTLS13, &mine)
			if got, body := d.login(protocol30, startupBody); !asked || got != "RKZ" || len(body) != 4 {
				t.Errorf("asked %v, then %s %q", asked, got, body)
			}
			if c := h.door.Claim(); string(c.Certificate) != string(mine.Certificate[0]) {
				t.Error("another certificate was claimed")
			}
			d, asked = secured(t, direct, tls.VersionTLS13, nil)
			if got, _ := d.login(protocol30, startupBody); !asked || got != "RRKZ" {
				t.Errorf("without a certificate: asked %v, then %s", asked, got)
			}
		})
	}
	t.Run("TLS 1.2 would show it on the way", func(t *testing.T) {
		d, asked := secured(t, false, tls.VersionTLS12, &mine)
		if got, _ := d.login(protocol30, startupBody); asked || got != "RRKZ" {
			t.Errorf("asked %v, then %s", asked, got)
		}
	})
	t.Run("one that is not believed is refused, and no token is asked for", func(t *testing.T) {
		other, _ := serverCertificate(t)
		d, _ := secured(t, false, tls.VersionTLS13, &other)
		if got, body := d.login(protocol30, startupBody); got != "E" || string(field(body, 'C')) != "28P01" {
			t.Errorf("%s %q", got, body)
		}
	})
	t.Run("a resumed connection shows what the first one proved", func(t *testing.T) {
		believe(mine.Certificate[0])
		cache := tls.NewLRUClientSessionCache(1)
		for i := range 2 {
			d := h.dial(t)
			tc := tls.Client(d.conn, &tls.Config{
				InsecureSkipVerify: true, ServerName: "node", NextProtos: []string{alpn}, ClientSessionCache: cache, //nolint:gosec // the server is not what is tested
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mine, nil },
			})
			d.conn = tc
			if err := tc.Handshake(); err != nil {
				t.Fatal(err)
			}
			if got, _ := d.login(protocol30, startupBody); got != "RKZ" || tc.ConnectionState().DidResume != (i == 1) {
				t.Errorf("%d: %s, resumed %v", i, got, tc.ConnectionState().DidResume)
			}
		}
	})
	t.Run("who does not hold the key is not let through TLS", func(t *testing.T) {
		stolen, _ := serverCertificate(t)
		stolen.Certificate = mine.Certificate // with another key
		d := h.dial(t)
		tc := tls.Client(d.conn, &tls.Config{
			InsecureSkipVerify: true, NextProtos: []string{alpn}, //nolint:gosec // the server is not what is tested
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &stolen, nil },
		})
		before := h.door.Opened()
		err := tc.Handshake() // the client's half is done before the server has looked
		if err == nil {
			var b [1]byte
			_, err = tc.Read(b[:])
		}
		if err == nil {
			t.Error("the listener speaks to a thief")
		}
		if h.door.Opened() != before {
			t.Error("a session was opened")
		}
	})
}
