package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// host is the session's one connection to its resource. It is made while the client still
// opens its first channel, which is a round trip or two, or once people have let the session in.
type host struct {
	mu     sync.Mutex
	link   *link // nil where there is none, nor one being made
	closed bool
}

// link is one connection to the host, or an attempt at one. It outlives the request that needed
// it first.
type link struct {
	ready  chan struct{} // closed once client or err is set
	client *ssh.Client
	err    error
	since  time.Time     // when it was made
	gone   chan struct{} // closed once the host has gone, and another can be made
	wanted bool          // somebody has had it; guarded by the host's mu
}

// begin returns the connection, and has it made where there is none. It must not be called before
// the session is let in.
func (c *conn) begin() *link {
	h := &c.host
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.link == nil {
		l := &link{ready: make(chan struct{}), gone: make(chan struct{})}
		h.link = l
		c.group.Go("host", func(ctx context.Context) error {
			c.connect(ctx, l)
			return nil
		})
	}
	return h.link
}

// dial returns the connection to the host. Who waits for it may give up.
func (c *conn) dial(ctx context.Context) (*ssh.Client, error) {
	for {
		l := c.begin()
		select {
		case <-l.ready:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if l.err != nil || c.host.want(l) {
			return l.client, l.err
		}
		select {
		case <-l.gone:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// proveAfter is how long a connection may have carried nothing before it is asked whether the host
// is there still: that it has gone may not be known here yet.
const proveAfter = 2 * time.Second

// want reports whether the connection can be had; it is then a session's for good.
func (h *host) want(l *link) bool {
	h.mu.Lock()
	first := !l.wanted
	h.mu.Unlock()
	if first && time.Since(l.since) > proveAfter {
		if _, _, err := l.client.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			return false
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	l.wanted = l.wanted || h.link == l
	return l.wanted
}

// connect logs in, and ends the session when the host goes. One that nobody has wanted yet may
// fail, or go, for a host need not wait for as long as people: it is made anew for who wants it.
func (c *conn) connect(ctx context.Context, l *link) {
	h := &c.host
	within, cancel := context.WithTimeout(ctx, c.e.limits.Login)
	client, err := c.login(within)
	cancel()
	h.mu.Lock()
	if err == nil && h.closed {
		_ = client.Close()
		err = net.ErrClosed
	}
	if err != nil {
		h.link = nil
	}
	l.client, l.err, l.since = client, err, time.Now()
	h.mu.Unlock()
	close(l.ready)
	if err != nil {
		return
	}
	err = client.Wait()
	h.mu.Lock()
	h.link = nil
	ours := h.closed || !l.wanted
	h.mu.Unlock()
	close(l.gone)
	if !ours {
		c.end(lost(err))
	}
}

func lost(err error) *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the connection to the host was lost", Hint: "connect again", Cause: err}
}

// noSession says why the host has opened none: it has said no, or is gone.
func noSession(err error) *postern.Refusal {
	var no *ssh.OpenChannelError
	if !errors.As(err, &no) {
		return lost(err)
	}
	return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the host takes no more sessions", Cause: err}
}

func (h *host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.link != nil && h.link.client != nil {
		_ = h.link.client.Close()
	}
}

// login connects with a credential that is lent. The client's own keys and agent are
// never used.
func (c *conn) login(ctx context.Context) (_ *ssh.Client, err error) {
	defer func() { c.s.Reached(ctx, err) }()
	nc, err := c.s.Dial(ctx)
	if err != nil {
		return nil, c.unreachable(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	known, err := knownHost(c.terms)
	if err != nil {
		_ = nc.Close()
		return nil, c.unreachable(err)
	}
	var client *ssh.Client
	err = c.s.Lend(ctx, engine.PurposeSession, func(cred *engine.Credential) error {
		cfg := &ssh.ClientConfig{
			Config: algorithms(), User: strings.Clone(cred.Account), ClientVersion: "SSH-2.0-Postern",
			HostKeyCallback: known.check, HostKeyAlgorithms: known.algorithms,
		}
		if cfg.Auth, err = methods(cred); err != nil {
			return err
		}
		w := newWire(nc)
		conn, channels, requests, err := ssh.NewClientConn(w, net.JoinHostPort(c.terms.Host, fmt.Sprint(c.terms.Port)), cfg)
		if err != nil {
			return err
		}
		w.joined(conn)
		client = ssh.NewClient(conn, channels, requests)
		return nil
	})
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = nc.Close()
		return nil, c.unreachable(err)
	}
	return client, nil
}

// unreachable words a failed login for the user, who is not told what the host said.
func (c *conn) unreachable(err error) error {
	var r *postern.Refusal
	if errors.As(err, &r) {
		return err
	}
	return &postern.Refusal{
		Code: postern.CodeUnavailable, Reason: fmt.Sprintf("cannot log in to resource %q", c.terms.Resource),
		Hint: "try again; if it stays, tell the operators", Cause: fmt.Errorf("log in to %s: %w", c.terms.Resource, err),
	}
}

// methods are the ways to log in that a credential has: its key, with or without a
// certificate, or its password.
func methods(cred *engine.Credential) ([]ssh.AuthMethod, error) {
	if len(cred.PrivateKey.Reveal()) == 0 {
		password := string(cred.Password.Reveal())
		return []ssh.AuthMethod{ssh.Password(password), ssh.KeyboardInteractive(func(_, _ string, questions []string, echos []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range questions {
				if !echos[i] {
					answers[i] = password
				}
			}
			return answers, nil
		})}, nil
	}
	signer, err := ssh.ParsePrivateKey(cred.PrivateKey.Reveal())
	if err != nil {
		return nil, errors.New("the credential's private key cannot be read")
	}
	if len(cred.Certificate) == 0 {
		return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(cred.Certificate)
	cert, ok := key.(*ssh.Certificate)
	switch {
	case err != nil || !ok:
		return nil, errors.New("the credential's certificate cannot be read")
	case len(cert.ValidPrincipals) == 0:
		return nil, errors.New("the credential's certificate names no principal, and so would be good for all")
	}
	certified, err := ssh.NewCertSigner(cert, signer)
	if err != nil {
		return nil, errors.New("the credential's certificate and key do not fit")
	}
	return []ssh.AuthMethod{ssh.PublicKeys(certified)}, nil
}

// known is by what a host is known.
type known struct {
	keys       []ssh.PublicKey
	checker    *ssh.CertChecker
	algorithms []string
}

// errUnknownHost is the only answer to a key that the resource does not name.
var errUnknownHost = errors.New("the host is not who the resource says: its key is unknown")

func knownHost(t *engine.Terms) (*known, error) {
	k := &known{}
	var cas []ssh.PublicKey
	for _, list := range []struct {
		texts []string
		into  *[]ssh.PublicKey
	}{{t.SSH.HostKeys, &k.keys}, {t.SSH.HostCAs, &cas}} {
		for _, text := range list.texts {
			key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(text))
			if err != nil {
				return nil, fmt.Errorf("a key of the resource cannot be read: %w", err)
			}
			*list.into = append(*list.into, key)
		}
	}
	k.checker = &ssh.CertChecker{
		IsHostAuthority: func(ca ssh.PublicKey, _ string) bool { return contains(cas, ca) },
		HostKeyFallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if contains(k.keys, key) {
				return nil
			}
			return errUnknownHost
		},
	}
	// The host is asked for a key that is known, where it has several.
	if len(cas) > 0 {
		k.algorithms = append(k.algorithms, ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoECDSA384v01, ssh.CertAlgoECDSA521v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01)
	}
	for _, key := range k.keys {
		if key.Type() == ssh.KeyAlgoRSA {
			k.algorithms = append(k.algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			k.algorithms = append(k.algorithms, key.Type())
		}
	}
	if len(k.algorithms) == 0 {
		return nil, errUnknownHost
	}
	return k, nil
}

func (k *known) check(address string, remote net.Addr, key ssh.PublicKey) error {
	return k.checker.CheckHostKey(address, remote, key)
}

func contains(list []ssh.PublicKey, key ssh.PublicKey) bool {
	for _, k := range list {
		if bytes.Equal(k.Marshal(), key.Marshal()) {
			return true
		}
	}
	return false
}
