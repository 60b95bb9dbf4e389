package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/posterngate/postern/test/e2e/house"
)

const (
	// streams is how many requests a node takes at once on one connection of HTTP/2.
	streams = 128
	// stuck is how many connections a flood holds that never say what they want.
	stuck = 200
	// asks is how often each of the other clients asks while there is a flood.
	asks = 20
)

// floods: what wears a server down harms nobody else, costs the node no more than its
// limits say, and is over when it ends.
func (s *service) floods(t *testing.T) {
	before := runtime.NumGoroutine() // of the whole house
	most := 0
	// others have all that they ask meanwhile answered, and say when they are done.
	others := func(t *testing.T) func() bool {
		done := s.others(t)
		return func() bool {
			most = max(most, runtime.NumGoroutine())
			return done()
		}
	}
	// hold has connections say the beginning of something until others are done.
	hold := func(says string, dial func(*testing.T) net.Conn) func(*testing.T) {
		return func(t *testing.T) {
			var all []net.Conn
			for range stuck {
				c := dial(t)
				_, _ = io.WriteString(c, says)
				all = append(all, c)
			}
			house.Eventually(t, func() string { return "all is answered that others ask" }, others(t))
			for _, c := range all {
				_ = c.Close()
			}
		}
	}
	raw := func(t *testing.T) net.Conn {
		c := house.Must(net.Dial("tcp", s.Nodes[0].HTTP))(t)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	h1 := func(t *testing.T) net.Conn { return s.secure(t, "http/1.1") }

	t.Run("streams that are begun and taken back", func(t *testing.T) {
		for done := others(t); !done(); {
			c, fr, block := s.attack(t, ":authority", "postern.localhost", ":path", "/")
			reset(c, fr, block, 1999)
		}
	})
	// What is taken back once it is at the resource is over there too: streams that are free
	// for the next requests do not leave those of before at work.
	t.Run("requests that are taken back at the resource", func(t *testing.T) {
		c, fr, block := s.attack(t, ":authority", "odd-orders--odd."+s.Nodes[0].HTTPDomain, ":path", "/api/orders/never", "authorization", "Bearer "+s.DataToken(t, "alice"))
		defer c.Close()
		const rounds = 5
		done := others(t)
		for round := range uint32(rounds) {
			for i := range uint32(streams) {
				house.Must(0, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*(round*streams+i) + 1, BlockFragment: block, EndStream: true, EndHeaders: true}))(t)
			}
			house.Eventually(t, func() string { return fmt.Sprintf("the resource has them: %d", s.busy.all.Load()) }, func() bool { return s.busy.all.Load() == int64(round+1)*streams })
			if round == rounds-1 { // as many as there can be
				house.Eventually(t, func() string { return "all is answered that others ask" }, done)
			}
			for i := range uint32(streams) {
				house.Must(0, fr.WriteRSTStream(2*(round*streams+i)+1, http2.ErrCodeCancel))(t)
			}
		}
		t.Logf("the resource was asked %d times, for %d at once", s.busy.all.Load(), s.busy.most.Load())
		if n := s.busy.most.Load(); n > 2*streams { // it may hear of the end of some after that of the next
			t.Errorf("the resource was asked for %d at once", n)
		}
		house.Eventually(t, func() string { return "the resource has nothing to do for them any more" }, func() bool { return s.busy.now.Load() == 0 })
	})
	t.Run("CVE-2024-27316 headers in frames without an end", func(t *testing.T) {
		var block bytes.Buffer
		_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "x-long", Value: strings.Repeat("x", 1000)})
		for done := others(t); !done(); {
			c := s.secure(t, "h2")
			fr := begin(c)
			err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()})
			sent := 0
			for ; err == nil && sent < 16<<20; sent += block.Len() {
				err = fr.WriteContinuation(1, false, block.Bytes())
			}
			if _ = c.Close(); err == nil {
				t.Fatalf("%d bytes of headers were taken", sent)
			}
		}
	})
	// The node hangs up rather than keep what nobody reads.
	t.Run("CVE-2019-9512 pings whose answers nobody reads", func(t *testing.T) {
		var pings bytes.Buffer
		for fr := http2.NewFramer(&pings, nil); pings.Len() < 64<<10; {
			_ = fr.WritePing(false, [8]byte{})
		}
		for done := others(t); !done(); {
			c := s.secure(t, "h2")
			begin(c)
			n, most := 0, 1<<10
			for ; n < most; n++ {
				if _, err := c.Write(pings.Bytes()); err != nil {
					break
				}
			}
			if _ = c.Close(); n == most {
				t.Fatalf("all of %d bytes were taken", n*pings.Len())
			}
		}
	})
	t.Run("CVE-2026-7776 handshakes that never end", hold("\x16\x03\x01\x02\x00\x01", raw))
	t.Run("heads that never end", hold("GET /api/orders/7/status HTTP/1.1\r\nHost: x\r\nX: ", h1))
	t.Run("bodies that never end", hold(fmt.Sprintf("PATCH /api/orders/7 HTTP/1.1\r\nHost: fix-order--orders-api.%s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
		s.Nodes[0].HTTPDomain, s.DataToken(t, "alice")), h1))
	t.Run("answers that unpack without an end", func(t *testing.T) {
		for done := others(t); !done(); {
			status, code, text := s.say(t, &evasion{Task: "odd-orders", Resource: "odd", Send: "GET /api/orders/bomb HTTP/1.1"})
			if len(text) > 8<<20 || status == http.StatusOK && strings.HasSuffix(text, "}") {
				t.Fatalf("%d %s: %d bytes went through", status, code, len(text))
			}
		}
	})
	// A connection has a few goroutines of its own, and one for each stream.
	t.Logf("%d goroutines at most, and %d before", most, before)
	if bound := before + 4*streams + stuck*8; most > bound {
		t.Errorf("%d goroutines, of which %d were there before", most, before)
	}
	house.Eventually(t, func() string { return "nothing of it is left" }, func() bool { return runtime.NumGoroutine() < before+streams })
}

