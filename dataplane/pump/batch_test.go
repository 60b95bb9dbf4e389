//go:build linux

package pump

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// batched is a loop that nobody runs, n sockets of it with their peers, and a pump that may
// write to them as if it had its turn.
func batched(t *testing.T, n int) (l *loop, near []*sock, far []net.Conn) {
	t.Helper()
	l, err := newLoop()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !l.over {
			l.end()
		}
	})
	p := &pump{}
	for range n {
		a, b := pair(t)
		s, err := l.take(b.(*net.TCPConn))
		if err != nil {
			t.Fatal(err)
		}
		s.soft.Add(1)
		near, far, p.outs = append(near, s), append(far, a), append(p.outs, s)
	}
	p.feed = &Feed{sock: near[0]}
	l.batch.turning.Store(p)
	return l, near, far
}

// kernels are what a loop meets: one that has rings, one that has none, one whose ring fails.
var kernels = map[string]func(l *loop){
	"ring": func(*loop) {},
	"none": func(l *loop) {
		if l.batch.ring != nil {
			l.batch.ring.close()
			l.batch.ring = nil
		}
	},
	"broken": func(l *loop) {
		if r := l.batch.ring; r != nil {
			_ = unix.Close(r.fd)
			r.fd = -1
		}
	},
}

func must(t *testing.T, s *sock, text string) {
	t.Helper()
	if n, err := s.write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("%d of %d bytes: %v", n, len(text), err)
	}
}

func reads(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Errorf("read %q (%v), want %q", got[:min(n, 40)], err, want[:min(len(want), 40)])
	}
}

// TestBatch: what turns write arrives once, and in order, whatever the kernel has.
func TestBatch(t *testing.T) {
	for name, kernel := range kernels {
		t.Run(name, func(t *testing.T) {
			l, near, far := batched(t, maxParcels+3) // more than have a place
			kernel(l)
			large := strings.Repeat("x", maxParcel)
			for range 3 { // a broken ring is left once
				for _, s := range near {
					must(t, s, "one ")
					must(t, s, "two ")
				}
				must(t, near[1], large) // is not copied, and comes after the others
				must(t, near[1], "three")
				if name == "ring" && l.batch.ring != nil && near[0].posted == 0 {
					t.Error("nothing waits for the end of the round")
				}
				l.batch.send()
				for i, c := range far {
					if want := "one two "; i == 1 {
						reads(t, c, want+large+"three")
					} else {
						reads(t, c, want)
					}
				}
			}
			if l.batch.n != 0 || l.batch.sending || name == "broken" && l.batch.ring != nil {
				t.Errorf("left: %d parcels, ring %v", l.batch.n, l.batch.ring)
			}
		})
	}
}

// TestBatchOfASlowPeer: a socket that takes no more keeps what it was not sent, and the pump
// has to wait for that; the others of the batch are sent.
func TestBatchOfASlowPeer(t *testing.T) {
	for name, kernel := range kernels {
		t.Run(name, func(t *testing.T) {
			l, near, far := batched(t, 3)
			kernel(l)
			var want strings.Builder
			for n := 0; !near[1].stalled.Load(); n++ {
				text := strings.Repeat(string(rune('a'+n%26)), 3000)
				must(t, near[1], text)
				want.WriteString(text)
				must(t, near[0], "here ")
				must(t, near[2], "there ")
				l.batch.send()
				reads(t, far[0], "here ")
				reads(t, far[2], "there ")
			}
			must(t, near[0], "still")
			l.batch.send()
			reads(t, far[0], "still")
			l.batch.turning.Store(nil)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- l.run(ctx) }()
			drained := make(chan error, 1)
			go func() { drained <- near[1].drain() }()
			reads(t, far[1], want.String())
			if err := <-drained; err != nil {
				t.Error(err)
			}
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBatchOfALostPeer: who has gone is an error of his own pump, told by the next write and
// by drain, and the others are sent to.
func TestBatchOfALostPeer(t *testing.T) {
	for name, kernel := range kernels {
		t.Run(name, func(t *testing.T) {
			l, near, far := batched(t, 2)
			kernel(l)
			_ = far[1].(*net.TCPConn).SetLinger(0)
			_ = far[1].Close()
			told := false
			for n := 0; near[1].failed == nil && n < 1000; n++ { // a reset is on its way
				if _, err := near[1].write([]byte("lost")); err != nil {
					told = true
					break
				}
				must(t, near[0], "kept")
				l.batch.send()
				reads(t, far[0], "kept")
			}
			if _, err := near[1].write([]byte("lost")); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("a write: %v", err)
			}
			if err := near[1].drain(); !told && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("drain: %v", err)
			}
			must(t, near[0], "kept")
			l.batch.send()
			reads(t, far[0], "kept")
		})
	}
}

// TestCloseSendsTheBatch: what was written before a close arrives, as without a batch, and
// the number of a closed descriptor is never written to.
func TestCloseSendsTheBatch(t *testing.T) {
	l, near, far := batched(t, 2)
	must(t, near[0], "last words")
	must(t, near[1], "others")
	if err := near[0].close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(far[0]); err != nil || string(got) != "last words" {
		t.Errorf("%q, %v", got, err)
	}
	l.batch.send()
	reads(t, far[1], "others")

	must(t, near[1], "more")
	near[1].mu.Lock()
	near[1].fail(errors.New("lost"))
	fd := near[1].fd
	near[1].mu.Unlock()
	if near[1].posted > 0 && fd < 0 {
		t.Error("the descriptor of a parcel is closed")
	}
	l.batch.send()
	if near[1].fd >= 0 {
		t.Error("the descriptor is not closed")
	}
}

// TestBatchAndOthers: whoever writes beside the loop, such as the one who ends a session,
// writes between messages and loses nothing.
func TestBatchAndOthers(t *testing.T) {
	loops := startLoops(t)
	var all sync.WaitGroup
	for range 6 {
		a, b := pair(t)
		c := Wrap(b)
		board(t, loops, c)
		done := running(t.Context(), c, echo(c), c)
		const n = 3000
		all.Go(func() {
			for range n {
				_, _ = c.Write([]byte("<beside>"))
			}
		})
		all.Go(func() {
			for range n {
				_, _ = a.Write([]byte("<looped>"))
			}
		})
		all.Go(func() {
			var got [8]byte
			count := map[string]int{}
			for range 2 * n {
				if _, err := io.ReadFull(a, got[:]); err != nil {
					t.Error(err)
					break
				}
				count[string(got[:])]++
			}
			if count["<beside>"] != n || count["<looped>"] != n {
				t.Errorf("read %v", count)
			}
			_ = a.Close()
			if err := <-done; !errors.Is(err, io.EOF) && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
