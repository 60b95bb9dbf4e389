package postgres

import (
	"context"
	"crypto/tls"
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
	cfg, err := t.Client()
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = []string{alpn}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
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
