// Package engines is the list of protocols that a node can terminate: one line each.
package engines

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"

	cryptossh "golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/http"
	"github.com/posterngate/postern/dataplane/engine/postgres"
	"github.com/posterngate/postern/dataplane/engine/ssh"
	"github.com/posterngate/postern/dataplane/pump"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql/worker"
)

// Deps is what engines are made from.
type Deps struct {
	TLS            *tls.Config                  // of the listener; nil only where plaintext is allowed
	ClientCAs      func() *x509.CertPool        // of grant certificates
	HostKeys       func() []cryptossh.Signer    // of the node's SSH listener
	UserCAs        func() []cryptossh.PublicKey // of SSH grant certificates
	Issuers        func() []*nodev1.Issuer      // at which people sign in
	AllowPlaintext bool
	Parser         *worker.Pool
	Loops          *pump.Loops // nil where sessions do without
	Logger         *slog.Logger
}

// All makes an engine by protocol.
var All = map[postern.Protocol]func(Deps) engine.Engine{
	postern.Postgres: func(d Deps) engine.Engine {
		return postgres.New(postgres.Config{TLS: d.TLS, ClientCAs: d.ClientCAs, AllowPlaintext: d.AllowPlaintext, Parser: d.Parser, Loops: d.Loops, Logger: d.Logger})
	},
	postern.HTTP: func(d Deps) engine.Engine {
		return http.New(http.Config{TLS: d.TLS, ClientCAs: d.ClientCAs, Issuers: d.Issuers, AllowPlaintext: d.AllowPlaintext, Loops: d.Loops, Logger: d.Logger})
	},
	postern.SSH: func(d Deps) engine.Engine {
		return ssh.New(ssh.Config{HostKeys: d.HostKeys, UserCAs: d.UserCAs, Logger: d.Logger})
	},
}
