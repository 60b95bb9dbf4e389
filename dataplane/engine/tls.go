package engine

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// Client is how a client knows the resource over TLS. Mode disable has no such thing; it
// is an error, as a mode that is not known and a name or CA that is missing are. The
// caller owns what is returned.
func (t TLSTerms) Client() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if len(t.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(t.CA) {
			return nil, errors.New("the resource's CA holds no PEM certificate")
		}
	}
	switch t.Mode {
	case "verify-full":
		if t.ServerName == "" {
			return nil, errors.New("TLS mode verify-full needs a server name")
		}
	case "verify-ca":
		roots := c.RootCAs
		c.InsecureSkipVerify = true //nolint:gosec // the chain is verified here, and the name on purpose is not
		c.VerifyConnection = func(cs tls.ConnectionState) error { return verifyChain(cs, roots) }
	default:
		return nil, fmt.Errorf("TLS mode %q is none by which a resource is known", t.Mode)
	}
	return c, nil
}

// verifyChain verifies all of a peer but its name.
func verifyChain(cs tls.ConnectionState, roots *x509.CertPool) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the resource sent no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(o)
	return err
}
