// Package authority holds the keys of the control plane: the CA that signs the
// certificates of control plane and nodes, another that signs grant certificates, so
// that neither sort can pass for the other, two more for hosts and grants of SSH, the
// keys that sign grants, and those that sign for resources who asks. Private keys live in
// the store sealed by a Keeper, and in memory; they never leave. Who may have a certificate
// is decided by the caller.
package authority

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
)

// Kind is the kind of keys in the store.
const Kind = "key"

const (
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
	cfg Config

	mu   sync.RWMutex
	keys map[string][]*signer // by use; by the time from which they sign, oldest first; never empty
}

// Open reads the keys, and makes those that are missing. Replicas that start at once
// agree on one set: the store takes the first and the others read it.
func Open(ctx context.Context, cfg Config) (*Authority, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &Authority{cfg: cfg}
	if err := a.openKeys(ctx); err != nil {
		return nil, fmt.Errorf("open the keys: %w", err)
	}
	return a, nil
}

// Kept is whether a store has keys already, which its Keeper alone can open.
func Kept(ctx context.Context, s store.Store) (bool, error) {
	entries, _, err := s.List(ctx, Kind, "", 1)
	return len(entries) > 0, err
}

// CA is the certificate of the CA that signs now; it must not be changed.
func (a *Authority) CA() *x509.Certificate { return a.current(UseNodes).cert }

// Bundle is the PEM text of the CAs to trust, the one that signs first.
func (a *Authority) Bundle() (text []byte) {
	for _, c := range a.trusted(UseNodes) {
		text = append(text, certPEM(c.cert.Raw)...)
	}
	return text
}

// Roots are the CAs of Bundle.
func (a *Authority) Roots() *x509.CertPool { return a.pool(UseNodes) }

// Pin is the hex SHA-256 of the CA certificate's DER, by which a node that knows
// nothing yet recognises the control plane.
func (a *Authority) Pin() string {
	sum := sha256.Sum256(a.CA().Raw)
	return hex.EncodeToString(sum[:])
}

// SignList signs a serialised EndpointList with the CA's key: ASN.1 ECDSA over the
// SHA-256 of "postern/endpoints/v1" and list.
func (a *Authority) SignList(list []byte) ([]byte, error) {
	h := sha256.New()
	h.Write([]byte("postern/endpoints/v1"))
	h.Write(list)
	return a.current(UseNodes).key.Sign(rand.Reader, h.Sum(nil), crypto.SHA256)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
