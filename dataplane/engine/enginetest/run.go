package enginetest

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// A Protocol is what Run needs to know of one protocol.
type Protocol struct {
	// Engine makes the engine; its handshake deadline must be at most Deadline.
	Engine   func(tb testing.TB) engine.Engine
	Deadline time.Duration
	// Terms are those of a running target, and Credential logs in there. Secret is what
	// must never reach a client.
	Terms      engine.Terms
	Credential func(engine.Purpose) engine.Credential
	Secret     string
	// Connect is a stock client.
	Connect func(ctx context.Context, addr, permission, token string) (Client, error)
	// Read is a statement that gives three rows, Many one of at least 100, Slow one that
	// runs for at least 10 s, and Denied one that must leave no trace.
	Read, Many, Slow, Denied string
	// Lines is true where what counts are the bytes of an output, of which a row is a line;
	// those of Many are then "1", "2" and so on.
	Lines bool
	// Garbage are openings that no client of the protocol would send.
	Garbage [][]byte
}

// A Client is one connection of a stock client.
type Client interface {
	// Exec runs a statement and counts its rows. An error is what the client was told,
	// in full.
	Exec(ctx context.Context, text string) (rows int, err error)
	// Cancel asks for what runs to be cancelled.
	Cancel(ctx context.Context) error
	Close()
}

// Run holds an engine to the promises that all protocols share.
func Run(t *testing.T, p Protocol) {
	for _, c := range []struct {
		name string
		fn   func(*bench, *testing.T)
	}{
		{"allowed statements run and are recorded", (*bench).allowed},
		{"nothing is forwarded on Deny", (*bench).denied},
		{"no admission, no byte", (*bench).unrecordable},
		{"refusals at the door are shown", (*bench).refusals},
		{"the credential never reaches the client", (*bench).credential},
		{"operators hear of a target that is away", (*bench).away},
		{"a limit cuts exactly", (*bench).limit},
		{"cancel works", (*bench).cancel},
		{"a held statement waits for people", (*bench).hold},
		{"a killed session shows its cause", (*bench).kill},
		{"bad handshakes end and harm nobody", (*bench).handshakes},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &bench{Protocol: p, door: NewDoor(t, p.Terms, p.Credential)}
			b.addr = Serve(t, p.Engine(t), b.door)
			c.fn(b, t)
		})
	}
}

// wait bounds each step of a check. It is long, for a machine may be busy with other
// things: a time that is promised is measured where it is.
const wait = time.Minute

type bench struct {
	Protocol
	door *Door
	addr string
}

func (b *bench) ctx(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	t.Cleanup(cancel)
	return ctx
}

