package engine

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
)

// AskCertificate makes a listener's configuration ask clients for a grant certificate
// while cas knows who signs those. What is shown is for the Door to verify, so that its
// refusal comes in the protocol's own form; TLS has proved that the client holds the
// key. Clients of TLS 1.2 are not asked: they would show it to everybody on the way.
// It is the last change of c, which must not be changed later.
func AskCertificate(c *tls.Config, cas func() *x509.CertPool) {
	if cas == nil {
		return
	}
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		pool := cas()
		if pool == nil || !slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
			return nil, nil
		}
		asking := c.Clone()
		asking.ClientAuth, asking.ClientCAs = tls.RequestClientCert, pool
		return asking, nil
	}
}

// Shown is the DER of the certificate that a client showed, or nil.
func Shown(s tls.ConnectionState) []byte {
	if s.Version < tls.VersionTLS13 || len(s.PeerCertificates) == 0 {
		return nil
	}
	return s.PeerCertificates[0].Raw
}
