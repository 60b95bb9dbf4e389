package http

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/pump"
)

// BenchmarkRequest is one request after the other on a kept connection, carried by a loop and
// by a goroutine: what the engine itself costs, without a gate and a record.
func BenchmarkRequest(b *testing.B) {
	loops := startLoops(b)
	for _, size := range []int{1 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%d KB/loop", size>>10), func(b *testing.B) { requests(b, loops, size) })
		b.Run(fmt.Sprintf("%d KB/goroutine", size>>10), func(b *testing.B) { requests(b, nil, size) })
	}
}

func requests(b *testing.B, loops *pump.Loops, size int) {
	page := fmt.Sprintf("HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 26 Nov 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\nLast-Modified: Thu, 26 Nov 2026 00:00:00 GMT\r\nEtag: \"x\"\r\nAccept-Ranges: bytes\r\nContent-Length: %d\r\n\r\n", size)
	waiting := make(chan struct{}, 4)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ln.Close() })
	answer := []byte(page + strings.Repeat("x", size))
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer nc.Close()
				r := bufio.NewReader(nc)
				for {
					line, err := r.ReadSlice('\n')
					switch {
					case err != nil:
						return
					case bytes.HasPrefix(line, []byte("GET /wait ")):
						waiting <- struct{}{}
						_, _ = io.Copy(io.Discard, r)
						return
					case len(line) > 2:
						continue
					}
					if _, err := nc.Write(answer); err != nil {
						return
					}
				}
			}()
		}
	}()
	host, port, _ := net.SplitHostPort(ln.Addr().String())
	n, _ := strconv.Atoi(port)
	terms := engine.Terms{
		Task: "t", Resource: "target", Subject: "alice", Host: host, Port: n,
		HTTP: engine.HTTPTerms{Authority: "orders.internal", Auth: "none"}, TLS: engine.TLSTerms{Mode: "disable"},
	}
	addr := enginetest.Serve(b, New(Config{AllowPlaintext: true, Loops: loops}), bareDoor{enginetest.NewDoor(b, terms, credential)})
	(&house{addr: addr}).crowd(b, waiting)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	ask := []byte("GET /small.txt HTTP/1.1\r\nHost: bench\r\nPostern-Task: t.target\r\nUser-Agent: bench\r\nAuthorization: Bearer " + enginetest.Token + "\r\n\r\n")
	b.ReportAllocs()
	before := processor(b)
	for b.Loop() {
		if _, err := c.Write(ask); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
	}
	b.ReportMetric(float64((processor(b)-before).Microseconds())/float64(b.N), "cpu-us/op") // client and server too
}

// processor is what the process has used of it.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
