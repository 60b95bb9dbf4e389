package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
)

// secure asks the target for TLS and verifies it as the resource says; mode disable
// leaves the connection as it is.
func secure(ctx context.Context, nc net.Conn, t engine.TLSTerms, cert *tls.Certificate) (net.Conn, error) {
	if t.Mode == "disable" {
		return nc, nil
	}
	cfg, err := clientTLS(t, cert)
	if err != nil {
		return nil, err
	}
	if _, err := nc.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, sslRequest)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(nc, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, errors.New("the resource does not offer TLS")
	}
	tc := tls.Client(pump.NewFeed(nc, nil), cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return tc, nil
}

func clientTLS(t engine.TLSTerms, cert *tls.Certificate) (*tls.Config, error) {
	cfg := &tls.Config{ServerName: t.ServerName, NextProtos: []string{alpn}, MinVersion: tls.VersionTLS12}
	if len(t.CA) > 0 {
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(t.CA) {
			return nil, errors.New("the resource's CA holds no certificate")
		}
	}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	switch t.Mode {
	case "verify-full":
		if t.ServerName == "" {
			return nil, errors.New("tls mode verify-full needs a server name")
		}
	case "verify-ca":
		// The chain is verified below, the name is not.
		cfg.InsecureSkipVerify = true //nolint:gosec // VerifyConnection does it
		cfg.VerifyConnection = func(cs tls.ConnectionState) error {
			return verifyChain(cs, cfg.RootCAs)
		}
	default:
		return nil, fmt.Errorf("unknown tls mode %q", t.Mode)
	}
	return cfg, nil
}

func verifyChain(cs tls.ConnectionState, roots *x509.CertPool) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the resource sent no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(o)
	return err
}

// certificate is the client certificate of a credential, or nil.
func certificate(cred *engine.Credential) (*tls.Certificate, error) {
	if len(cred.Certificate) == 0 {
		return nil, nil
	}
	c, err := tls.X509KeyPair(cred.Certificate, cred.PrivateKey.Reveal())
	if err != nil {
		return nil, errors.New("the credential's certificate and key do not fit")
	}
	return &c, nil
}
