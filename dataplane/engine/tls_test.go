package engine_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
)

// TestTLSTerms: a resource is known as its terms say, and not at all where they say nothing.
func TestTLSTerms(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	other := strangersCA(t)
	for name, c := range map[string]struct {
		terms engine.TLSTerms
		good  bool
	}{
		"nothing":           {engine.TLSTerms{}, false},
		"no mode":           {engine.TLSTerms{CA: own, ServerName: "example.com"}, false},
		"a mode of others":  {engine.TLSTerms{Mode: "require", CA: own, ServerName: "example.com"}, false},
		"disabled":          {engine.TLSTerms{Mode: "disable"}, false},
		"no PEM":            {engine.TLSTerms{Mode: "verify-ca", CA: []byte("x")}, false},
		"no name":           {engine.TLSTerms{Mode: "verify-full", CA: own}, false},
		"full":              {engine.TLSTerms{Mode: "verify-full", CA: own, ServerName: "example.com"}, true},
		"full, other name":  {engine.TLSTerms{Mode: "verify-full", CA: own, ServerName: "example.net"}, false},
		"full, other CA":    {engine.TLSTerms{Mode: "verify-full", CA: other, ServerName: "example.com"}, false},
		"chain, other name": {engine.TLSTerms{Mode: "verify-ca", CA: own, ServerName: "example.net"}, true},
		"chain, no name":    {engine.TLSTerms{Mode: "verify-ca", CA: own}, true},
		"chain, other CA":   {engine.TLSTerms{Mode: "verify-ca", CA: other, ServerName: "example.com"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := c.terms.Client()
			if err == nil {
				var conn *tls.Conn
				if conn, err = tls.Dial("tcp", srv.Listener.Addr().String(), cfg); err == nil {
					_ = conn.Close()
				}
			}
			if (err == nil) != c.good {
				t.Errorf("%+v: %v", c.terms, err)
			}
		})
	}
}

// strangersCA has signed for nobody.
func strangersCA(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
