package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// auth is the client's half of the handshake: who it is, and what for. The session is
// opened by the method that succeeds, so that a refusal is an authentication failure
// with a banner that says why.
type auth struct {
	e    *Engine
	ctx  context.Context
	door engine.Door
	nc   net.Conn
	addr string

	session engine.Session
	// turnedAway is set once somebody who signed in elsewhere, or should have, was refused.
	turnedAway bool
}

// maxTries is how many methods and keys a client may offer.
const maxTries = 10

func (a *auth) config() *ssh.ServerConfig {
	cfg := &ssh.ServerConfig{
		Config: algorithms(), ServerVersion: "SSH-2.0-Postern", MaxAuthTries: maxTries,
		PasswordCallback: func(m ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			return a.token(m, password)
		},
		KeyboardInteractiveCallback: func(m ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			return nil, a.signIn(m, ask)
		},
		PublicKeyCallback: func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			return nil, a.acceptable(m, key)
		},
		VerifiedPublicKeyCallback: func(m ssh.ConnMetadata, key ssh.PublicKey, _ *ssh.Permissions, _ string) (*ssh.Permissions, error) {
			return a.certificate(m, key)
		},
	}
	for _, k := range a.e.cfg.HostKeys() {
		cfg.AddHostKey(k)
	}
	return cfg
}

// token opens the session of somebody who gave a token as the password.
func (a *auth) token(m ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
	if len(password) == 0 || len(password) > a.e.limits.Text {
		return nil, errors.New("no token")
	}
	token := secret.New(bytes.Clone(password))
	defer token.Wipe()
	return nil, a.open(m, engine.Claim{Token: token})
}

// acceptable is asked about a key before it is proved to be the client's: only
// certificates of grants are worth the proof.
func (a *auth) acceptable(m ssh.ConnMetadata, key ssh.PublicKey) error {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return errors.New("no certificate")
	}
	if a.e.cfg.UserCAs == nil {
		return errors.New("certificates are not known here")
	}
	check := &ssh.CertChecker{
		IsUserAuthority: func(ca ssh.PublicKey) bool {
			for _, known := range a.e.cfg.UserCAs() {
				if bytes.Equal(known.Marshal(), ca.Marshal()) {
					return true
				}
			}
			return false
		},
		Clock: time.Now,
	}
	// A certificate without principals would be good for every name.
	if cert.CertType != ssh.UserCert || len(cert.ValidPrincipals) == 0 {
		return errors.New("not the certificate of a grant")
	}
	if !check.IsUserAuthority(cert.SignatureKey) {
		return errors.New("a certificate of another authority")
	}
	if err := check.CheckCert(m.User(), cert); err != nil {
		// It is one of ours, and so whoever shows it should know why it is of no use.
		return refusedLogin(&postern.Refusal{
			Code: postern.CodeBadToken, Reason: "this certificate is of no use here: " + strings.TrimPrefix(err.Error(), "ssh: "),
			Hint: "get a new one: postern ssh TASK, or postern grant TASK --ssh DIR", Cause: err,
		})
	}
	return nil
}

// certificate opens the session of somebody who has proved to hold a certificate's key.
func (a *auth) certificate(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if err := a.acceptable(m, key); err != nil {
		return nil, err
	}
	return nil, a.open(m, engine.Claim{Certificate: key.Marshal()})
}

func (a *auth) open(m ssh.ConnMetadata, c engine.Claim) error {
	if a.session != nil {
		return errors.New("opened already")
	}
	ctx, cancel := context.WithTimeout(a.ctx, a.e.limits.Login)
	defer cancel()
	s, err := a.door.Open(ctx, a.claim(m, c))
	if err != nil {
		return refusedLogin(err)
	}
	a.session = s
	return nil
}

// claim fills in what is the same for all claims of the connection.
func (a *auth) claim(m ssh.ConnMetadata, c engine.Claim) engine.Claim {
	c.Protocol, c.Permission, c.ClientAddress = postern.SSH, m.User(), a.addr
	c.ClientProgram = printable(string(m.ClientVersion()))
	return c
}

// refusedLogin is a refusal of the door, with a banner that says why.
func refusedLogin(err error) error {
	return &ssh.BannerError{Err: fmt.Errorf("open: %w", err), Message: say(postern.AsRefusal(err))}
}
