// Package http is the engine for HTTP/1.1 and HTTP/2. What a client asks for becomes a
// Statement in its one canonical form, and that is what goes to the resource, with the
// resource's own credential and without anything that the client says of who it is.
// Answers stream back, recorded as far as is kept. Deciding, recording and lending are
// its session's; connections, sessions and refusals the request core's.
package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/dataplane/request"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
)

// Config is what an Engine works with.
type Config struct {
	TLS            *tls.Config // of the listener; nil only where plaintext is allowed
	ClientCAs      func() *x509.CertPool
	Issuers        func() []*nodev1.Issuer // at which people sign in; nil where clients are told of none
	AllowPlaintext bool
	Loops          *pump.Loops // carry what is asked in HTTP/1.1 again and again; nil gives each connection a goroutine that reads
	Logger         *slog.Logger
	Limits         request.Limits
}

// An Engine serves HTTP clients. It is safe for concurrent use.
type Engine struct {
	server *request.Server
	log    *slog.Logger
	mcp    mcp.Servers

	issuers func() []*nodev1.Issuer
}

var _ engine.Engine = (*Engine)(nil)

// New makes an Engine.
func New(cfg Config) *Engine {
	e := &Engine{log: cfg.Logger, issuers: cfg.Issuers}
	if e.issuers == nil {
		e.issuers = func() []*nodev1.Issuer { return nil }
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	secure := request.Secure(cfg.TLS)
	if secure != nil {
		engine.AskCertificate(secure, cfg.ClientCAs)
	}
	e.server = request.NewServer(request.Config{TLS: secure, AllowPlaintext: cfg.AllowPlaintext, Serve: e.serve, Rides: rides, Loops: cfg.Loops, Limits: cfg.Limits, Logger: e.log})
	return e
}

// Protocol is "http".
func (e *Engine) Protocol() postern.Protocol { return postern.HTTP }

// Serve speaks to one client until either side ends.
func (e *Engine) Serve(ctx context.Context, nc net.Conn, d engine.Door) error {
	return e.server.Serve(ctx, nc, d)
}

// ownPath begins the paths that the gateway answers itself. No resource is reached by them.
const ownPath = "/.postern/"

func (e *Engine) serve(w http.ResponseWriter, r *http.Request, h *request.Head, c *request.Conn) {
	switch {
	case r.URL.Path == callbackPath:
		e.callback(w, r, c)
		return
	case ofMetadata(r):
		e.metadata(w, r)
		return
	}
	claim, err := h.Claim(postern.HTTP, r)
	var v *request.Visit
	if err == nil {
		v, err = c.Join(r.Context(), claim)
	}
	if err != nil {
		if request.Navigates(r) && postern.AsRefusal(err).Code == postern.CodeBadToken && r.Header.Get("Authorization") == "" && claim.Certificate == nil {
			e.signIn(w, r, c, err)
			return
		}
		e.refuse(w, r, err)
		return
	}
	defer func() {
		if v.Context().Err() != nil {
			pump.Off(r.Context()) // to close it takes time
		}
		c.Leave(v)
	}()
	if strings.HasPrefix(r.URL.Path, ownPath) {
		e.own(w, r, c, v, claim.Browser)
		return
	}
	x := &exchange{e: e, c: c, w: w, r: r, h: h, v: v, terms: v.Terms(), began: time.Now()}
	x.run()
}

func (e *Engine) refuse(w http.ResponseWriter, r *http.Request, err error) {
	no := postern.AsRefusal(err)
	if no.Cause != nil {
		e.log.Debug("request refused", "error", no.Cause)
	}
	request.Refuse(w, r, no, e.discovery(r)...)
}
