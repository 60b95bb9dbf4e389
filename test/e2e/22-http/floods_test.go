package http

import (
	"bytes"
	"crypto/tls"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
			for !stop.Load() {
				if s.reset(1999, nil, ":authority", "postern.localhost", ":path", "/") != nil {
					return
				}
			}
		}()
		defer func() { stop.Store(true); <-done }()
		served(3)
	})
	// The resource is asked for no more at once than one connection may, although each
	// stream is free for the next one as soon as it is taken back.
	t.Run("requests that are begun and taken back", func(t *testing.T) {
		hold := make(chan struct{})
		done := make(chan error, 1)
		go func() {
			done <- s.reset(999, hold, ":authority", "odd-orders--odd."+s.Nodes[0].HTTPDomain, ":path", "/api/orders/never", "authorization", "Bearer "+s.DataToken(t, "alice"))
		}()
		served(2)
		close(hold)
		if err := <-done; err != nil {
			t.Logf("the node hung up: %v", err)
		}
		if n := s.busy.most.Load(); n > streams {
			t.Errorf("the resource was asked for %d at once, of %d", n, s.busy.all.Load())
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
	if bound := before + 4*streams + 50*8; most > bound {
		t.Errorf("%d goroutines, of which %d were there before", most, before)
	}
	house.Eventually(t, func() string { return "nothing of it is left" }, func() bool { return runtime.NumGoroutine() < before+streams })
}

// reset opens streams with these fields and takes each back at once, and then keeps the
// connection until hold is closed, if there is one.
func (s *service) reset(n uint32, hold <-chan struct{}, fields ...string) error {
	c, err := tls.Dial("tcp", s.Nodes[0].HTTP, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) //nolint:gosec // an attacker does not care
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(house.Patience))
	if hold != nil {
		defer func() { <-hold }()
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return err
	}
	fr := http2.NewFramer(c, nil)
	_ = fr.WriteSettings()
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
	for id := uint32(1); id < 2*n; id += 2 {
		if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
			return err
		}
		if err := fr.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
			return err
		}
	}
	return nil
}
