package request

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/test/wait"
)

// TestConnectionsForget: one that stays open keeps nothing of sessions that have ended.
func TestConnectionsForget(t *testing.T) {
	var conn *Conn
	s := NewServer(Config{AllowPlaintext: true, Limits: Limits{Linger: time.Millisecond}, Serve: func(w http.ResponseWriter, r *http.Request, h *Head, c *Conn) {
		conn = c
		claim, err := h.Claim(postern.HTTP, r)
		if err != nil {
			t.Error(err)
			return
		}
		v, err := c.Join(r.Context(), claim)
		if err != nil {
			t.Error(err)
			return
		}
		c.Stay(r, v)
		c.Leave(v)
	}})
	door := enginetest.NewDoor(t, engine.Terms{Task: "t", Resource: "target", TLS: engine.TLSTerms{Mode: "disable"}}, nil)
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(t.Context(), there, door)
	}()
	defer func() { _ = here.Close(); <-done }()
	r := bufio.NewReader(here)
	for i := range 10 {
		_, _ = io.WriteString(here, "GET / HTTP/1.1\r\nHost: x\r\nPostern-Task: t.target\r\nAuthorization: Bearer "+enginetest.Token+"\r\n\r\n")
		if _, err := http.ReadResponse(r, nil); err != nil {
			t.Fatal(err)
		}
		door.Last().Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "enough"})
		_ = door.Last().Closed()
		wait.For(t, "a session that nothing joins", func() bool {
			s.book.mu.Lock()
			defer s.book.mu.Unlock()
			return len(s.book.visits) == 0
		})
		conn.mu.Lock()
		if n := len(conn.visits); n > 1 {
			t.Errorf("after %d sessions it keeps %d", i+1, n)
		}
		conn.mu.Unlock()
	}
}
