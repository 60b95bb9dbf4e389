package authority

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	// nodeLifetime is that of a node's certificates; nodes renew at half of it.
	nodeLifetime = 24 * time.Hour
	// serverLifetime is that of the control plane's own; renewed at half of it.
	serverLifetime = 30 * 24 * time.Hour
	// maxCSRBytes bounds a certificate request.
	maxCSRBytes = 8 << 10

	uriScheme  = "postern"
	nodeHost   = "node"
	controlURI = "postern://control"
)

// ParseCSR reads a certificate request: DER of PKCS #10, for a key of P-256 or
// Ed25519, signed by that key. What it asks for is ignored: only its key is used.
func ParseCSR(der []byte) (crypto.PublicKey, error) {
	if len(der) > maxCSRBytes {
		return nil, fmt.Errorf("certificate request is longer than %d bytes", maxCSRBytes)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	switch key := csr.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return nil, errors.New("certificate request: the key is not on the curve P-256")
		}
	case ed25519.PublicKey:
	default:
		return nil, errors.New("certificate request: the key is neither P-256 nor Ed25519")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("certificate request is not signed by its own key: %w", err)
	}
	return csr.PublicKey, nil
}

// KeyID is the hex SHA-256 of a public key in PKIX form.
func KeyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// Serial is a certificate's serial as Node objects name it.
func Serial(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

// IssueNode makes the client certificate of a node for the key of its request.
func (a *Authority) IssueNode(csr []byte, name postern.NodeName) (*x509.Certificate, error) {
	key, err := ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	tmpl, err := a.nodeTemplate(name)
	if err != nil {
		return nil, err
	}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.current(UseNodes).sign(tmpl, key, a.cfg.Now())
}

// IssueListener makes the certificate that a node's listeners show, for the key of its
// request and these names: host names and addresses. A listener for HTTP has a name for
// each task: all of one label below the names in below are certified too.
func (a *Authority) IssueListener(csr []byte, name postern.NodeName, names []string, below ...string) (*x509.Certificate, error) {
	key, err := ParseCSR(csr)
	if err != nil {
		return nil, err
	}
	tmpl, err := a.nodeTemplate(name)
	if err != nil {
		return nil, err
	}
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if err := setNames(tmpl, append(slices.Clone(names), below...)); err != nil {
		return nil, err
	}
	for _, host := range below {
		tmpl.DNSNames = append(tmpl.DNSNames, "*."+strings.ToLower(strings.TrimSuffix(host, ".")))
	}
	return a.current(UseNodes).sign(tmpl, key, a.cfg.Now())
}

func (a *Authority) nodeTemplate(name postern.NodeName) (*x509.Certificate, error) {
	if err := object.CheckName(string(name)); err != nil {
		return nil, err
	}
	return &x509.Certificate{
		Subject:  pkix.Name{CommonName: string(name)},
		URIs:     []*url.URL{{Scheme: uriScheme, Host: nodeHost, Path: "/" + string(name)}},
		NotAfter: a.cfg.Now().Add(nodeLifetime),
	}, nil
}

// IssueServer makes a key and a certificate of the control plane for host names and
// addresses. The chain ends with the CA, by which a node that enrols recognises it,
// and the URI name "postern://control" tells it from a node's listener.
func (a *Authority) IssueServer(names ...string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	uri, err := url.Parse(controlURI)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "postern-control"},
		URIs:        []*url.URL{uri},
		NotAfter:    a.cfg.Now().Add(serverLifetime),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if err := setNames(tmpl, names); err != nil {
		return tls.Certificate{}, err
	}
	by := a.current(UseNodes)
	leaf, err := by.sign(tmpl, key.Public(), a.cfg.Now())
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, by.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// Server is a tls.Config.GetCertificate that issues at need, and renews at half-life and
// when another CA signs.
func (a *Authority) Server(names ...string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	var mu sync.Mutex
	var current *tls.Certificate
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		if current != nil && a.cfg.Now().Add(serverLifetime/2).Before(current.Leaf.NotAfter) && bytes.Equal(current.Certificate[1], a.CA().Raw) {
			return current, nil
		}
		fresh, err := a.IssueServer(names...)
		if err != nil {
			return nil, fmt.Errorf("issue the server certificate: %w", err)
		}
		current = &fresh
		return current, nil
	}
}

// PEM is the PEM text of a certificate.
func PEM(c *x509.Certificate) []byte { return certPEM(c.Raw) }

// NodeFromCert is the node that a client certificate names. It verifies the chain, the
// dates and the use itself, so that no caller can forget to.
func (a *Authority) NodeFromCert(c *x509.Certificate) (postern.NodeName, error) {
	if c == nil {
		return "", errors.New("no client certificate")
	}
	if _, err := c.Verify(x509.VerifyOptions{
		Roots: a.Roots(), CurrentTime: a.cfg.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return "", fmt.Errorf("client certificate: %w", err)
	}
	if len(c.URIs) != 1 || len(c.DNSNames)+len(c.IPAddresses)+len(c.EmailAddresses) != 0 {
		return "", errors.New("client certificate: not that of a node")
	}
	u := c.URIs[0]
	name := strings.TrimPrefix(u.Path, "/")
	if u.Scheme != uriScheme || u.Host != nodeHost || object.CheckName(name) != nil || u.String() != uriScheme+"://"+nodeHost+"/"+name {
		return "", errors.New("client certificate: not that of a node")
	}
	return postern.NodeName(name), nil
}

func setNames(tmpl *x509.Certificate, names []string) error {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
			continue
		}
		if err := CheckHost(name); err != nil {
			return err
		}
		tmpl.DNSNames = append(tmpl.DNSNames, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	return nil
}

// CheckHost says what is wrong with a host name to be certified, or nil. Wildcards are
// refused: a certificate names just the hosts that were said.
func CheckHost(name string) error {
	name = strings.TrimSuffix(name, ".")
	if name == "" || len(name) > 253 {
		return fmt.Errorf("%q is not a host name", name)
	}
	for label := range strings.SplitSeq(strings.ToLower(name), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return fmt.Errorf("%q is not a host name", name)
		}
	}
	return nil
}
