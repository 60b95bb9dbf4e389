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
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
)

// ca is a certificate that signs others, with its key.
type ca struct {
	cert *x509.Certificate
	key  crypto.Signer
	// Of those that have successors.
	name           string
	revision       int64
	created, signs time.Time
}

// houseCA names the CA of control plane and nodes.
const houseCA = "Postern CA"

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

// firstCA makes the CA of the house where there is none yet, nor a successor of it.
func (a *Authority) firstCA(ctx context.Context) error {
	entries, _, err := a.cfg.Store.List(ctx, Kind, "", 0)
	if err != nil || slices.ContainsFunc(entries, func(e store.Entry) bool { return isHouse(e.Name) }) {
		return err
	}
	k := store.Key{Kind: Kind, Name: caName}
	err = a.makeCA(ctx, k, caTemplate(houseCA), a.cfg.Now(), audit.Entry{Actor: "system", Action: "authority.create-" + caName})
	if isConflict(err) {
		return nil // another replica was first
	}
	return err
}

// isHouse reports whether a key in the store is a CA of control plane and nodes.
func isHouse(name string) bool { return name == caName || strings.HasPrefix(name, caPrefix) }

// openCA reads a CA, and makes it where there is none yet.
func (a *Authority) openCA(ctx context.Context, name string, tmpl *x509.Certificate) (*ca, error) {
	k := store.Key{Kind: Kind, Name: name}
	rec, err := a.read(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		now := a.cfg.Now()
		if err := a.makeCA(ctx, k, tmpl, now, audit.Entry{Actor: "system", Action: "authority.create-" + name}); err != nil && !isConflict(err) {
			return nil, err
		}
		rec, err = a.read(ctx, k) // another replica may have been first
	}
	if err != nil {
		return nil, err
	}
	return rec.ca(k.Name, 0)
}

// ca is the CA of a record.
func (r *record) ca(name string, revision int64) (*ca, error) {
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return nil, err
	}
	signer, ok := r.private.(crypto.Signer)
	if !ok || !samePublic(signer.Public(), cert.PublicKey) {
		return nil, errors.New("the stored key is not that of the stored certificate")
	}
	return &ca{cert: cert, key: signer, name: name, revision: revision, created: r.Created, signs: r.Signs}, nil
}

// makeCA stores a new CA, which signs from then on.
func (a *Authority) makeCA(ctx context.Context, k store.Key, tmpl *x509.Certificate, signs time.Time, e audit.Entry) error {
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
	return a.write(ctx, k, record{Created: now, Signs: signs, Certificate: der, private: key}, e)
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
