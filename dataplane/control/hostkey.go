package control

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// newHostKey makes a node's SSH host key: Ed25519, and PKCS #8 DER of it.
func newHostKey() (ssh.Signer, []byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a host key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("write a host key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	return signer, der, err
}

func parseHostKey(der []byte) (ssh.Signer, error) {
	key, err := parseKey(der)
	if err != nil {
		return nil, fmt.Errorf("SSH host key: %w", err)
	}
	return ssh.NewSignerFromKey(key)
}

// hostSigners are a host key with its certificate, where it has one, and by itself.
func hostSigners(der, certificate []byte) ([]ssh.Signer, error) {
	signer, err := parseHostKey(der)
	if err != nil || len(certificate) == 0 {
		return []ssh.Signer{signer}, err
	}
	key, err := ssh.ParsePublicKey(certificate)
	if err != nil {
		return nil, fmt.Errorf("SSH host certificate: %w", err)
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.HostCert {
		return nil, errors.New("SSH host certificate: it is none")
	}
	certified, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		return nil, fmt.Errorf("SSH host certificate: %w", err)
	}
	return []ssh.Signer{certified, signer}, nil
}

// SSHHostKeys are by what the node's SSH listener shows who it is: its host key, certified
// where the control plane has done so, and by itself. They must not be changed.
func (id *Identity) SSHHostKeys() []ssh.Signer { return id.current.Load().host }
