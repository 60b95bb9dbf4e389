package listen

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// echo answers each connection with what it says; "panic" makes it panic.
type echo struct{}

func (echo) Protocol() postern.Protocol { return "echo" }
func (echo) Serve(ctx context.Context, c net.Conn, _ engine.Door) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	b := make([]byte, 5)
	for {
		if _, err := io.ReadFull(c, b); err != nil {
			return c.Close()
		}
		if string(b) == "panic" {
			panic("oh")
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
}

func start(t *testing.T, maxConns int) (*Listener, func() error) {
	t.Helper()
	return startLogged(t, maxConns, slog.New(slog.DiscardHandler))
}

func startLogged(t *testing.T, maxConns int, logger *slog.Logger) (*Listener, func() error) {
	t.Helper()
	l, err := New(Config{Addr: "127.0.0.1:0", Engine: echo{}, MaxConns: maxConns, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop := func() error {
		cancel()
		select {
		case err := <-done:
			done <- err
			return err
		case <-time.After(time.Minute):
			t.Error("Run does not end")
			return nil
		}
	}
	t.Cleanup(func() { _ = stop() })
	return l, stop
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

func says(t *testing.T, c net.Conn, word string) error {
	t.Helper()
	if _, err := io.WriteString(c, word); err != nil {
		return err
	}
	b := make([]byte, len(word))
	_, err := io.ReadFull(c, b)
	if err == nil && string(b) != word {
		t.Errorf("answer %q, want %q", b, word)
	}
	return err
}

func TestPanicStaysWithItsConnection(t *testing.T) {
	l, _ := start(t, 0)
	good, bad := dial(t, l), dial(t, l)
	if err := says(t, good, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := says(t, bad, "panic"); err == nil {
		t.Error("the connection that panicked lives")
	}
	if err := says(t, good, "still"); err != nil {
		t.Errorf("the other connection: %v", err)
	}
}

// TestMoreThanMaxConnsAreClosed: and operators are told, once for many.
func TestMoreThanMaxConnsAreClosed(t *testing.T) {
	var log bytes.Buffer
	l, stop := startLogged(t, 1, slog.New(slog.NewTextHandler(&log, nil)))
	first := dial(t, l)
	if err := says(t, first, "hello"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := says(t, dial(t, l), "hello"); err == nil {
			t.Error("a second connection was served")
		}
	}
	if err := says(t, first, "again"); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "listener is full"); n != 1 || !strings.Contains(log.String(), "max_conns=1") {
		t.Errorf("operators were told %d times: %s", n, log.String())
	}
}

func TestDrainLetsConnectionsGoOn(t *testing.T) {
	l, stop := start(t, 0)
	c := dial(t, l)
	if err := says(t, c, "hello"); err != nil {
		t.Fatal(err)
	}
	l.Drain()
	l.Drain()
	if _, err := net.DialTimeout("tcp", l.Addr().String(), time.Second); err == nil {
		t.Error("a draining listener accepted")
	}
	if err := says(t, c, "still"); err != nil {
		t.Errorf("the connection of before: %v", err)
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	if err := says(t, c, "ended"); err == nil {
		t.Error("a connection outlived Run")
	}
}
