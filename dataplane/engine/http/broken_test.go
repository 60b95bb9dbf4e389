package http

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/test/wait"
)

// TestBrokenOff: half of an answer is the whole of none, whether its end is said or is that of
// the connection, on either side of the gateway.
func TestBrokenOff(t *testing.T) {
	heads := map[string]string{
		"to the end of the connection": "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf", "HTTP/1.0": "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhalf",
		"in chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	}
	for answer, head := range heads {
		for _, asked := range []string{"HTTP/1.0", "HTTP/1.1"} {
			for _, secure := range []bool{false, true} {
				for _, broken := range []bool{true, false} {
					if !broken && !strings.Contains(answer, "1.0") && !strings.HasPrefix(answer, "to") {
						continue // its end is not that of the connection
					}
					t.Run(fmt.Sprintf("%s/%s/tls=%t/broken=%t", answer, asked, secure, broken), func(t *testing.T) {
						t.Parallel()
						half := make(chan struct{})
						door, addr := newHalf(t, head, half, broken, secure)
						c := dialRaw(t, addr)
						if secure {
							c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "example.com"}) //nolint:gosec // of this test
						}
						_, _ = fmt.Fprintf(c, "GET / %s\r\nHost: example.com\r\nPostern-Task: t.target\r\nAuthorization: Bearer %s\r\n\r\n", asked, enginetest.Token)
						resp, err := http.ReadResponse(bufio.NewReader(c), nil)
						if err != nil {
							t.Fatal(err)
						}
						b := make([]byte, 4)
						if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "half" {
							t.Fatalf("%q %v", b, err)
						}
						close(half)
						rest, err := io.ReadAll(resp.Body)
						if len(rest) > 0 || err == nil == broken {
							t.Errorf("then %q %v", rest, err)
						}
						s := door.Last()
						wait.For(t, "the end of the record", func() bool { e := s.Executions(); return len(e) == 1 && e[0].Outcome.Tag != "" })
						if o := s.Executions()[0].Outcome; o.Code == "" == broken {
							t.Errorf("the record says %+v", o)
						}
					})
				}
			}
		}
	}
}

// newHalf is a house before a resource that answers once, and ends once half of the answer
// is there: broken off by a reset, or by its end.
func newHalf(t *testing.T, head string, half <-chan struct{}, broken, secure bool) (*enginetest.Door, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		if _, err := http.ReadRequest(bufio.NewReader(nc)); err != nil {
			return
		}
		_, _ = io.WriteString(nc, head)
		select {
		case <-half:
		case <-t.Context().Done():
		}
		if broken {
			_ = nc.(*net.TCPConn).SetLinger(0)
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-ended })
	cfg := Config{AllowPlaintext: true, Limits: request.Limits{}}
	terms := engine.Terms{
		Task: "t", Resource: "target", Subject: "alice", Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port,
		HTTP: engine.HTTPTerms{Authority: "orders.internal", Auth: "none"}, TLS: engine.TLSTerms{Mode: "disable"},
	}
	if secure {
		cfg.TLS = &tls.Config{Certificates: newResource(t).TLS.Certificates[:1], MinVersion: tls.VersionTLS12}
	}
	door := enginetest.NewDoor(t, terms, credential)
	return door, enginetest.Serve(t, New(cfg), door)
}
