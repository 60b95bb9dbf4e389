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
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/wait"
)

// serve runs a handler behind a socket, and returns a way to speak to it by hand.
func serve(t *testing.T, h http.HandlerFunc) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		_ = Serve(ctx, nc, Config{
			Head: 16 << 10, Begin: 2 * time.Second, Idle: 30 * time.Second, Stall: 2 * time.Second, Take: 2 * time.Second,
			Bad: func(w http.ResponseWriter, err *Error) { http.Error(w, err.Reason, http.StatusBadRequest) },
		}, h)
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(wait.Patience))
	t.Cleanup(func() { cancel(); _ = c.Close(); _ = ln.Close(); <-done })
	return c
}

// echo says what came.
func echo(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_, _ = io.WriteString(w, r.Method+" "+r.RequestURI+" "+r.Host+" "+string(b))
	for name, v := range r.Trailer {
		_, _ = io.WriteString(w, " "+name+"="+v[0])
	}
}

func TestRequests(t *testing.T) {
	for name, c := range map[string]struct{ ask, want string }{
		"get":        {"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n", "GET /a?b h "},
		"after CRLF": {"\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / h "},
		"length":     {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", "POST / h abc"},
		"chunked":    {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nA\r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\n", "POST / h ab0123456789 X-Sum=7"},
		"old":        {"GET / HTTP/1.0\r\n\r\n", "GET /  "},
	} {
		t.Run(name, func(t *testing.T) {
			conn := serve(t, echo)
			r := bufio.NewReader(conn)
			for range 2 { // one after the other
				if _, err := io.WriteString(conn, c.ask); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				if err != nil || string(b) != c.want {
					t.Errorf("%q %v, want %q", b, err, c.want)
				}
				if name == "old" {
					break
				}
			}
		})
	}
}

// TestMemo: what a handler remembers of headers is there for as long as they are the same.
func TestMemo(t *testing.T) {
	heads := 0
	conn := serve(t, func(w http.ResponseWriter, r *http.Request) {
		memo := Memo(w)
		if *memo == nil {
			heads++
			*memo = heads
		}
		b, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprint(w, r.RequestURI, " ", *memo, " ", r.Header.Get("X"), " ", r.Host, " ", string(b))
	})
	r := bufio.NewReader(conn)
	for _, c := range []struct{ ask, want string }{
		{"GET /a HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n", "/a 1 1 h "},
		{"GET /b HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n", "/b 1 1 h "},
		{"GET /b HTTP/1.1\r\nHost: i\r\nX: 1\r\n\r\n", "/b 2 1 i "},
		{"GET /b HTTP/1.1\r\nHost: i\r\nX: 2\r\n\r\n", "/b 3 2 i "},
		{"POST /b HTTP/1.1\r\nHost: i\r\nContent-Length: 1\r\n\r\nx", "/b 4  i x"},
		{"POST /b HTTP/1.1\r\nHost: i\r\nContent-Length: 1\r\n\r\ny", "/b 5  i y"},
		{"GET /b HTTP/1.1\r\nHost: h\r\nX: 1\r\n\r\n", "/b 6 1 h "},
		{"GET /b HTTP/1.0\r\nHost: h\r\nX: 1\r\n\r\n", "/b 7 1 h "},
	} {
		if _, err := io.WriteString(conn, c.ask); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != c.want {
			t.Errorf("%q: %q %v, want %q", c.ask, b, err, c.want)
		}
	}
}

func TestSmuggling(t *testing.T) {
	const tail = "Host: h\r\n"
	for name, ask := range map[string]string{
		"length and chunks":      "POST / HTTP/1.1\r\n" + tail + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
		"two lengths":            "POST / HTTP/1.1\r\n" + tail + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nX",
		"a list of lengths":      "POST / HTTP/1.1\r\n" + tail + "Content-Length: 1, 1\r\n\r\nX",
		"signed length":          "POST / HTTP/1.1\r\n" + tail + "Content-Length: +1\r\n\r\nX",
		"huge length":            "POST / HTTP/1.1\r\n" + tail + "Content-Length: 99999999999999999999\r\n\r\nX",
		"xchunked":               "POST / HTTP/1.1\r\n" + tail + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"two codings":            "POST / HTTP/1.1\r\n" + tail + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"chunked and more":       "POST / HTTP/1.1\r\n" + tail + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"tab coding":             "POST / HTTP/1.1\r\n" + tail + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
		"space before colon":     "POST / HTTP/1.1\r\n" + tail + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
		"folded":                 "GET / HTTP/1.1\r\n" + tail + "X: a\r\n b\r\n\r\n",
		"bare LF":                "GET / HTTP/1.1\n" + tail + "\r\n",
		"bare LF in headers":     "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n",
		"bare CR":                "GET / HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n\r\n",
		"NUL":                    "GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n",
		"no host":                "GET / HTTP/1.1\r\n\r\n",
		"two hosts":              "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"odd host":               "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
		"space in target":        "GET /a b HTTP/1.1\r\n" + tail + "\r\n",
		"odd version":            "GET / HTTP/1.2\r\n" + tail + "\r\n",
		"HTTP/0.9":               "GET /\r\n\r\n",
		"chunks in HTTP/1.0":     "POST / HTTP/1.0\r\n" + tail + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"header without colon":   "GET / HTTP/1.1\r\n" + tail + "nonsense\r\n\r\n",
		"giant head":             "GET / HTTP/1.1\r\n" + tail + "X: " + strings.Repeat("a", 32<<10) + "\r\n\r\n",
		"many headers":           "GET / HTTP/1.1\r\n" + tail + strings.Repeat("a: b\r\n", 500) + "\r\n",
		"unknown expectation":    "POST / HTTP/1.1\r\n" + tail + "Expect: wonders\r\nContent-Length: 1\r\n\r\nX",
		"two versions on a line": "GET / HTTP/1.1 HTTP/1.1\r\n" + tail + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("it was taken for a request") })
			_, _ = io.WriteString(conn, ask+"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				return // the connection has ended, which is as good
			}
			if resp.StatusCode != http.StatusBadRequest || !resp.Close {
				t.Errorf("%s, close %t", resp.Status, resp.Close)
			}
		})
	}
	for name, chunks := range map[string]string{
		"extension": "1;a=b\r\nX\r\n0\r\n\r\n", "space": "1 \r\nX\r\n0\r\n\r\n", "sign": "+1\r\nX\r\n0\r\n\r\n", "0x": "0x1\r\nX\r\n0\r\n\r\n", "LF": "1\nX\r\n0\r\n\r\n",
		"longer than said": "1\r\nXY\r\n0\r\n\r\n", "overflow": "FFFFFFFFFFFFFFFFF\r\nX\r\n0\r\n\r\n", "host behind": "0\r\nHost: x\r\n\r\n", "empty size": "\r\nX\r\n0\r\n\r\n",
	} {
		t.Run("chunk "+name, func(t *testing.T) {
			broken := make(chan error, 1)
			conn := serve(t, func(_ http.ResponseWriter, r *http.Request) {
				_, err := io.ReadAll(r.Body)
				broken <- err
				panic(http.ErrAbortHandler)
			})
			_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"+chunks)
			var e *Error
			if err := <-broken; !errors.As(err, &e) {
				t.Errorf("it was read: %v", err)
			}
		})
	}
}

