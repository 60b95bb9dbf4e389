package http

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/posterngate/postern/test/e2e/house"
)

// streams is how many requests a node takes at once on one connection of HTTP/2.
const streams = 128

// floods: what wears a server down harms nobody else, costs the node no more than its
// limits say, and is over when it ends.
func (s *service) floods(t *testing.T) {
	before := runtime.NumGoroutine() // of the whole house
	most := 0
	served := func(times int) {
		t.Helper()
		for range times {
			if r := s.curl(t, "alice", "read-orders", "/api/orders/7/status"); r.Code != 0 || !strings.HasSuffix(r.Out, "\n200") {
				t.Fatalf("%+v", r)
			}
			most = max(most, runtime.NumGoroutine())
		}
	}
	t.Run("streams that are begun and taken back", func(t *testing.T) {
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			for !stop.Load() && !t.Failed() {
				c, fr, block := s.attack(t, ":authority", "postern.localhost", ":path", "/")
				reset(c, fr, block, 1999)
			}
		}()
		defer func() { stop.Store(true); <-done }()
		served(3)
	})
	// What is taken back once it is at the resource is over there too: streams that are free
	// for the next requests do not leave those of before at work.
	t.Run("requests that are taken back at the resource", func(t *testing.T) {
		c, fr, block := s.attack(t, ":authority", "odd-orders--odd."+s.Nodes[0].HTTPDomain, ":path", "/api/orders/never", "authorization", "Bearer "+s.DataToken(t, "alice"))
		defer c.Close()
		const rounds = 5
		for round := range uint32(rounds) {
			for i := range uint32(streams) {
				house.Must(0, fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*(round*streams+i) + 1, BlockFragment: block, EndStream: true, EndHeaders: true}))(t)
			}
			house.Eventually(t, func() string { return fmt.Sprintf("the resource has them: %d", s.busy.all.Load()) }, func() bool { return s.busy.all.Load() == int64(round+1)*streams })
			for i := range uint32(streams) {
				house.Must(0, fr.WriteRSTStream(2*(round*streams+i)+1, http2.ErrCodeCancel))(t)
			}
			served(1)
		}
		t.Logf("the resource was asked %d times, for %d at once", s.busy.all.Load(), s.busy.most.Load())
		if n := s.busy.most.Load(); n > 2*streams { // it may hear of the end of some after that of the next
			t.Errorf("the resource was asked for %d at once", n)
		}
		house.Eventually(t, func() string { return "the resource has nothing to do for them any more" }, func() bool { return s.busy.now.Load() == 0 })
	})
	t.Run("heads that never end", func(t *testing.T) {
		var all []*tls.Conn
		for range 50 { // half a request each, for as long as the node bears it
			c := s.secure(t, "http/1.1")
			_, _ = io.WriteString(c, "GET /api/orders/7/status HTTP/1.1\r\nHost: x\r\nX: ")
			all = append(all, c)
		}
		served(3)
		for _, c := range all {
			_ = c.Close()
		}
	})
	// A connection has a few goroutines of its own, and one for each stream.
	t.Logf("%d goroutines at most, and %d before", most, before)
	if bound := before + 4*streams + 50*8; most > bound {
		t.Errorf("%d goroutines, of which %d were there before", most, before)
	}
	house.Eventually(t, func() string { return "nothing of it is left" }, func() bool { return runtime.NumGoroutine() < before+streams })
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
