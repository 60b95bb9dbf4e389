package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A clientKey is a key that was made here and stays here, and the request by which the
// control plane certifies it for a grant.
type clientKey struct {
	pem []byte // PKCS #8
	csr []byte // DER
}

func newClientKey() (*clientKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	return &clientKey{pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), csr}, nil
}

// certFiles are where a grant certificate lies, as libpq names them.
type certFiles struct{ cert, key, root string }

// filesIn are the files for a task in a folder, which can hold those of several tasks.
func filesIn(dir, task string) (certFiles, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return certFiles{}, err
	}
	return certFiles{filepath.Join(dir, task+".crt"), filepath.Join(dir, task+".key"), filepath.Join(dir, "ca.crt")}, nil
}

// conninfo is what libpq needs to know to show the certificate.
func (f certFiles) conninfo() [][2]string {
	return [][2]string{{"sslcert", f.cert}, {"sslkey", f.key}}
}

// write keeps a key and its certificate, and the CA by which nodes are verified, where
// only the user can read them.
func (a *app) write(f certFiles, k *clientKey, certificate []byte) error {
	if _, err := tls.X509KeyPair(certificate, k.pem); err != nil {
		return fmt.Errorf("the control plane's certificate is not for the key that was made here: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(f.key), 0o700); err != nil {
		return err
	}
	if a.ca != "" {
		ca, err := os.ReadFile(a.ca)
		if err != nil {
			return err
		}
		if err := replace(f.root, ca); err != nil {
			return err
		}
	}
	return errors.Join(replace(f.key, k.pem), replace(f.cert, certificate))
}

// replace writes a file of mode 0600, whole or not at all.
func replace(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