// TestAnswers: what a handler writes is what a client reads, framed as it must be.
func TestAnswers(t *testing.T) {
	large := strings.Repeat("0123456789", 20_000)
	conn := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.RequestURI {
		case "/length":
			w.Header().Set("Content-Length", strconv.Itoa(len(large)))
			_, _ = io.WriteString(w, large)
		case "/stream":
			for range 3 {
				_, _ = io.WriteString(w, large)
				w.(http.Flusher).Flush()
			}
		case "/trailer":
			w.Header().Set("Trailer", "Grpc-Status")
			_, _ = io.WriteString(w, "x")
			w.Header().Set("Grpc-Status", "0")
			w.Header().Set(http.TrailerPrefix+"Later", "1")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/split":
			w.Header()["X-Bad"] = []string{"a\r\nSet-Cookie: b"}
		}
	})
	r := bufio.NewReader(conn)
	ask := func(method, path string) (*http.Response, string) {
		t.Helper()
		_, _ = io.WriteString(conn, method+" "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			t.Fatal(path, err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(path, err)
		}
		return resp, string(b)
	}
	if resp, b := ask("GET", "/length"); b != large || resp.ContentLength != int64(len(large)) {
		t.Errorf("%d of %d", len(b), resp.ContentLength)
	}
	if resp, b := ask("HEAD", "/length"); b != "" || resp.ContentLength != int64(len(large)) {
		t.Errorf("HEAD: %d %d", len(b), resp.ContentLength)
	}
	if _, b := ask("GET", "/stream"); b != large+large+large {
		t.Error("the stream is another")
	}
	if resp, _ := ask("GET", "/trailer"); resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Later") != "1" {
		t.Errorf("trailer %v", resp.Trailer)
	}
	if resp, b := ask("GET", "/none"); resp.StatusCode != http.StatusNoContent || b != "" {
		t.Errorf("%s %q", resp.Status, b)
	}
	if resp, _ := ask("GET", "/split"); resp.Header.Get("Set-Cookie") != "" {
		t.Error("a value ended its header")
	}
	if resp, b := ask("GET", "/empty"); resp.ContentLength != 0 || b != "" {
		t.Errorf("%d %q", resp.ContentLength, b)
	}
}

