// Package ssh is the engine for the Secure Shell protocol, version 2. It terminates the
// protocol on both sides: what a client asks for on a channel becomes a Statement, and
// what its session admits is done at the host in the words that were judged. A command
// runs by the path that the task permits; files go one operation at a time; what no
// rule names, such as agents and displays, is refused. Deciding, recording and lending
// are its session's.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// Config is what an Engine works with.
type Config struct {
	// HostKeys are the node's own keys, or certificates for them; at least one. It is
	// called for each connection.
	HostKeys func() []ssh.Signer
	// UserCAs sign the certificates of grants; nil while they are not known.
	UserCAs func() []ssh.PublicKey
	Logger  *slog.Logger
	Limits  Limits
}

// Limits bound what an Engine takes from outside; zero values take the defaults.
type Limits struct {
	Handshake time.Duration // for keys and identity; 30 s
	Login     time.Duration // for opening the session and logging in at the host; 30 s
	SignIns   int           // people who sign in elsewhere at once; 64
	SignInsOf int           // of these, from one address; 8
	Prepare   time.Duration // for judging one request; 15 s
	Channels  int           // open at once on a connection; 64
	Listeners int           // addresses at which the host listens for a connection; 16
	Requests  int           // environment variables of a channel; 64
	Text      int           // bytes of a command, path or variable; 32 KiB
	Files     int           // open at once on a channel; 128
}

func (l Limits) orDefaults() Limits {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	wait(&l.Handshake, 30*time.Second)
	wait(&l.Login, 30*time.Second)
	wait(&l.Prepare, 15*time.Second)
	set(&l.SignIns, 64)
	set(&l.SignInsOf, 8)
	set(&l.Channels, 64)
	set(&l.Listeners, 16)
	set(&l.Requests, 64)
	set(&l.Text, 32<<10)
	set(&l.Files, 128)
	return l
}

// An Engine serves SSH clients. It is safe for concurrent use.
type Engine struct {
	cfg    Config
	limits Limits
	log    *slog.Logger

	signing turns // of people who sign in elsewhere
	hosts   hosts
}

var _ engine.Engine = (*Engine)(nil)

// New makes an Engine.
func New(cfg Config) *Engine {
	e := &Engine{cfg: cfg, limits: cfg.Limits.orDefaults(), log: cfg.Logger}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	return e
}

// Protocol is "ssh".
func (e *Engine) Protocol() postern.Protocol { return postern.SSH }

// algorithms are what both sides may use: authenticated encryption that processors have
// instructions for comes first, and nothing rests on SHA-1 or CBC. The key exchange that
// holds against quantum computers is preferred.
func algorithms() ssh.Config {
	a := ssh.SupportedAlgorithms()
	return ssh.Config{
		KeyExchanges: a.KeyExchanges,
		Ciphers:      []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR, ssh.CipherAES256CTR},
		MACs:         slices.DeleteFunc(a.MACs, func(name string) bool { return strings.Contains(name, "sha1") }),
	}
}

// Serve speaks to one client until either side ends.
func (e *Engine) Serve(ctx context.Context, nc net.Conn, d engine.Door) error {
	defer func() { _ = nc.Close() }()
	if err := nc.SetDeadline(time.Now().Add(e.limits.Handshake)); err != nil {
		return err
	}
	a := &auth{e: e, ctx: ctx, door: d, nc: nc, addr: nc.RemoteAddr().String()}
	w := newWire(nc)
	sc, channels, requests, err := ssh.NewServerConn(w, a.config())
	if err != nil {
		if a.session != nil {
			a.session.Close(err)
		}
		return fmt.Errorf("handshake: %w", err)
	}
	w.joined(sc.Conn)
	s := a.session
	if err := nc.SetDeadline(time.Time{}); err != nil {
		s.Close(err)
		return err
	}
	c := &conn{e: e, s: s, terms: s.Terms(), client: sc, letting: make(chan struct{}, 1), log: e.log.With("session", s.ID())}
	err = c.run(ctx, channels, requests)
	s.Close(err)
	return err
}

// conn is one session after its handshake.
type conn struct {
	e      *Engine
	s      engine.Session
	terms  *engine.Terms
	client *ssh.ServerConn
	log    *slog.Logger
	host   host
	group  *run.Group
	active activity
	speak  speakers

	open      atomic.Int64 // channels, whoever opened them
	aside     aside        // of the files of all channels
	listening listeners

	letting chan struct{} // holds one while somebody waits, and guards let and notLet
	let     bool          // whether people have let the session in
	notLet  error         // what they said last, where that is no yes
	answers atomic.Int64  // how often they have said something
}

// run serves channels until either side ends or the session must, and says why.
func (c *conn) run(ctx context.Context, channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) error {
	c.group = run.New(ctx)
	stopKill := context.AfterFunc(c.s.Context(), func() { c.end(context.Cause(c.s.Context())) })
	stopDrain := context.AfterFunc(ctx, func() {
		c.end(&postern.Refusal{Code: postern.CodeKilled, Reason: "the gateway is shutting down", Hint: "connect again"})
	})
	stopIdle := c.active.watch(c.terms.Idle, func() {
		c.end(c.terms.IdleTooLong())
	})
	if !c.terms.Hold {
		c.begin()
	}
	c.group.Go("requests", func(ctx context.Context) error { c.global(requests); return nil })
	c.group.Go("channels", func(ctx context.Context) error { c.accept(channels); return nil })
	err := c.client.Wait()
	stopKill()
	stopDrain()
	stopIdle()
	c.group.Stop()
	c.host.close()
	_ = c.group.Wait()
	if cause := c.speak.cause(); cause != nil {
		return cause
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) || err != nil && strings.HasPrefix(err.Error(), clientLeft) {
		return nil
	}
	return err
}

// clientLeft is how the library words a client's own goodbye, SSH_DISCONNECT_BY_APPLICATION.
const clientLeft = "ssh: disconnect, reason 11:"

// farewellTime is how long a client may take to hear why its session ends.
const farewellTime = time.Second

// end tells whoever listens why, and closes the connection.
func (c *conn) end(cause error) {
	late := time.AfterFunc(farewellTime, func() { _ = c.client.Close() })
	defer late.Stop()
	c.speak.farewell(postern.AsRefusal(cause))
	c.host.close()
	_ = c.client.Close()
}
