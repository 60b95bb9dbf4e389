package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/test/wait"
)

// TestHeadsThatNeverEnd: who does not say what it wants in time is hung up on, however
// busy it looks.
func TestHeadsThatNeverEnd(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Handshake = 300 * time.Millisecond })
	for name, c := range map[string]struct {
		says string
		drip bool
	}{
		"nothing": {"", false}, "half a line": {"GET /ec", false}, "half a head": {"GET /echo HTTP/1.1\r\nX: ", false}, "byte by byte": {"GET /echo HTTP/1.1\r\nX: ", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc, err := net.Dial("tcp", h.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.WriteString(nc, c.says); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for c.drip {
					if _, err := io.WriteString(nc, "x"); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
			if _, err := io.Copy(io.Discard, nc); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection is still there after a minute")
			}
			_ = nc.Close()
			<-done
		})
	}
}

// TestBodiesThatNeverEnd: who says only a part of what it asks is answered so, and holds neither
// the resource nor a rule that waits for the rest.
func TestBodiesThatNeverEnd(t *testing.T) {
	for name, protocol := range map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2": "h2"} {
		for where, verdict := range map[string]postern.Verdict{"passed on": postern.VerdictAllow, "read by people": postern.VerdictHold} {
			t.Run(name+" "+where, func(t *testing.T) {
				t.Parallel()
				h := &house{resource: newResource(t)}
				h.door = enginetest.NewDoor(t, h.terms(), credential)
				h.door.Set(func(p *enginetest.Policy) {
					p.Decide = func(string, any) postern.Decision { return postern.Decision{Verdict: verdict, Rule: "t/permit"} }
				})
				h.addr = enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: h.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}, Limits: request.Limits{Handshake: 300 * time.Millisecond}}), h.door)
				tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "example.com", NextProtos: []string{protocol}}, ForceAttemptHTTP2: protocol == "h2"} //nolint:gosec // of this test
				defer tr.CloseIdleConnections()
				body, rest := io.Pipe()
				defer rest.Close()
				go func() { _, _ = rest.Write([]byte(`{"amount":`)) }()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+h.addr+"/echo", body)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = "example.com"
				req.Header.Set("Authorization", "Bearer "+enginetest.Token)
				req.Header.Set(request.TaskHeader, "t.target")
				req.Header.Set("Content-Type", "application/json")
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				resp, err := tr.RoundTrip(req.WithContext(ctx))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				b, _ := io.ReadAll(resp.Body)
				if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), "nothing more of the body came") || resp.ProtoMajor == 2 != (protocol == "h2") {
					t.Errorf("%s %s: %s", resp.Proto, resp.Status, b)
				}
			})
		}
	}
}

// flood is what /flood answers, in bytes: more than all buffers on the way.
const flood = 64 << 20

// newFlood is a house and a way to ask it for more than its client reads. What over gives
// comes when the resource has ended.
func newFlood(t *testing.T, protocol string, limits request.Limits) (h *house, over chan struct{}, ask func() *http.Response) {
	t.Helper()
	h, over = &house{resource: newResource(t)}, make(chan struct{}, 1)
	h.mux.HandleFunc("/flood", func(w http.ResponseWriter, _ *http.Request) {
		defer func() { over <- struct{}{} }()
		part := []byte(strings.Repeat("x", 64<<10))
		for range flood / len(part) {
			if _, err := w.Write(part); err != nil {
				return
			}
		}
	})
	h.door = enginetest.NewDoor(t, h.terms(), credential)
	h.addr = enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: h.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}, Limits: limits}), h.door)
	tr := &http.Transport{
		DialTLS: func(string, string) (net.Conn, error) { //nolint:staticcheck // one address
			c, err := tls.Dial("tcp", h.addr, &tls.Config{InsecureSkipVerify: true, ServerName: "example.com", NextProtos: []string{protocol}}) //nolint:gosec // of this test
			return c, err
		},
		ForceAttemptHTTP2: protocol == "h2",
	}
	t.Cleanup(tr.CloseIdleConnections)
	return h, over, func() *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://example.com/flood", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+enginetest.Token)
		req.Header.Set(request.TaskHeader, "t.target")
		resp, err := tr.RoundTrip(req)
		if err != nil || resp.StatusCode != http.StatusOK || resp.ProtoMajor == 2 != (protocol == "h2") {
			t.Fatal(resp, err)
		}
		return resp
	}
}

