package http

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/test/wait"
)

// theSecret is what the resource asks for, and no client may see.
const theSecret = "sk_live_do_not_show"

// resource is a server that asks for the credential. It is started for each test.
type resource struct {
	*httptest.Server
	mux *http.ServeMux
}

func newResource(t testing.TB) *resource {
	t.Helper()
	r := &resource{mux: http.NewServeMux()}
	r.mux.HandleFunc("/lines", func(w http.ResponseWriter, req *http.Request) {
		n, _ := strconv.Atoi(req.URL.Query().Get("n"))
		for i := range n {
			_, _ = fmt.Fprintln(w, i+1)
		}
	})
	r.mux.HandleFunc("/slow", func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-req.Context().Done():
		case <-time.After(wait.Patience):
		}
	})
	r.mux.HandleFunc("/echo", func(w http.ResponseWriter, req *http.Request) { _ = req.Write(w) })
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "Bearer "+theSecret {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		r.mux.ServeHTTP(w, req)
	}))
	r.EnableHTTP2 = true
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

func (r *resource) terms() engine.Terms {
	host, port, _ := net.SplitHostPort(r.Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	return engine.Terms{
		Task: "t", Resource: "target", Subject: "alice", Host: host, Port: n,
		HTTP: engine.HTTPTerms{Authority: "orders.internal", Auth: "bearer"},
		TLS:  engine.TLSTerms{Mode: "verify-full", ServerName: "example.com", CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})},
	}
}

func credential(engine.Purpose) engine.Credential {
	return engine.Credential{Password: secret.FromString(theSecret)}
}

// house is an engine that serves, with a script in the place of the house.
type house struct {
	door *enginetest.Door
	addr string
	*resource
}

func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	h := &house{resource: newResource(t)}
	cfg := Config{AllowPlaintext: true, Limits: request.Limits{Linger: 50 * time.Millisecond}}
	for _, c := range change {
		c(&cfg)
	}
	h.door = enginetest.NewDoor(t, h.terms(), credential)
	h.addr = enginetest.Serve(t, New(cfg), h.door)
	return h
}

// client is Go's own client.
type client struct {
	http.Client
	base, permission, token string

	mu     sync.Mutex
	cancel context.CancelFunc
}

func newClient(addr, permission, token string) *client {
	return &client{Client: http.Client{Transport: &http.Transport{}}, base: "http://" + addr, permission: permission, token: token}
}

func dial(ctx context.Context, addr, permission, token string) (enginetest.Client, error) {
	c := newClient(addr, permission, token)
	if _, err := c.Exec(ctx, "GET "+ownPath+"session"); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) request(ctx context.Context, text string, body io.Reader) (*http.Response, error) {
	method, target, _ := strings.Cut(text, " ")
	req, err := http.NewRequestWithContext(ctx, method, c.base+target, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set(request.TaskHeader, c.permission)
	return c.Do(req)
}

func (c *client) Exec(ctx context.Context, text string) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.cancel = cancel
	c.mu.Unlock()
	resp, err := c.request(ctx, text, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return 0, fmt.Errorf("%s: %s", resp.Status, b)
	}
	n := 0
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		n++
	}
	return n, lines.Err()
}

func (c *client) Cancel(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel == nil {
		return errors.New("nothing runs")
	}
	c.cancel()
	return nil
}

func (c *client) Close() { c.CloseIdleConnections() }

func TestConformance(t *testing.T) {
	const deadline = 500 * time.Millisecond
	r := newResource(t)
	enginetest.Run(t, enginetest.Protocol{
		Engine: func(testing.TB) engine.Engine {
			return New(Config{AllowPlaintext: true, Limits: request.Limits{Handshake: deadline, Linger: 50 * time.Millisecond}})
		},
		Deadline: deadline, Terms: r.terms(), Credential: credential, Secret: theSecret,
		Connect: dial,
		Lines:   true,
		Read:    "GET /lines?n=3", Many: "GET /lines?n=100", Slow: "GET /slow", Denied: "POST /lines?n=1",
		Garbage: [][]byte{
			[]byte("SSH-2.0-x\r\n"), {0}, []byte(strings.Repeat("x", 4096)), []byte("GET / HTTP/9.9\r\n\r\n"), []byte("GET /\r\n"),
			[]byte("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff"),
		},
	})
}

func dialRaw(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(wait.Patience))
	return c
}