// others are clients that have nothing to do with a flood: over a connection that they keep,
// in both versions, and over a new one each time. Each asks so often; all must be answered.
// It reports when they are done.
func (s *service) others(t *testing.T) (done func() bool) {
	var left atomic.Int64
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	url, token := "https://read-orders--orders-api."+s.Nodes[0].HTTPDomain+"/api/orders/7/status", s.DataToken(t, "alice")
	for name, change := range map[string]func(*http.Transport){
		"HTTP/1.1": func(*http.Transport) {}, "HTTP/2": func(tr *http.Transport) { tr.ForceAttemptHTTP2 = true }, "a new connection": func(tr *http.Transport) { tr.DisableKeepAlives = true },
	} {
		client := s.client(t)
		change(client.Transport.(*http.Transport))
		left.Add(1)
		all.Go(func() {
			defer left.Add(-1)
			for i := range asks {
				if err := answered(t.Context(), client, url, token); err != nil {
					t.Errorf("%s, request %d: %v", name, i+1, err)
					return
				}
			}
		})
	}
	return func() bool { return left.Load() == 0 }
}

// answered asks for the status of an order, and reads it.
func answered(ctx context.Context, c *http.Client, url, token string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(b), `"id":7`)) {
		err = fmt.Errorf("%s %s", resp.Status, b)
	}
	return err
}

// attack is a connection of HTTP/2 whose frames are written by hand, and the fields of a
// request as they stand there.
func (s *service) attack(t *testing.T, fields ...string) (*tls.Conn, *http2.Framer, []byte) {
	t.Helper()
	c := s.secure(t, "h2")
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	enc.SetMaxDynamicTableSize(0) // each block says all
	for i := 0; i < len(fields); i += 2 {
		if i == 0 {
			_ = enc.WriteField(hpack.HeaderField{Name: ":method", Value: "GET"})
			_ = enc.WriteField(hpack.HeaderField{Name: ":scheme", Value: "https"})
		}
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c, begin(c), block.Bytes()
}

// reset opens streams, takes each back at once, and waits until the node has read all of
// it: who floods is no more than one connection ahead. The node may hang up on that.
func reset(c *tls.Conn, fr *http2.Framer, block []byte, n uint32) {
	defer c.Close()
	for id := uint32(1); id < 2*n; id += 2 {
		if fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndStream: true, EndHeaders: true}) != nil || fr.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			return
		}
	}
	if fr.WritePing(false, [8]byte{}) != nil {
		return
	}
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return
		}
		if ping, ok := f.(*http2.PingFrame); ok && ping.IsAck() {
			return
		}
	}
}
