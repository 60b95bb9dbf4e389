package h1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestClientSendsBodies(t *testing.T) {
	s := newServer(t, func(nc net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			b, err := io.ReadAll(req.Body)
			if err != nil {
				return
			}
			said := fmt.Sprintf("%d %v %d %s", req.ContentLength, req.TransferEncoding, len(b), req.Trailer.Get("X-Sum"))
			_, _ = fmt.Fprintf(nc, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(said), said)
		}
	})
	client := s.client(t)
	const size = 300_000
	large := bytes.Repeat([]byte("x"), size)
	for name, c := range map[string]struct {
		change func(r *http.Request)
		want   string
	}{
		"none": {func(*http.Request) {}, "0 [] 0 "},
		"in memory": {func(r *http.Request) {
			r.Body, r.GetBody, r.ContentLength = body3(), func() (io.ReadCloser, error) { return body3(), nil }, 3
		}, "3 [] 3 "},
		"a stream":   {func(r *http.Request) { r.Body, r.ContentLength = body3(), 3 }, "3 [] 3 "},
		"large":      {func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(large)), size }, "300000 [] 300000 "},
		"chunks":     {func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(large)), -1 }, "-1 [chunked] 300000 "},
		"no trailer": {func(r *http.Request) { r.Body, r.ContentLength, r.Trailer = body3(), -1, http.Header{"X-Sum": {"7"}} }, "-1 [chunked] 3 "},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRequest(t, "POST", nil)
			c.change(r)
			resp, err := client.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(resp.Body); err != nil || string(b) != c.want {
				t.Errorf("%q %v, want %q", b, err, c.want)
			}
		})
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func body3() io.ReadCloser { return io.NopCloser(strings.NewReader("abc")) }

// TestClientNeverHalves: of a body that ends early the server gets no end, and a longer one
// than was said brings nothing behind the end.
func TestClientNeverHalves(t *testing.T) {
	for name, c := range map[string]struct {
		length int64
		body   io.Reader
	}{
		"shorter":  {10, strings.NewReader("abc")},
		"broken":   {-1, io.MultiReader(strings.NewReader("abc"), broken{})},
		"longer":   {2, strings.NewReader("abcGET / HTTP/1.1\r\nHost: h\r\n\r\n")},
		"too much": {3, io.MultiReader(strings.NewReader("abc"), strings.NewReader("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			s := newServer(t, func(_ net.Conn, r *bufio.Reader) {
				b, _ := io.ReadAll(r)
				got <- string(b)
			})
			r := newRequest(t, "POST", nil)
			r.Body, r.ContentLength = io.NopCloser(c.body), c.length
			if _, err := s.client(t).RoundTrip(r); err == nil {
				t.Fatal("it was answered")
			}
			if b := <-got; strings.Contains(b, "GET") || strings.HasSuffix(b, "0\r\n\r\n") {
				t.Errorf("the server read %q", b)
			}
		})
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

// stuck is a body that never comes, until it is closed.
type stuck struct{ closed chan struct{} }

func (s *stuck) Read([]byte) (int, error) { <-s.closed; return 0, errors.New("closed") }
func (s *stuck) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}

// TestClientEarlyAnswer: an answer that comes before all has been sent is read to its end,
// and then nothing reads the body any more.
func TestClientEarlyAnswer(t *testing.T) {
	s := newServer(t, func(nc net.Conn, r *bufio.Reader) {
		_, _ = r.Peek(1)
		_, _ = io.WriteString(nc, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
		_, _ = io.Copy(io.Discard, r)
	})
	r := newRequest(t, "POST", nil)
	body := &stuck{make(chan struct{})}
	r.Body, r.ContentLength = body, 5
	resp, err := s.client(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil || string(b) != "no" || resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %q %v", resp.StatusCode, b, err)
	}
	<-body.closed
}

func TestClientIsCancelled(t *testing.T) {
	s := newServer(t, func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("no more")
	r := newRequest(t, "POST", nil).WithContext(ctx)
	body := &stuck{make(chan struct{})}
	r.Body, r.ContentLength = body, -1
	time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
	if _, err := s.client(t).RoundTrip(r); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	<-body.closed
}

func TestClientUpgrades(t *testing.T) {
	s := newServer(t, func(nc net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil || req.Header.Get("Upgrade") != "websocket" {
			return
		}
		_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello")
		_, _ = io.Copy(nc, r)
	})
	r := newRequest(t, "GET", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	resp, err := s.client(t).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	conn, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%d", resp.StatusCode)
	}
	_, _ = io.WriteString(conn, " you")
	b := make([]byte, 9)
	if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello you" {
		t.Errorf("%q %v", b, err)
	}
	_ = conn.Close()
	if _, err := conn.Read(b); err == nil {
		t.Error("it is still open")
	}
}

// TestClientWritesNothingElse: no method, target or header ends its line.
func TestClientWritesNothingElse(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"method": func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX:" },
		"host":   func(r *http.Request) { r.Host = "h\r\nX: y" },
		"target": func(r *http.Request) { r.URL.RawQuery = "a b" },
		"name":   func(r *http.Request) { r.Header["X\r\nY"] = []string{"z"} },
		"value":  func(r *http.Request) { r.Header["X"] = []string{"z\r\nY: z"} },
		"colon":  func(r *http.Request) { r.Header["X:"] = []string{"z"} },
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan string, 1)
			s := newServer(t, func(_ net.Conn, r *bufio.Reader) {
				b, _ := io.ReadAll(r)
				got <- string(b)
			})
			r := newRequest(t, "GET", nil)
			change(r)
			if _, err := s.client(t).RoundTrip(r); err == nil {
				t.Fatal("it was sent")
			}
			if b := <-got; b != "" {
				t.Errorf("the server read %q", b)
			}
		})
	}
}