func (b *bench) connect(t *testing.T) Client {
	t.Helper()
	c, err := b.Connect(b.ctx(t), b.addr, "t.target", Token)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

func (b *bench) deny(reason string) {
	b.door.Set(func(p *Policy) {
		p.Decide = func(text string, _ any) postern.Decision {
			if text == b.Denied {
				return postern.Decision{Rule: "t/permit", Reason: reason}
			}
			return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
		}
	})
}

func (b *bench) read(t *testing.T, c Client) {
	t.Helper()
	if n, err := c.Exec(b.ctx(t), b.Read); err != nil || n != 3 {
		t.Fatalf("%q gave %d rows: %v", b.Read, n, err)
	}
}

func (b *bench) allowed(t *testing.T) {
	c := b.connect(t)
	b.read(t, c)
	e := b.door.Last().Executions()
	if len(e) == 0 {
		t.Fatal("nothing was admitted")
	}
	last := e[len(e)-1]
	if last.Text != b.Read || last.Rows != 3 || last.Outcome.Code != "" {
		t.Fatalf("recorded %+v", last)
	}
	s := b.door.Last()
	c.Close()
	if err := s.Closed(); err != nil {
		t.Fatalf("the session ended with %v", err)
	}
}

func (b *bench) denied(t *testing.T) {
	const reason = `task "t" does not allow that`
	b.deny(reason)
	c := b.connect(t)
	before := len(b.door.Last().Executions())
	_, err := c.Exec(b.ctx(t), b.Denied)
	if err == nil || !strings.Contains(err.Error(), reason) || !strings.Contains(err.Error(), "t/permit") {
		t.Fatalf("the client was told %v", err)
	}
	if b.door.Last().Sent(b.Denied) || len(b.door.Last().Executions()) != before {
		t.Fatal("a denied statement was forwarded")
	}
	b.read(t, c)
}

func (b *bench) unrecordable(t *testing.T) {
	c := b.connect(t)
	b.door.Set(func(p *Policy) { p.Unrecordable = true })
	if _, err := c.Exec(b.ctx(t), b.Denied); err == nil {
		t.Fatal("ran without a record")
	}
	if n := len(b.door.Last().Executions()); n != 0 {
		t.Fatalf("%d executions", n)
	}
}

func (b *bench) refused(t *testing.T, permission, token, want string) {
	t.Helper()
	c, err := b.Connect(b.ctx(t), b.addr, permission, token)
	if err == nil {
		c.Close()
		t.Fatal("connected")
	}
	if !strings.Contains(err.Error(), want) {
		t.Fatalf("the client was told %v, want %q", err, want)
	}
}

func (b *bench) refusals(t *testing.T) {
	b.refused(t, "t.target", "wrong", "the token is not good")
	b.refused(t, "nobody.target", Token, `no binding gives you task "nobody"`)
	if n := b.door.Opened(); n != 0 {
		t.Fatalf("%d sessions were opened", n)
	}
	c := b.connect(t)
	if got := b.door.Claim().Permission; got != "t.target" {
		t.Fatalf("claimed %q", got)
	}
	b.read(t, c)
}

// recorder keeps all that a client reads.
type recorder struct {
	net.Conn
	seen *strings.Builder
}

func (r recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.seen.Write(p[:n])
	return n, err
}

// away is told where the target does not answer, and that the way is good where it does.
func (b *bench) away(t *testing.T) {
	b.read(t, b.connect(t))
	if ways := b.door.Last().Ways(); len(ways) == 0 || slices.ContainsFunc(ways, func(err error) bool { return err != nil }) {
		t.Errorf("of a target that answers %d ways are told: %v", len(ways), ways)
	}
	terms := b.Terms
	terms.Port = deaf(t)
	door := NewDoor(t, terms, b.Credential)
	c, err := b.Connect(b.ctx(t), Serve(t, b.Engine(t), door), "t.target", Token)
	if err == nil {
		_, err = c.Exec(b.ctx(t), b.Read)
		c.Close()
	}
	if err == nil {
		t.Fatal("a target that is away answered")
	}
	ways := door.Last().Ways()
	if len(ways) == 0 || slices.Contains(ways, nil) {
		t.Fatalf("of a target that is away %d ways are told: %v", len(ways), ways)
	}
	var no *postern.Refusal
	if told := ways[0]; !errors.Is(told, syscall.ECONNREFUSED) || errors.As(told, &no) && no.Code != postern.CodeUnavailable {
		t.Errorf("operators are told %v", told)
	}
}

// deaf is a port of 127.0.0.1 that somebody has, and on which nobody listens.
func deaf(t *testing.T) int {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return at.(*syscall.SockaddrInet4).Port
}

// credential listens on the way to the client, where it is not encrypted.
func (b *bench) credential(t *testing.T) {
	var seen strings.Builder
	relay, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var both sync.WaitGroup
	both.Go(func() {
		in, err := relay.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", b.addr)
		if err != nil {
			_ = in.Close()
			return
		}
		both.Go(func() {
			_, _ = io.Copy(out, in)
			_ = out.Close()
		})
		_, _ = io.Copy(in, recorder{out, &seen})
		_ = in.Close()
	})
	t.Cleanup(func() { _ = relay.Close() })
	c, err := b.Connect(b.ctx(t), relay.Addr().String(), "t.target", Token)
	if err != nil {
		t.Fatal(err)
	}
	b.read(t, c)
	c.Close()
	both.Wait()
	if seen.Len() == 0 || strings.Contains(seen.String(), b.Secret) {
		t.Fatalf("among %d bytes to the client is the credential", seen.Len())
	}
}

func (b *bench) limit(t *testing.T) {
	b.door.Set(func(p *Policy) {
		if b.Lines {
			p.Bytes = int64(len("1\n2\n3\n4\n5\n6\n7\n"))
		} else {
			p.Rows = 7
		}
	})
	c := b.connect(t)
	n, err := c.Exec(b.ctx(t), b.Many)
	if err == nil || n != 7 {
		t.Fatalf("%d rows, %v", n, err)
	}
	b.read(t, c)
}

// aside runs a statement while the check goes on.
func (b *bench) aside(t *testing.T, c Client, text string) <-chan error {
	done := make(chan error, 1)
	ctx := b.ctx(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, err := c.Exec(ctx, text)
		done <- err
	})
	t.Cleanup(wg.Wait)
	return done
}

