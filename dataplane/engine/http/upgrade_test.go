package http

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
)

// TestWebSocket: the connection becomes one where the resource agrees, bytes go both ways,
// and it ends with its session.
func TestWebSocket(t *testing.T) {
	h := newHouse(t)
	h.mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-Websocket-Key") != "k" || r.Header["Sec-Websocket-Extensions"] != nil {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		c, b, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\nSet-Cookie: a=b; Domain=example.com; Path=/\r\n\r\n")
		for {
			line, err := b.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "heard %s", line)
		}
	})
	c := dialRaw(t, h.addr)
	r := bufio.NewReader(c)
	_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nPostern-Task: t.target\r\nAuthorization: Bearer "+enginetest.Token+
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-Websocket-Accept") != "a" {
		t.Fatal(resp, err)
	}
	if got := resp.Header["Set-Cookie"]; len(got) != 1 || got[0] != "a=b; Path=/" {
		t.Errorf("a cookie goes to other hosts: %q", got)
	}
	for _, word := range []string{"one", "two"} {
		_, _ = io.WriteString(c, word+"\n")
		if line, err := r.ReadString('\n'); err != nil || line != "heard "+word+"\n" {
			t.Fatalf("%q %v", line, err)
		}
	}
	s := h.door.Last()
	s.Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "enough"})
	if line, err := r.ReadString('\n'); err == nil {
		t.Fatalf("after the end: %q", line)
	}
	_ = s.Closed()
	e := s.Executions()
	if last := e[len(e)-1]; last.Text != "GET /ws" || !strings.Contains(string(last.Data), "heard two") || last.Outcome.Code != "killed" {
		t.Errorf("%+v", last)
	}
}

// TestWebSocketThatTakesNothing: a client that does not read what comes is let go after a time.
func TestWebSocketThatTakesNothing(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Taking = time.Second })
	over := make(chan struct{})
	h.mux.HandleFunc("/ws", func(w http.ResponseWriter, _ *http.Request) {
		defer close(over)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		for part := []byte(strings.Repeat("x", 64<<10)); err == nil; {
			_, err = c.Write(part)
		}
	})
	c := dialRaw(t, h.addr)
	_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nPostern-Task: t.target\r\nAuthorization: Bearer "+enginetest.Token+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	select {
	case <-over:
	case <-time.After(time.Minute):
		t.Fatal("the resource still waits for the client")
	}
	s := h.door.Last()
	_ = s.Closed()
	e := s.Executions()
	if last := e[len(e)-1]; last.Outcome.Code != "cancelled" || !strings.Contains(last.Outcome.Message, "took nothing") {
		t.Errorf("%+v", last.Outcome)
	}
}

// TestUpgradeRefused: where the resource does not agree, its answer is passed on.
func TestUpgradeRefused(t *testing.T) {
	h := newHouse(t)
	got := h.raw(t, "GET /lines?n=2 HTTP/1.1\r\nHost: x\r\nPostern-Task: t.target\r\nAuthorization: Bearer "+enginetest.Token+
		"\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.HasSuffix(got, "1\n2\n") {
		t.Errorf("%q", got)
	}
}
