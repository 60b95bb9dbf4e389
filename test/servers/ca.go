package servers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is a CA made for one server; it signs for 127.0.0.1, ::1 and localhost.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	PEM  []byte
}

func newAuthority(name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(1, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert: cert, key: key, PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

// issue makes a certificate that serves on loopback and is good as a client as well.
func (a *authority) issue(name string) (cert, key []byte, err error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, priv.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// files are the CA, certificate and key of a server, in its folder.
type files struct{ ca, cert, key string }

// identity finds ca.pem, server.pem and server.key in dir, or makes them. A kept
// identity that ends within a week is made anew.
func identity(dir, name string) (files, []byte, error) {
	f := files{ca: filepath.Join(dir, "ca.pem"), cert: filepath.Join(dir, "server.pem"), key: filepath.Join(dir, "server.key")}
	if ca, err := os.ReadFile(f.ca); err == nil {
		if pair, err := tls.LoadX509KeyPair(f.cert, f.key); err == nil && time.Until(pair.Leaf.NotAfter) > 7*24*time.Hour {
			return f, ca, nil
		}
	}
	a, err := newAuthority("postern test CA for " + name)
	if err != nil {
		return files{}, nil, fmt.Errorf("make a CA for %s: %w", name, err)
	}
	cert, key, err := a.issue(name)
	if err != nil {
		return files{}, nil, fmt.Errorf("make a certificate for %s: %w", name, err)
	}
	for _, w := range []struct {
		file string
		data []byte
		mode os.FileMode
	}{{f.key, key, 0o600}, {f.cert, cert, 0o644}, {f.ca, a.PEM, 0o644}} {
		if err := os.WriteFile(w.file, w.data, w.mode); err != nil {
			return files{}, nil, err
		}
	}
	return f, a.PEM, nil
}

// Certificate finds or makes, in dir, a certificate for a server on loopback, and the CA by
// which it is known.
func Certificate(dir, name string) (cert tls.Certificate, caPEM []byte, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cert, nil, err
	}
	f, caPEM, err := identity(dir, name)
	if err != nil {
		return cert, nil, err
	}
	cert, err = tls.LoadX509KeyPair(f.cert, f.key)
	return cert, caPEM, err
}

func serial() *big.Int {
	n, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return n
}
