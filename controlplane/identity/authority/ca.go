package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"time"

	"github.com/posterngate/postern/controlplane/store"
)

// ca is a certificate that signs others, with its key.
type ca struct {
	cert *x509.Certificate
	key  crypto.Signer
}

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

// clientCATemplate is a CA that can vouch for clients and for no server.
func clientCATemplate() *x509.Certificate {
	tmpl := caTemplate("Postern grants CA")
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return tmpl
}

// openCA reads a CA, and makes it where there is none yet.
func (a *Authority) openCA(ctx context.Context, name string, tmpl *x509.Certificate) (*ca, error) {
	k := store.Key{Kind: Kind, Name: name}
	rec, err := a.read(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		if err := a.makeCA(ctx, k, tmpl); err != nil {
			return nil, err
		}
		rec, err = a.read(ctx, k)
	}
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(rec.Certificate)
	if err != nil {
		return nil, err
	}
	signer, ok := rec.private.(crypto.Signer)
	if !ok || !samePublic(signer.Public(), cert.PublicKey) {
		return nil, errors.New("the stored key is not that of the stored certificate")
	}
	return &ca{cert, signer}, nil
}

func (a *Authority) makeCA(ctx context.Context, k store.Key, tmpl *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := a.cfg.Now()
	tmpl.SerialNumber = newSerial()
	tmpl.NotBefore, tmpl.NotAfter = now.Add(-backdate), now.Add(caLifetime)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	err = a.write(ctx, k, record{Created: now, Signs: now, Certificate: der, private: key}, "authority.create-"+k.Name)
	if isConflict(err) {
		return nil // another replica was first
	}
	return err
}

// sign makes the certificate of an end, which begins at now but for the clocks that lag.
func (c *ca) sign(tmpl *x509.Certificate, key crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	tmpl.SerialNumber = newSerial()
	tmpl.NotBefore = now.Add(-backdate)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.BasicConstraintsValid = true
	if tmpl.NotAfter.After(c.cert.NotAfter) {
		tmpl.NotAfter = c.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, key, c.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// pool trusts the CA alone.
func (c *ca) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
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
