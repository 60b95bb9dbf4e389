package ssh

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/wait"
)

// shared is the one host of all tests.
var shared struct {
	once sync.Once
	err  error
	sshd *servers.SSHD
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.sshd != nil {
		shared.sshd.Stop()
		_ = os.RemoveAll(dirOfHost)
	}
	os.Exit(code)
}

var dirOfHost string

func start(t testing.TB) *servers.SSHD {
	t.Helper()
	shared.once.Do(func() {
		if dirOfHost, shared.err = os.MkdirTemp("", "sshd-"); shared.err == nil {
			shared.sshd, shared.err = servers.StartSSH(context.Background(), dirOfHost, func(s string) { t.Log(s) })
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.sshd
}

// place is where a test makes files at the target: its own, and empty when it begins again.
func place(t testing.TB, before string) string {
	t.Helper()
	name := filepath.Join(start(t).Dir, before+t.Name())
	t.Cleanup(func() {
		if err := os.RemoveAll(name); err != nil {
			t.Error(err)
		}
	})
	return name
}

func target(t testing.TB) engine.Terms {
	s := start(t)
	return engine.Terms{Task: "t", Resource: "target", Host: s.Host, Port: s.Port, SSH: engine.SSHTerms{HostKeys: []string{s.HostKey}}}
}

func credential(t testing.TB) func(engine.Purpose) engine.Credential {
	s := start(t)
	return func(engine.Purpose) engine.Credential {
		return engine.Credential{Account: s.User, PrivateKey: secret.New(bytes.Clone(s.UserKey))}
	}
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// house is an engine that serves, with a script in the place of the house.
type house struct {
	door *enginetest.Door
	addr string
	key  ssh.PublicKey
	cfg  Config
}

func newHouse(t *testing.T, change ...func(*Config)) *house {
	t.Helper()
	signer := newSigner(t)
	cfg := Config{HostKeys: func() []ssh.Signer { return []ssh.Signer{signer} }, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}
	for _, c := range change {
		c(&cfg)
	}
	h := &house{door: enginetest.NewDoor(t, target(t), credential(t)), key: signer.PublicKey(), cfg: cfg}
	h.serve(t)
	return h
}

// serve has an engine of its own serve the door.
func (h *house) serve(t *testing.T) { h.addr = enginetest.Serve(t, New(h.cfg), h.door) }

// client is a client of the library, as a program would use it.
type client struct {
	*ssh.Client

	mu      sync.Mutex
	running *ssh.Session
}

func dial(ctx context.Context, addr, permission string, auth ...ssh.AuthMethod) (*client, error) {
	var banner string
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(nc, addr, &ssh.ClientConfig{
		User: permission, Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // it is ours
		BannerCallback: func(text string) error { banner += text; return nil },
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, banner)
	}
	return &client{Client: ssh.NewClient(c, channels, requests)}, nil
}

func (h *house) connect(t *testing.T) *client {
	t.Helper()
	c, err := dial(testContext(t), h.addr, "t.target", ssh.Password(enginetest.Token))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Exec runs a command and counts its lines; the error has what was said beside it.
func (c *client) Exec(ctx context.Context, text string) (int, error) {
	out, said, err := c.run(ctx, text)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, said)
	}
	return bytes.Count(out, []byte("\n")), err
}

func (c *client) run(ctx context.Context, text string) (out, said []byte, err error) {
	s, err := c.NewSession()
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = s.Close() }()
	c.mu.Lock()
	c.running = s
	c.mu.Unlock()
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	var o, e bytes.Buffer
	s.Stdout, s.Stderr = &o, &e
	err = s.Run(text)
	return o.Bytes(), e.Bytes(), err
}

// Cancel sends what Ctrl-C would.
func (c *client) Cancel(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return errors.New("nothing runs")
	}
	return c.running.Signal(ssh.SIGINT)
}

func (c *client) Close() { _ = c.Client.Close() }

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	t.Cleanup(cancel)
	return ctx
}

func TestConformance(t *testing.T) {
	const deadline = 500 * time.Millisecond
	signer := newSigner(t)
	enginetest.Run(t, enginetest.Protocol{
		Engine: func(testing.TB) engine.Engine {
			return New(Config{HostKeys: func() []ssh.Signer { return []ssh.Signer{signer} }, Limits: Limits{Handshake: deadline}})
		},
		Deadline: deadline, Terms: target(t), Credential: credential(t), Secret: "OPENSSH PRIVATE KEY",
		Connect: func(ctx context.Context, addr, permission, token string) (enginetest.Client, error) {
			return dial(ctx, addr, permission, ssh.Password(token))
		},
		Lines: true,
		Read:  "seq 3", Many: "seq 100", Slow: "sleep 12", Denied: "touch nothing",
		Garbage: [][]byte{
			[]byte("GET / HTTP/1.1\r\n\r\n"), []byte("SSH-1.5-old\r\n"), {0}, bytes.Repeat([]byte("x"), 4096),
			[]byte("SSH-2.0-x\r\n\xff\xff\xff\xff"), []byte("SSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x14"),
		},
	})
}
