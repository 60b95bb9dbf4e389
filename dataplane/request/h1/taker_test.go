package h1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/dataplane/pump"
	"github.com/posterngate/postern/test/wait"
)

// part is what a client takes at once in these tests.
const part = maxPart

// serveSlowly serves a client with a clock of the test's own, which asks once and then reads
// as take says. It returns for how long that was served.
func serveSlowly(t *testing.T, h http.HandlerFunc, ask string, take func(r io.Reader)) time.Duration {
	t.Helper()
	here, there := net.Pipe()
	served := make(chan struct{})
	began := time.Now()
	go func() {
		defer close(served)
		_ = Serve(t.Context(), there, Config{Head: 16 << 10, Begin: time.Second, Idle: time.Second, Stall: time.Second, Take: time.Minute}, h)
		_ = there.Close()
	}()
	if _, err := io.WriteString(here, ask); err != nil {
		t.Fatal(err)
	}
	take(here)
	<-served
	_ = here.Close()
	return time.Since(began)
}

// TestClientsThatReadNothing: one holds its connection only for so long, whatever it was to
// be told.
func TestClientsThatReadNothing(t *testing.T) {
	for name, c := range map[string]struct {
		ask string
		h   http.HandlerFunc
	}{
		"a whole answer": {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "no") }},
		"nothing":        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", func(http.ResponseWriter, *http.Request) {}},
		"a large one": {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) {
			if _, err := io.WriteString(w, strings.Repeat("x", 10*part)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the handler is told %v", err)
			}
		}},
		"a head": {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() }},
		"to go on": {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lasted := serveSlowly(t, c.h, c.ask, func(io.Reader) {})
				if lasted > 2*time.Minute {
					t.Errorf("it was served for %s", lasted)
				}
			})
		})
	}
}

// TestClientsThatReadSlowly: who takes something now and then is served, and so is who waits
// for an answer that is slow to come.
func TestClientsThatReadSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := func(w http.ResponseWriter, _ *http.Request) {
			for range 10 {
				time.Sleep(time.Hour)
				_, _ = io.WriteString(w, strings.Repeat("x", 10*part))
				w.(http.Flusher).Flush()
			}
		}
		n := int64(0)
		serveSlowly(t, h, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", func(r io.Reader) {
			for {
				k, err := io.CopyN(io.Discard, r, part)
				if n += k; err != nil {
					return
				}
				time.Sleep(20 * time.Second)
			}
		})
		if n < 100*part {
			t.Errorf("it was given %d of %d bytes", n, 100*part)
		}
	})
}

// TestLoopsBesideClientsThatReadNothing: nor does one that a loop carries, which had a
// deadline before it came there.
func TestLoopsBesideClientsThatReadNothing(t *testing.T) {
	loops, err := pump.NewLoops(1)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	} else if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- loops.Run(ctx) }()
	defer func() { stop(); <-ended }()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		nc = pump.NewFeed(nc, nil)
		defer nc.Close()
		_ = Serve(t.Context(), nc, Config{
			Head: 16 << 10, Begin: time.Minute, Idle: time.Minute, Stall: time.Minute, Take: time.Second,
			Loops: loops, Board: func() bool { return true }, Rides: func(*http.Request, any) bool { return true },
		}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 10<<10)) }))
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(wait.Patience))
	const ask = "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
	r := bufio.NewReader(c)
	for range 3 { // after which it is the loop's
		_, _ = io.WriteString(c, ask)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	for err == nil {
		_, err = io.WriteString(c, strings.Repeat(ask, 1000))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is there still")
	}
	_ = c.Close()
	<-served
}