// TestClientsThatTakeNothing: who does not read what it has asked for holds the resource's
// connection only for so long.
func TestClientsThatTakeNothing(t *testing.T) {
	for name, protocol := range map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2": "h2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, over, ask := newFlood(t, protocol, request.Limits{Taking: time.Second, Linger: 50 * time.Millisecond})
			resp := ask()
			defer resp.Body.Close()
			select {
			case <-over:
			case <-time.After(time.Minute):
				t.Fatal("the resource's answer still waits for the client")
			}
			if n, err := io.Copy(io.Discard, resp.Body); err == nil || n >= flood {
				t.Errorf("it was given all of %d bytes (%v)", n, err)
			}
		})
	}
}

// TestKilledUnderClientsThatTakeNothing: a session that must end does so, whether its client
// reads or not.
func TestKilledUnderClientsThatTakeNothing(t *testing.T) {
	for name, protocol := range map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2": "h2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, _, ask := newFlood(t, protocol, request.Limits{Linger: 50 * time.Millisecond})
			resp := ask()
			defer resp.Body.Close()
			s, told, same := h.door.Last(), int64(0), 0
			wait.For(t, "an answer that waits for its client", func() bool {
				if now := s.Executions()[0].Chunks; now != told {
					told, same = now, 0
				}
				same++
				return same == 50
			})
			s.Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "enough"})
			_ = s.Closed() // which waits for it
			if n, err := io.Copy(io.Discard, resp.Body); err == nil || n >= flood {
				t.Errorf("it was given all of %d bytes (%v)", n, err)
			}
		})
	}
}

// TestRefusedUnread: nor does who is refused hold anything by not reading why, over many
// answers of HTTP/1.1 or by giving HTTP/2 no room for one.
func TestRefusedUnread(t *testing.T) {
	r := newResource(t)
	cfg := Config{TLS: &tls.Config{Certificates: r.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}, Limits: request.Limits{Taking: time.Second}}
	addr := enginetest.Serve(t, New(cfg), enginetest.NewDoor(t, r.terms(), credential))
	connect := func(t *testing.T, protocol string) net.Conn {
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, ServerName: "example.com", NextProtos: []string{protocol}}) //nolint:gosec // of this test
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(wait.Patience))
		return c
	}
	t.Run("HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		c := connect(t, "http/1.1")
		asks := []byte(strings.Repeat("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", 1000))
		for {
			if _, err := c.Write(asks); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("the connection is there still")
			} else if err != nil {
				return
			}
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		c := connect(t, "h2")
		_, _ = io.WriteString(c, http2.ClientPreface)
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		var head bytes.Buffer
		e := hpack.NewEncoder(&head)
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "example.com"}, {":path", "/"}} {
			_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal("the stream is there still: ", err)
			}
			if _, reset := frame.(*http2.RSTStreamFrame); reset {
				return
			}
		}
	})
}

// TestPartsThatAreSlow: what a resource says of its progress reaches the client while it goes on, in
// an answer with a length too.
func TestPartsThatAreSlow(t *testing.T) {
	for name, protocol := range map[string]string{"HTTP/1.1": "http/1.1", "HTTP/2": "h2"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const size = 1 << 14 // less than any buffer on the way, and more than comes in time
			h, seen := &house{resource: newResource(t)}, make(chan struct{})
			h.mux.HandleFunc("/progress", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(size))
				for said, told := 0, false; said < size; {
					n := 1
					if told {
						n = size - said
					}
					_, _ = w.Write(bytes.Repeat([]byte{'.'}, n))
					_ = http.NewResponseController(w).Flush()
					said += n
					select {
					case <-seen:
						told = true
					case <-r.Context().Done():
						return
					case <-time.After(2 * slow):
					}
				}
			})
			h.door = enginetest.NewDoor(t, h.terms(), credential)
			h.addr = enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: h.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}}), h.door)
			tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, ServerName: "example.com", NextProtos: []string{protocol}}, ForceAttemptHTTP2: protocol == "h2"} //nolint:gosec // of this test
			defer tr.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+h.addr+"/progress", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "example.com"
			req.Header.Set("Authorization", "Bearer "+enginetest.Token)
			req.Header.Set(request.TaskHeader, "t.target")
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.ReadFull(resp.Body, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
			close(seen)
			if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size-3 {
				t.Errorf("then %d bytes, %v", n, err)
			}
		})
	}
}
