package authority

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"
)

// caTemplate is a CA that signs certificates of ends alone.
func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
}

// houseCA is the CA of control plane and nodes.
func houseCA() *x509.Certificate { return caTemplate("Postern CA") }

// clientCA is a CA that can vouch for clients and for no server.
func clientCA() *x509.Certificate {
	tmpl := caTemplate("Postern grants CA")
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return tmpl
}

// newCA is the DER of a CA that vouches for itself.
func newCA(tmpl *x509.Certificate, key crypto.Signer, now time.Time) ([]byte, error) {
	tmpl.SerialNumber = newSerial()
	tmpl.NotBefore, tmpl.NotAfter = now.Add(-backdate), now.Add(caLifetime)
	return x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
}

// sign makes the certificate of an end, which begins at now but for the clocks that lag.
func (s *signer) sign(tmpl *x509.Certificate, key crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	tmpl.SerialNumber = newSerial()
	tmpl.NotBefore = now.Add(-backdate)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	if tmpl.NotAfter.After(s.cert.NotAfter) {
		tmpl.NotAfter = s.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, s.cert, key, s.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// pool trusts all CAs of a use.
func (a *Authority) pool(use string) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range a.trusted(use) {
		p.AddCert(c.cert)
	}
	return p
}

// newSerial is 127 random bits, so that serials are unique and never negative.
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

func samePublic(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}
