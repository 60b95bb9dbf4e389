package ssh

import (
	"context"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/wait"
)

// person answers questions on a terminal, and keeps what it was shown.
type person struct {
	shown  []string
	answer func(n int) (string, error)
}

func (p *person) method() ssh.AuthMethod {
	return ssh.KeyboardInteractive(func(_, text string, questions []string, echos []bool) ([]string, error) {
		p.shown = append(p.shown, text+strings.Join(questions, "\n"))
		if len(questions) != 1 || echos[0] {
			p.shown = append(p.shown, "not one hidden answer")
			return nil, nil
		}
		a, err := p.answer(len(p.shown))
		return []string{a}, err
	})
}

func TestSignIn(t *testing.T) {
	where := engine.SignIn{URL: "https://postern.example/sign-in/BCDF-GHJK", Code: "BCDF-GHJK", Expires: time.Now().Add(time.Minute)}
	enter := func(int) (string, error) { return "", nil }
	h := newHouse(t)

	t.Run("on another device", func(t *testing.T) {
		in := make(chan struct{})
		h.door.Set(func(p *enginetest.Policy) {
			p.SignIn = func(ctx context.Context, show func(engine.SignIn)) error {
				show(where)
				select {
				case <-in:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			}
		})
		p := &person{answer: func(int) (string, error) { close(in); return "", nil }}
		c, err := dial(testContext(t), h.addr, "t.target", p.method())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, part := range []string{where.URL, where.Code, "your address 127.0.0.1:"} {
			if len(p.shown) != 1 || !strings.Contains(p.shown[0], part) {
				t.Errorf("shown %q, and not %q", p.shown, part)
			}
		}
		if out, _, err := c.run(testContext(t), "echo in"); err != nil || string(out) != "in\n" {
			t.Errorf("%q %v", out, err)
		}
	})
	t.Run("a token instead", func(t *testing.T) {
		over := make(chan error, 1)
		h.door.Set(func(p *enginetest.Policy) {
			p.SignIn = func(ctx context.Context, show func(engine.SignIn)) error {
				show(where)
				<-ctx.Done()
				over <- context.Cause(ctx)
				return context.Cause(ctx)
			}
		})
		c, err := dial(testContext(t), h.addr, "t.target", (&person{answer: func(int) (string, error) { return enginetest.Token, nil }}).method())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		select {
		case <-over:
		case <-time.After(wait.Patience):
			t.Error("the sign-in goes on")
		}
	})
	t.Run("a program that types a password", func(t *testing.T) {
		host, port, _ := net.SplitHostPort(h.addr)
		for name, signIn := range map[string]func(context.Context, func(engine.SignIn)) error{
			"in the place of people": func(ctx context.Context, show func(engine.SignIn)) error {
				show(where)
				<-ctx.Done()
				return context.Cause(ctx)
			},
			"where nobody can sign in": nil,
		} {
			h.door.Set(func(p *enginetest.Policy) { p.SignIn = signIn })
			cmd := exec.CommandContext(testContext(t), servers.Program(t, "sshpass", "sshpass"), "-e", "ssh", "-F", "none", "-p", port, "-o", "StrictHostKeyChecking=no",
				"-o", "UserKnownHostsFile=/dev/null", "-o", "IdentityAgent=none", "-o", "PreferredAuthentications=keyboard-interactive", "t.target@"+host, "echo in")
			cmd.Env = append(os.Environ(), "SSHPASS="+enginetest.Token)
			if out, err := cmd.Output(); err != nil || string(out) != "in\n" {
				t.Errorf("%s: %q %v", name, out, err)
			}
		}
	})
	t.Run("refused", func(t *testing.T) {
		h.door.Set(func(p *enginetest.Policy) {
			p.SignIn = func(_ context.Context, show func(engine.SignIn)) error {
				show(where)
				return &postern.Refusal{Code: postern.CodeBadToken, Reason: "nobody has signed in"}
			}
		})
		if _, err := dial(testContext(t), h.addr, "t.target", (&person{answer: enter}).method()); err == nil || !strings.Contains(err.Error(), "nobody has signed in") {
			t.Errorf("let in, or without the reason: %v", err)
		}
	})
	t.Run("not possible", func(t *testing.T) {
		h.door.Set(func(p *enginetest.Policy) { p.SignIn = nil })
		p := &person{answer: func(int) (string, error) { return enginetest.Token, nil }}
		c, err := dial(testContext(t), h.addr, "t.target", p.method())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if !strings.Contains(p.shown[0], "nobody can sign in elsewhere") || !strings.Contains(p.shown[0], askToken) {
			t.Errorf("shown %q", p.shown)
		}
		if _, err := dial(testContext(t), h.addr, "t.target", (&person{answer: enter}).method()); err == nil {
			t.Error("let in without anything")
		}
	})
	t.Run("the client leaves", func(t *testing.T) {
		over := make(chan error, 1)
		h.door.Set(func(p *enginetest.Policy) {
			p.SignIn = func(ctx context.Context, show func(engine.SignIn)) error {
				show(where)
				<-ctx.Done()
				over <- context.Cause(ctx)
				return context.Cause(ctx)
			}
		})
		if _, err := dial(testContext(t), h.addr, "t.target", (&person{answer: func(int) (string, error) { return "", context.Canceled }}).method()); err == nil {
			t.Fatal("let in")
		}
		select {
		case <-over:
		case <-time.After(wait.Patience):
			t.Error("the sign-in goes on without the client")
		}
	})
}

// TestFewSignIns: whoever has nothing to show cannot bind the whole node.
func TestFewSignIns(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.SignIns = 1 })
	asked := make(chan struct{})
	h.door.Set(func(p *enginetest.Policy) {
		p.SignIn = func(ctx context.Context, show func(engine.SignIn)) error {
			show(engine.SignIn{Expires: time.Now().Add(time.Minute)})
			<-ctx.Done()
			return context.Cause(ctx)
		}
	})
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	first := &person{answer: func(int) (string, error) { close(asked); <-ctx.Done(); return "", ctx.Err() }}
	go func() {
		_, err := dial(ctx, h.addr, "t.target", first.method())
		done <- err
	}()
	<-asked
	if _, err := dial(testContext(t), h.addr, "t.target", (&person{answer: func(int) (string, error) { return "", nil }}).method()); err == nil || !strings.Contains(err.Error(), "too many people are signing in") {
		t.Errorf("the second: %v", err)
	}
	// A token or a certificate needs no turn.
	h.connect(t)
	cancel()
	<-done
}

// TestSignInsOfANetwork: one address does not keep all others out.
func TestSignInsOfANetwork(t *testing.T) {
	limits := Limits{SignIns: 4, SignInsOf: 2}
	var all turns
	take := func(addr, want string) {
		t.Helper()
		r := all.take(network(addr), limits)
		if r == nil && want != "" || r != nil && (want == "" || !strings.Contains(r.Reason, want)) {
			t.Errorf("%s: %v, want %q", addr, r, want)
		}
	}
	take("192.0.2.1:1000", "")
	take("[::ffff:192.0.2.1]:1001", "")
	take("192.0.2.1:1002", "from your address")
	take("[2001:db8::1]:1000", "")
	take("[2001:db8::2%eth0]:1000", "")
	take("[2001:db8::3]:1000", "from your address")
	take("192.0.2.2:1000", "at this node")
	all.give(network("192.0.2.1:1000"))
	take("192.0.2.2:1000", "")
	for _, addr := range []string{"192.0.2.1:1001", "[2001:db8::1]:1000", "[2001:db8::2]:1000", "192.0.2.2:1000"} {
		all.give(network(addr))
	}
	if all.all != 0 || len(all.of) != 0 {
		t.Errorf("%d are left, of %v", all.all, all.of)
	}
}
