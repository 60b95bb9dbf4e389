// Package authority holds the keys of the control plane: the CA that signs the
// certificates of control plane and nodes, and the keys that sign grants. Private keys
// live in the store sealed by a Keeper, and in memory; they never leave. Who may have a
// certificate is decided by the caller.
package authority

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
)

// Kind is the kind of keys in the store.
const Kind = "key"

const (
	caName     = "ca"
	caLifetime = 10 * 365 * 24 * time.Hour
	// backdate is how far before now certificates begin, for clocks that lag.
	backdate = 5 * time.Minute
)

// A Keeper seals small values at rest. The same aad must be given to open them.
type Keeper interface {
	Seal(ctx context.Context, plaintext, aad []byte) ([]byte, error)
	Open(ctx context.Context, sealed, aad []byte) ([]byte, error)
}

// A Committer makes changes together with the audit entry that tells of them.
type Committer interface {
	Commit(ctx context.Context, e audit.Entry, ops ...store.Op) (revision int64, err error)
}

// Config is what an Authority needs; everything but Now is required.
type Config struct {
	Store  store.Store
	Keeper Keeper
	Audit  Committer
	Now    func() time.Time // time.Now where nil
	Logger *slog.Logger
}

// Authority signs. It is safe for concurrent use.
type Authority struct {
	cfg   Config
	ca    *x509.Certificate
	caKey crypto.Signer

	mu     sync.RWMutex
	grants []grantKey // by the time from which they sign, oldest first
}

// Open reads the keys, and makes those that are missing. Replicas that start at once
// agree on one set: the store takes the first and the others read it.
func Open(ctx context.Context, cfg Config) (*Authority, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Authority{cfg: cfg}
	if err := a.openCA(ctx); err != nil {
		return nil, fmt.Errorf("open the CA: %w", err)
	}
	if err := a.openGrantKeys(ctx); err != nil {
		return nil, fmt.Errorf("open the grant keys: %w", err)
	}
	return a, nil
}

func (a *Authority) openCA(ctx context.Context) error {
	k := store.Key{Kind: Kind, Name: caName}
	rec, err := a.read(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		if err := a.makeCA(ctx, k); err != nil {
			return err
		}
		rec, err = a.read(ctx, k)
	}
	if err != nil {
		return err
	}
	if a.ca, err = x509.ParseCertificate(rec.Certificate); err != nil {
		return err
	}
	signer, ok := rec.private.(crypto.Signer)
	if !ok || !samePublic(signer.Public(), a.ca.PublicKey) {
		return errors.New("the stored key is not that of the stored certificate")
	}
	a.caKey = signer
	return nil
}

func (a *Authority) makeCA(ctx context.Context, k store.Key) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := a.cfg.Now()
	tmpl := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "Postern CA"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	err = a.write(ctx, k, record{Created: now, Signs: now, Certificate: der, private: key}, "authority.create-ca")
	var conflict *store.ConflictError
	if errors.As(err, &conflict) {
		return nil // another replica was first
	}
	return err
}

// CA is the certificate of the CA; it must not be changed.
func (a *Authority) CA() *x509.Certificate { return a.ca }

// Bundle is the PEM text of the CAs to trust.
func (a *Authority) Bundle() []byte { return certPEM(a.ca.Raw) }

// Pin is the hex SHA-256 of the CA certificate's DER, by which a node that knows
// nothing yet recognises the control plane.
func (a *Authority) Pin() string {
	sum := sha256.Sum256(a.ca.Raw)
	return hex.EncodeToString(sum[:])
}

// SignList signs a serialised EndpointList with the CA's key: ASN.1 ECDSA over the
// SHA-256 of "postern/endpoints/v1" and list.
func (a *Authority) SignList(list []byte) ([]byte, error) {
	h := sha256.New()
	h.Write([]byte("postern/endpoints/v1"))
	h.Write(list)
	return a.caKey.Sign(rand.Reader, h.Sum(nil), crypto.SHA256)
}

// newSerial is 127 random bits, so that serials are unique and never negative.
func newSerial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func samePublic(a, b crypto.PublicKey) bool {
	e, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && e.Equal(b)
}
