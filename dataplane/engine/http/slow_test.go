package http

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
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