// started runs a statement on the side and returns once it was admitted.
func (b *bench) started(t *testing.T, c Client, text string) <-chan error {
	t.Helper()
	s := b.door.Last()
	done := b.aside(t, c, text)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(wait)
	for {
		for _, e := range s.Executions() {
			if e.Text == text {
				return done
			}
		}
		select {
		case <-end:
			t.Fatalf("%q was not admitted", text)
		case <-tick.C:
		}
	}
}

func (b *bench) cancel(t *testing.T) {
	c := b.connect(t)
	done := b.started(t, c, b.Slow)
	began := time.Now()
	if err := c.Cancel(b.ctx(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil || time.Since(began) > 5*time.Second {
		t.Fatalf("after %v: %v", time.Since(began), err)
	}
	b.read(t, c)
}

func (b *bench) hold(t *testing.T) {
	asked, said := make(chan struct{}), make(chan error)
	b.door.Set(func(p *Policy) {
		p.Decide = func(text string, _ any) postern.Decision {
			d := postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
			if text == b.Many {
				d.Verdict = postern.VerdictHold
			}
			return d
		}
		p.Await = func(ctx context.Context, progress func(string)) error {
			progress("waiting for leads")
			asked <- struct{}{}
			select {
			case err := <-said:
				return err
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
	c := b.connect(t)
	run := func() <-chan error {
		done := b.aside(t, c, b.Many)
		<-asked
		return done
	}
	done := run()
	if n := len(b.door.Last().Executions()); n != 0 {
		t.Fatal("admitted before the yes")
	}
	said <- &postern.Refusal{Code: postern.CodeCancelled, Reason: "bob said no"}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "bob said no") {
		t.Fatalf("after a no: %v", err)
	}
	done = run()
	said <- nil
	if err := <-done; err != nil {
		t.Fatalf("after a yes: %v", err)
	}
	b.read(t, c)
}

func (b *bench) kill(t *testing.T) {
	other := b.connect(t)
	c := b.connect(t)
	done := b.started(t, c, b.Slow)
	began := time.Now()
	b.door.Last().Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "grant revoked by ada"})
	if err := <-done; err == nil || !strings.Contains(err.Error(), "grant revoked by ada") {
		t.Fatalf("the client was told %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Fatalf("it took %v", took)
	}
	_ = b.door.Last().Closed()
	b.read(t, other)
}

func (b *bench) handshakes(t *testing.T) {
	other := b.connect(t)
	for _, opening := range append(b.Garbage, nil) {
		c, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(opening); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(b.Deadline + 5*time.Second))
		if _, err := io.Copy(io.Discard, io.LimitReader(c, 64<<10)); isTimeout(err) {
			t.Errorf("opening %q: still open after %v", opening, b.Deadline+5*time.Second)
		}
		_ = c.Close()
		b.read(t, other)
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error) //nolint:errorlint // as the net package returns it
	return ok && t.Timeout()
}
