package ssh

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/test/wait"
)

// await waits until something holds.

// tags are how the executions with a text ended.
func (h *house) tags(text string) []string {
	var out []string
	for _, e := range h.door.Last().Executions() {
		if e.Text == text && e.Done == 1 {
			out = append(out, e.Outcome.Tag+e.Outcome.Code)
		}
	}
	return out
}

func TestForward(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b := make([]byte, 5)
			n, _ := io.ReadFull(c, b)
			_, _ = c.Write(bytes.ToUpper(b[:n]))
			_ = c.Close()
		}
	}()
	h := newHouse(t)
	only(h, func(f *facts.Facts) bool { return f.Verb == facts.Connect && f.Address == l.Addr().String() })
	c := h.connect(t)
	far, err := c.DialContext(testContext(t), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := far.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(far, b); err != nil || string(b) != "HELLO" {
		t.Errorf("%q %v", b[:n], err)
	}
	_ = far.Close()
	if _, err := c.DialContext(testContext(t), "tcp", "127.0.0.1:1"); err == nil {
		t.Error("another address was reached")
	}
	wait.For(t, "the bytes are recorded", func() bool {
		return fmt.Sprint(h.tags("connect "+l.Addr().String())) == "[sent 5 bytes, received 5]"
	})
}

// free is a port of loopback that nobody listens at.
func free(t *testing.T) uint32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

// TestListen: the host listens where the task says and nowhere else, what connects there
// reaches the client, and all of it ends with the session.
func TestListen(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Listeners = 2 })
	at := address{"127.0.0.1", free(t)}
	only(h, func(f *facts.Facts) bool {
		return f.Verb == facts.Listen && (f.Address == at.String() || f.Address == "127.0.0.1:0" || f.Address == "localhost:0")
	})
	c := h.connect(t)
	for _, other := range []address{{"127.0.0.1", free(t)}, {"", at.Port}, {"0.0.0.0", at.Port}, {"localhost", at.Port}, {"127.0.0.1", 70000}} {
		if ok, _, err := c.SendRequest("tcpip-forward", true, ssh.Marshal(other)); ok || err != nil {
			t.Errorf("the host listens at %s: %v", other, err)
		}
	}
	if ok, _, err := c.SendRequest("tcpip-forward", true, []byte("nonsense")); ok || err != nil {
		t.Errorf("nonsense: %v %v", ok, err)
	}
	l, err := c.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	if ok, _, _ := c.SendRequest("tcpip-forward", true, ssh.Marshal(at)); ok {
		t.Error("it listens twice at one address")
	}
	echo := func() {
		t.Helper()
		d := net.Dialer{Timeout: 10 * time.Second}
		at, err := d.DialContext(testContext(t), "tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer at.Close()
		near, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		if near.RemoteAddr().String() != at.LocalAddr().String() {
			t.Errorf("it comes from %s and is said to come from %s", at.LocalAddr(), near.RemoteAddr())
		}
		if _, err := at.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(near, b); err != nil || string(b) != "hello" {
			t.Errorf("%q %v", b, err)
		}
		if _, err := near.Write([]byte("yes")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(at, b[:3]); err != nil || string(b[:3]) != "yes" {
			t.Errorf("%q %v", b, err)
		}
	}
	echo()
	echo()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	wait.For(t, "what was forwarded is recorded", func() bool {
		return fmt.Sprint(h.tags("listen "+at.String())) == "[2 connections, sent 6 bytes, received 10]"
	})
	if _, err := net.Dial("tcp", at.String()); err == nil {
		t.Error("the host still listens")
	}
	// The host chooses a port, and a killed session leaves nobody listening.
	chosen, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Listen("tcp", "localhost:0"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Listen("tcp", at.String()); err == nil {
		t.Error("a third address, and 2 are allowed")
	}
	far, err := net.Dial("tcp", chosen.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	if _, err := chosen.Accept(); err != nil {
		t.Fatal(err)
	}
	h.door.Last().Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "enough"})
	_ = far.SetReadDeadline(time.Now().Add(wait.Patience))
	if _, err := far.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection is not cut: %v", err)
	}
	wait.For(t, "nobody listens", func() bool {
		n, err := net.Dial("tcp", chosen.Addr().String())
		if err == nil {
			_ = n.Close()
		}
		return err != nil
	})
}

// TestListenLimit: what comes in by a forward uses the task's bytes.
func TestListenLimit(t *testing.T) {
	h := newHouse(t)
	only(h, func(f *facts.Facts) bool { return f.Verb == facts.Listen })
	h.door.Set(func(p *enginetest.Policy) { p.Bytes = 10 })
	l, err := h.connect(t).Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.Write(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if got, _ := io.ReadAll(near); len(got) > 10 {
		t.Errorf("%d bytes came, and 10 are allowed", len(got))
	}
}