// TestClientLeaves: whoever answers is told, once there is nothing of the request to be read.
func TestClientLeaves(t *testing.T) {
	for _, ask := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok",
		"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	} {
		began, ended := make(chan struct{}), make(chan struct{})
		conn := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Error(err)
			}
			_ = r.Body.Close()
			close(began)
			<-r.Context().Done()
			close(ended)
		})
		_, _ = io.WriteString(conn, ask)
		<-began
		_ = conn.Close()
		select {
		case <-ended:
		case <-time.After(wait.Patience):
			t.Fatalf("nobody was told: %q", ask)
		}
	}
}

// TestSlowAnswers: a request that was watched leaves the connection as it was.
func TestSlowAnswers(t *testing.T) {
	conn := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/4" { // whose body is thrown away after it
			_, _ = io.Copy(io.Discard, r.Body)
			_ = r.Body.Close()
		}
		select {
		case <-time.After(2 * watchAfter):
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, r.RequestURI)
	})
	r := bufio.NewReader(conn)
	for i, path := range []string{"/1", "/2", "/3", "/4", "/5"} {
		_, _ = io.WriteString(conn, [2]string{"GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n", "POST " + path + " HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok"}[i%2])
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(resp.Body); string(b) != path {
			t.Fatalf("%q", b)
		}
	}
}

func TestExpect(t *testing.T) {
	conn := serve(t, echo)
	_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	_, _ = r.ReadString('\n')
	_, _ = io.WriteString(conn, "ok")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
}

// FuzzHead: what is taken for a request is the same one to net/http.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: h\r\nX : y\r\n\r\n", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		head, err := readHead(bufio.NewReader(bytes.NewReader(b)), nil, 8<<10)
		if err != nil {
			return
		}
		r, said, err := parseHead(t.Context(), head, nil)
		if err != nil {
			return
		}
		if again, _, err := parseHead(t.Context(), head, said); err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("%q: %v, and then %v %v", head, r, again, err)
		}
		if r.RequestURI[0] != '/' {
			return
		}
		theirs, err := http.ReadRequest(bufio.NewReader(io.MultiReader(bytes.NewReader(head), strings.NewReader("\r\n"))))
		if err != nil {
			return // they refuse more
		}
		if theirs.Method != r.Method || theirs.RequestURI != r.RequestURI || theirs.ContentLength != r.ContentLength || theirs.Host != r.Host && theirs.Host != "" {
			t.Fatalf("%q: %s %s %d %q, and to net/http %s %s %d %q", head, r.Method, r.RequestURI, r.ContentLength, r.Host, theirs.Method, theirs.RequestURI, theirs.ContentLength, theirs.Host)
		}
	})
}

// FuzzChunks: what is read as chunks is the same to net/http.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{"0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "1;x\r\na\r\n0\r\n\r\n", "A\r\n0123456789\r\n0\r\nX: y\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		mine, err := io.ReadAll(&frames{r: bufio.NewReader(bytes.NewReader(b)), chunked: true, trailer: http.Header{}})
		if err != nil {
			return
		}
		req, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(b))))
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := io.ReadAll(req.Body)
		if err == nil && !bytes.Equal(mine, theirs) {
			t.Fatalf("%q is %q, and to net/http %q", b, mine, theirs)
		}
	})
}

// TestRefusedUploads: a client that sends all that it has before it reads is told why it was
// not wanted.
func TestRefusedUploads(t *testing.T) {
	const size = 32 << 20 // more than all buffers on the way
	for name, read := range map[string]func(io.ReadCloser){
		"not read": func(io.ReadCloser) {}, "closed": func(b io.ReadCloser) { _ = b.Close() },
		"read in part": func(b io.ReadCloser) { _, _ = io.CopyN(io.Discard, b, 1<<20) },
	} {
		conn := serve(t, func(w http.ResponseWriter, r *http.Request) {
			read(r.Body)
			http.Error(w, "no", http.StatusForbidden)
		})
		if _, err := fmt.Fprintf(conn, "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(make([]byte, size)); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %v %v", name, resp, err)
		}
	}
}
