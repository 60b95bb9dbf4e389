package h1

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/pump"
)

const patience = 60 * time.Second

// server answers each connection with a script, and counts them.
type server struct {
	addr  string
	conns atomic.Int64
}

func newServer(t *testing.T, script func(c net.Conn, r *bufio.Reader)) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: ln.Addr().String()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			_ = nc.SetDeadline(time.Now().Add(patience))
			go func() {
				defer nc.Close()
				script(nc, bufio.NewReader(nc))
			}()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return s
}

// says answers every request with a text.
func says(t *testing.T, text string) *server {
	return newServer(t, func(c net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if _, err := io.WriteString(c, text); err != nil || strings.Contains(text, "!close") {
				return
			}
		}
	})
}

func (s *server) client(t *testing.T) *Client {
	t.Helper()
	c := &Client{
		Dial: func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.addr)
		},
		Head: 16 << 10, Idle: 4, IdleFor: patience,
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func newRequest(t *testing.T, method string, body io.Reader) *http.Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, method, "http://h/a?b", body)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestClientReadsAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		method, text, body string
		status             int
		length             int64
		again              bool // the connection serves another request
	}{
		"length":        {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200, 2, true},
		"no reason":     {"GET", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", "", 404, 0, true},
		"chunks":        {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n", "ok!", 200, -1, true},
		"to the end":    {"GET", "HTTP/1.1 200 OK\r\nX: !close\r\n\r\nok", "ok", 200, -1, false},
		"close":         {"GET", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok", "ok", 200, 2, false},
		"old":           {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200, 2, false},
		"interim":       {"GET", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200, 2, true},
		"HEAD":          {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n", "", 200, 200, true},
		"HEAD, chunks":  {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", 200, -1, true},
		"none":          {"DELETE", "HTTP/1.1 204 No Content\r\n\r\n", "", 204, -1, true},
		"not modified":  {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "", 304, 7, true},
		"a false 204":   {"GET", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok", "", 204, 2, false},
		"more than all": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\nforged", "ok", 200, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := says(t, c.text)
			client := s.client(t)
			for range 2 {
				resp, err := client.RoundTrip(newRequest(t, c.method, nil))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || string(b) != c.body || resp.StatusCode != c.status || resp.ContentLength != c.length {
					t.Fatalf("%d %q of %d: %v", resp.StatusCode, b, resp.ContentLength, err)
				}
			}
			if got := s.conns.Load(); got == 1 != c.again {
				t.Errorf("%d connections for two requests", got)
			}
		})
	}
}

// TestClientReadsHeadsAgain: what an answer says is its own, whether the head before said just
// that, or nearly.
func TestClientReadsHeadsAgain(t *testing.T) {
	answers := []struct{ method, head, body string }{
		{"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Id: 1\r\n\r\n", ""},
		{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Id: 1\r\n\r\n", "ab"},
		{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Id: 1\r\n\r\n", "cd"},
		{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Id: 2\r\n\r\n", "efg"},
		{"GET", "HTTP/1.1 404 OK\r\nContent-Length: 3\r\nX-Id: 2\r\n\r\n", "hij"},
		{"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nX-Id: 3\r\n\r\n", "2\r\nkl\r\n0\r\nX-Sum: 5\r\n\r\n"},
		{"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nX-Id: 3\r\n\r\n", "2\r\nmn\r\n0\r\nX-Sum: 6\r\n\r\n"},
		{"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Id: 1\r\n\r\n", "op"},
	}
	s := newServer(t, func(c net.Conn, r *bufio.Reader) {
		for _, a := range answers {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, a.head+a.body)
		}
	})
	client := s.client(t)
	for i, a := range answers {
		resp, err := client.RoundTrip(newRequest(t, a.method, nil))
		if err != nil {
			t.Fatal(i, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		want, werr := http.ReadResponse(bufio.NewReader(strings.NewReader(a.head+a.body)), newRequest(t, a.method, nil))
		if werr != nil {
			t.Fatal(werr)
		}
		all, _ := io.ReadAll(want.Body)
		if err != nil || resp.Status != want.Status || resp.Header.Get("X-Id") != want.Header.Get("X-Id") || resp.Trailer.Get("X-Sum") != want.Trailer.Get("X-Sum") || string(body) != string(all) {
			t.Errorf("%d: %v %q (%v), want %v %q", i, resp, body, err, want, all)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestClientReadsTrailers(t *testing.T) {
	s := says(t, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\nX-Late: 8\r\n\r\n")
	resp, err := s.client(t).RoundTrip(newRequest(t, "GET", nil))
	if err != nil {
		t.Fatal(err)
	}
	if v, named := resp.Trailer["X-Sum"]; !named || v != nil || resp.Header["Trailer"] != nil {
		t.Errorf("before the body: %v %v", resp.Trailer, resp.Header)
	}
	if _, err := io.ReadAll(resp.Body); err != nil || resp.Trailer.Get("X-Sum") != "7" || resp.Trailer.Get("X-Late") != "8" {
		t.Errorf("%v %v", resp.Trailer, err)
	}
}

// TestClientGuessesNothing: an answer that two clients would read in two ways is refused,
// and its connection is not used again.
func TestClientGuessesNothing(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, text := range map[string]string{
		"length and chunks":  ok + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":        ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
		"a list of lengths":  ok + "Content-Length: 1, 1\r\n\r\nx",
		"signed length":      ok + "Content-Length: -1\r\n\r\nx",
		"another coding":     ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"two codings":        ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks in HTTP/1.0": "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"bare LF":            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"folded":             ok + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
		"space before colon": ok + "Content-Length : 1\r\n\r\nx",
		"NUL":                ok + "X: a\x00\r\nContent-Length: 0\r\n\r\n",
		"CR in the reason":   "HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
		"an empty line":      "\r\n" + ok + "Content-Length: 0\r\n\r\n",
		"HTTP/2":             "HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
		"another protocol":   "SSH-2.0-x\r\n\r\n",
		"odd status":         "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
		"low status":         "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
		"signed status":      "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
		"unasked upgrade":    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
		"giant head":         ok + "X: " + strings.Repeat("a", 32<<10) + "\r\n\r\n",
		"many headers":       ok + strings.Repeat("a: b\r\n", maxHeaders+1) + "\r\n",
		"many interims":      strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", maxInterim+1) + ok + "Content-Length: 0\r\n\r\n",
		"chunk extension":    ok + "Transfer-Encoding: chunked\r\n\r\n1;a\r\nx\r\n0\r\n\r\n",
		"length in trailer":  ok + "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := says(t, text)
			client := s.client(t)
			for range 2 {
				resp, err := client.RoundTrip(newRequest(t, "GET", nil))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
				}
				var e *Error
				if !errors.As(err, &e) {
					t.Fatalf("it was read: %v", err)
				}
			}
			if n := s.conns.Load(); n != 2 {
				t.Errorf("%d connections for two requests", n)
			}
		})
	}
}

// TestClientBreaksOff: an answer that ends early is never taken for a whole one.
func TestClientBreaksOff(t *testing.T) {
	for name, text := range map[string]string{
		"head": "HTTP/1.1 200 OK\r\nX: !close\r\n", "length": "HTTP/1.1 200 OK\r\nX: !close\r\nContent-Length: 3\r\n\r\nx",
		"chunk": "HTTP/1.1 200 OK\r\nX: !close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nx", "last chunk": "HTTP/1.1 200 OK\r\nX: !close\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := says(t, text).client(t).RoundTrip(newRequest(t, "GET", nil))
			if err == nil {
				_, err = io.ReadAll(resp.Body)
			}
			if err == nil || errors.Is(err, io.EOF) {
				t.Errorf("it is whole: %v", err)
			}
		})
	}
}

// TestClientRepeats: a connection that the server has closed meanwhile costs nothing but
// another one, unless the server may have done something already.
func TestClientRepeats(t *testing.T) {
	for _, c := range []struct {
		method string
		body   string
		err    bool
	}{{method: "GET"}, {method: "HEAD"}, {method: "POST", body: "x", err: true}, {method: "DELETE", err: true}} {
		t.Run(c.method, func(t *testing.T) {
			var asked atomic.Int64
			s := newServer(t, func(nc net.Conn, r *bufio.Reader) {
				for range 2 {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					if n := asked.Add(1); n == 2 {
						return // it has read the second request, and says nothing
					}
					_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			client := s.client(t)
			var err error
			for range 2 {
				var resp *http.Response
				if resp, err = client.RoundTrip(newRequest(t, c.method, strings.NewReader(c.body))); err == nil {
					_ = resp.Body.Close()
				}
			}
			if (err != nil) != c.err {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestClientLeavesClosed: what the server has closed or spoken on since is not used.
func TestClientLeavesClosed(t *testing.T) {
	for name, after := range map[string]string{"closed": "", "spoken on": "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"} {
		t.Run(name, func(t *testing.T) {
			spoken := make(chan struct{}, 2)
			begin := make(chan struct{})
			s := newServer(t, func(nc net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				<-begin
				_, _ = io.WriteString(nc, after)
				if after == "" {
					_ = nc.Close()
				}
				spoken <- struct{}{}
				_, _ = r.ReadByte()
			})
			client := s.client(t)
			for i := range 2 {
				resp, err := client.RoundTrip(newRequest(t, "POST", nil))
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "ok" {
					t.Fatalf("%q %v", b, err)
				}
				if i == 0 {
					close(begin)
					<-spoken
					arrived(t, client)
				}
			}
			if n := s.conns.Load(); n != 2 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// arrived waits until what the server did on a connection that is kept can be seen there.
func arrived(t *testing.T, c *Client) {
	t.Helper()
	c.mu.Lock()
	l := c.idle[0]
	c.mu.Unlock()
	_ = l.nc.SetReadDeadline(time.Now().Add(patience))
	raw, err := l.nc.(*pump.Feed).Conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
		return !errors.Is(err, syscall.EAGAIN)
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.nc.SetReadDeadline(time.Time{})
}

// FuzzAnswer: what is taken for an answer is the same one to net/http.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nok", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 304 X\r\nContent-Length: 3\r\n\r\n",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			f.Add(method, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, method string, b []byte) {
		if method != "HEAD" {
			method = "GET"
		}
		near, far := net.Pipe()
		defer near.Close()
		go func() {
			defer far.Close()
			if _, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
				_, _ = far.Write(b)
			}
		}()
		c := &Client{Dial: func(context.Context) (net.Conn, error) { return near, nil }, Head: 8 << 10}
		r, _ := http.NewRequest(method, "http://h/", nil)
		resp, err := c.RoundTrip(r)
		if err != nil {
			return
		}
		mine, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return
		}
		from := bufio.NewReader(bytes.NewReader(b))
		theirs, err := http.ReadResponse(from, r)
		for err == nil && theirs.StatusCode < 200 {
			theirs, err = http.ReadResponse(from, r)
		}
		if err != nil {
			return // they refuse more
		}
		body, err := io.ReadAll(theirs.Body)
		if err != nil {
			return
		}
		if theirs.StatusCode != resp.StatusCode || !bytes.Equal(mine, body) {
			t.Fatalf("%q: %d %q %v, and to net/http %d %q %v", b, resp.StatusCode, mine, resp.Header, theirs.StatusCode, body, theirs.Header)
		}
	})
}
