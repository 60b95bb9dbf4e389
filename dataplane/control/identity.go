package control

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// identityFile holds all that a node is, so that one rename replaces it whole.
const identityFile = "identity.json"

// maxIdentityBytes bounds the file.
const maxIdentityBytes = 1 << 20

// ErrNotEnrolled says that a directory holds no identity.
var ErrNotEnrolled = errors.New("control: this node is not enrolled: it needs a join token")

// An Identity is who a node is: its name, keys and certificates. They rotate; whoever
// asks gets the newest. It is safe for concurrent use.
type Identity struct {
	dir     string
	mu      sync.Mutex // held to change it
	current atomic.Pointer[material]
}

// stored is an identity as it is on disk. Certificates and CAs are PEM, keys PKCS #8
// DER; the HPKE key is raw.
type stored struct {
	Name              string            `json:"name"`
	Region            string            `json:"region"`
	Labels            map[string]string `json:"labels"`
	Endpoints         map[string]string `json:"endpoints"`
	CA                []byte            `json:"ca"`
	Certificate       []byte            `json:"certificate"`
	ServerCertificate []byte            `json:"serverCertificate"`
	Key               []byte            `json:"key"`
	// NextKey is the key of a renewal that was asked for. It is kept before the
	// question is sent: if the answer is lost, only this key gets it again.
	NextKey []byte `json:"nextKey,omitempty"`
	HPKEKey []byte `json:"hpkeKey"`
	// SSHHostKey stays for the node's life, so that clients which know it by itself are
	// not alarmed; the certificate, in wire form, is renewed with the others.
	SSHHostKey         []byte `json:"sshHostKey,omitempty"`
	SSHHostCertificate []byte `json:"sshHostCertificate,omitempty"`
}

// material is a stored identity, read.
type material struct {
	stored
	key            crypto.Signer
	client, server *tls.Certificate
	roots          *x509.CertPool
	hpke           *secret.PrivateKey
	host           []ssh.Signer // nil where the node enrolled before nodes had one
}

// LoadIdentity reads what Enrol has written to dir, or ErrNotEnrolled.
func LoadIdentity(dir string) (*Identity, error) {
	path := filepath.Join(dir, identityFile)
	text, err := secret.ReadFile(path, maxIdentityBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotEnrolled
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	defer clear(text)
	var s stored
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("read identity %s: %w", path, err)
	}
	m, err := read(s)
	if err != nil {
		return nil, fmt.Errorf("read identity %s: %w", path, err)
	}
	id := &Identity{dir: dir}
	id.current.Store(m)
	return id, nil
}

// read parses a stored identity and checks that its parts belong together.
func read(s stored) (*material, error) {
	m := &material{stored: s, roots: x509.NewCertPool()}
	if s.Name == "" {
		return nil, errors.New("the name is missing")
	}
	if !m.roots.AppendCertsFromPEM(s.CA) {
		return nil, errors.New("there is no CA certificate")
	}
	var err error
	if m.key, err = parseKey(s.Key); err != nil {
		return nil, err
	}
	if m.client, err = pair(s.Certificate, m.key); err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	if m.server, err = pair(s.ServerCertificate, m.key); err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	if m.hpke, err = secret.ParsePrivateKey(s.HPKEKey); err != nil {
		return nil, err
	}
	if len(s.SSHHostKey) > 0 {
		if m.host, err = hostSigners(s.SSHHostKey, s.SSHHostCertificate); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// pair is a certificate chain with the key that it must be for.
func pair(chain []byte, key crypto.Signer) (*tls.Certificate, error) {
	c := &tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		c.Certificate = append(c.Certificate, block.Bytes)
	}
	if len(c.Certificate) == 0 {
		return nil, errors.New("no certificate")
	}
	var err error
	if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
		return nil, err
	}
	if p, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !p.Equal(c.Leaf.PublicKey) {
		return nil, errors.New("the certificate is for another key")
	}
	return c, nil
}

func newKey() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("write a key: %w", err)
	}
	return key, der, nil
}

func parseKey(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the key cannot sign")
	}
	return signer, nil
}

// save writes the identity, whole or not at all, and makes it the current one. The
// caller holds mu.
func (id *Identity) save(s stored) error {
	m, err := read(s)
	if err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	if err := secret.ReplaceFile(filepath.Join(id.dir, identityFile), text); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	id.current.Store(m)
	return nil
}

// Name is the node's name.
func (id *Identity) Name() postern.NodeName { return postern.NodeName(id.current.Load().Name) }

// Region is where the node stands.
func (id *Identity) Region() string { return id.current.Load().Region }

// Roots are the CAs that sign the control plane's and the nodes' certificates.
func (id *Identity) Roots() *x509.CertPool { return id.current.Load().roots }

// HPKEKey is the key to which credentials are sealed. It stays for the node's life.
func (id *Identity) HPKEKey() *secret.PrivateKey { return id.current.Load().hpke }

// Signer signs recordings with the key of the node's current certificate: P-256, ECDSA.
func (id *Identity) Signer() crypto.Signer { return id.current.Load().key }

// ClientCertificate is a tls.Config.GetClientCertificate.
func (id *Identity) ClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return id.current.Load().client, nil
}

// ServerCertificate is a tls.Config.GetCertificate for the node's listeners.
func (id *Identity) ServerCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return id.current.Load().server, nil
}

// Expires is when the node's certificate ends.
func (id *Identity) Expires() time.Time { return id.current.Load().client.Leaf.NotAfter }

// serial names the current certificate.
func (id *Identity) serial() [sha256.Size]byte {
	return sha256.Sum256(id.current.Load().client.Certificate[0])
}
