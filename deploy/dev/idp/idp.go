// Package idp is the OIDC provider of the sample company: a real one, with discovery,
// authorization code with PKCE, device flow and refresh tokens, whose people have their
// names for passwords. It is for deploy/dev and tests alone.
package idp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// The public clients, each the audience of its tokens. SharedClient's tokens serve the
// API and listeners alike, which only a development house allows.
const (
	APIClient    = "postern-api"
	DataClient   = "postern-data"
	SharedClient = "postern"
	// WebClient is the client of the control plane's pages; its tokens serve nothing else.
	WebClient = "postern-web"
)

// TokenLifetime is how long ID tokens live.
const TokenLifetime = 24 * time.Hour

// Person is somebody who can sign in; the password is the name.
type Person struct {
	Name   string
	Email  string
	Groups []string
	Claims map[string]any // further claims of the ID token
}

// Provider serves OIDC under one issuer.
type Provider struct {
	issuer  string
	handler http.Handler
	storage *storage
}

// New makes a provider for people. The signing key is kept in keyFile, so that tokens
// stay good over restarts.
func New(issuer, keyFile string, people []Person) (*Provider, error) {
	key, err := loadKey(keyFile)
	if err != nil {
		return nil, fmt.Errorf("idp: signing key: %w", err)
	}
	st := newStorage(key, people)
	var crypt [32]byte
	if _, err := rand.Read(crypt[:]); err != nil {
		return nil, err
	}
	provider, err := op.NewProvider(&op.Config{
		CryptoKey: crypt, CodeMethodS256: true, GrantTypeRefreshToken: true,
		DeviceAuthorization: op.DeviceAuthorizationConfig{Lifetime: 10 * time.Minute, PollInterval: time.Second, UserFormPath: "/device", UserCode: op.UserCodeBase20},
	}, st, op.StaticIssuer(issuer), op.WithAllowInsecure()) // plain HTTP: the issuer is on loopback
	if err != nil {
		return nil, fmt.Errorf("idp: %w", err)
	}
	pages := &pages{storage: st, callback: op.AuthCallbackURL(provider), intercept: op.NewIssuerInterceptor(provider.IssuerFromRequest)}
	mux := http.NewServeMux()
	pages.mount(mux)
	mux.Handle("/", provider)
	return &Provider{issuer: issuer, handler: mux, storage: st}, nil
}

// Web tells where the control plane's pages are, so that people are sent back there.
func (p *Provider) Web(addr string) {
	p.storage.mu.Lock()
	defer p.storage.mu.Unlock()
	p.storage.web = addr + "/web/callback"
}

// Issuer is the issuer's URL.
func (p *Provider) Issuer() string { return p.issuer }

// ServeHTTP serves everything under the issuer.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	p.handler.ServeHTTP(w, r)
}

func loadKey(path string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(path)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s is not PEM", path)
	}
	return x509.ParseECPrivateKey(block.Bytes)
}

func makeKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func keyID(key *ecdsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return fmt.Sprintf("%x", sum[:8]), nil
}

var _ interface {
	op.Storage
	op.DeviceAuthorizationStorage
	op.CanSetUserinfoFromRequest
} = (*storage)(nil)

func notFound(what string) error { return fmt.Errorf("idp: no such %s", what) }

func newID() string { return rand.Text() }

// Health is always good: everything is in memory.
func (*storage) Health(context.Context) error { return nil }
