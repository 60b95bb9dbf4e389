//go:build linux

package pump

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/test/wait"
)

// echo is a core that writes what it reads to out.
func echo(out net.Conn) coreFunc {
	return func(in []byte) (int, Next, error) {
		_, err := out.Write(in)
		return len(in), Next{}, err
	}
}

// running runs a core until the test ends it, and gives its error.
func running(ctx context.Context, conn net.Conn, core Core, outs ...net.Conn) <-chan error {
	done := make(chan error, 1)
	go func() { done <- Run(ctx, conn, core, outs...) }()
	return done
}

// TestLoopDoesNotWait: a peer that reads nothing stops its own session alone, and gets
// every byte once it does read.
func TestLoopDoesNotWait(t *testing.T) {
	loops := startLoops(t)
	a1, b1 := pair(t)
	a2, b2 := pair(t)
	c1, c2 := Wrap(b1), Wrap(b2)
	board(t, loops, c1)
	board(t, loops, c2)
	slow, quick := running(t.Context(), c1, echo(c1), c1), running(t.Context(), c2, echo(c2), c2)

	want := make([]byte, 16<<20) // more than the sockets' buffers
	_, _ = rand.Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := a1.Write(want)
		sent <- err
	}()
	wait.For(t, "the client takes no more", c1.(*Feed).sock.stalled.Load)
	for range 100 {
		var b [4]byte
		_, _ = a2.Write([]byte("ping"))
		if _, err := io.ReadFull(a2, b[:]); err != nil || string(b[:]) != "ping" {
			t.Fatalf("%q, %v", b, err)
		}
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(a1, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes came (%v)", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	_, _ = a1.Close(), a2.Close()
	for _, done := range []<-chan error{slow, quick} {
		if err := <-done; !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	}
}

// TestLoopSeesTheEnd: a close is seen even where it came with the last bytes.
func TestLoopSeesTheEnd(t *testing.T) {
	a, b := pair(t)
	c := Wrap(b)
	board(t, startLoops(t), c)
	_, _ = a.Write([]byte("bye"))
	_ = a.Close()
	var got []byte
	err := Run(t.Context(), c, coreFunc(func(in []byte) (int, Next, error) {
		got = append(got, in...)
		return len(in), Next{}, nil
	}), c)
	if !errors.Is(err, io.EOF) || string(got) != "bye" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestCloseEndsARide(t *testing.T) {
	a, b := pair(t)
	c := Wrap(b)
	board(t, startLoops(t), c)
	done := running(t.Context(), c, echo(c), c)
	var one [1]byte
	_, _ = a.Write([]byte("x"))
	if _, err := io.ReadFull(a, one[:]); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := a.Read(one[:]); err == nil {
		t.Error("the socket is still open")
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := c.Read(one[:]); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read after the close: %v", err)
	}
}

// TestAshore: a core that asked for it is stepped by its own goroutine, with what it has
// not dealt with yet.
func TestAshore(t *testing.T) {
	a, b := pair(t)
	c := Wrap(b)
	board(t, startLoops(t), c)
	release := make(chan struct{})
	ashore := false
	done := running(t.Context(), c, coreFunc(func(in []byte) (int, Next, error) {
		if !ashore {
			ashore = true
			return 0, Next{Ashore: true, Park: func(context.Context) error { return nil }}, nil
		}
		<-release // on a loop nobody else would be served
		_, err := c.Write(in)
		return len(in), Next{}, err
	}), c)
	other := func() {
		t.Helper()
		a, b := pair(t)
		d := Wrap(b)
		one := c.(*Feed).sock.l
		s, err := one.take(d.(*Feed).bare)
		if err != nil {
			t.Fatal(err)
		}
		d.(*Feed).sock = s
		defer func() { _ = d.Close() }()
		running(t.Context(), d, echo(d), d)
		_, _ = a.Write([]byte("x"))
		if _, err := io.ReadFull(a, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	_, _ = a.Write([]byte("abc"))
	other()
	close(release)
	got := make([]byte, 6)
	_, _ = a.Write([]byte("def"))
	if _, err := io.ReadFull(a, got); err != nil || string(got) != "abcdef" {
		t.Errorf("%q, %v", got, err)
	}
	_ = a.Close()
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestPanicIsOfOneSession: the loop goes on.
func TestPanicIsOfOneSession(t *testing.T) {
	loops := startLoops(t)
	a1, b1 := pair(t)
	a2, b2 := pair(t)
	c1, c2 := Wrap(b1), Wrap(b2)
	board(t, loops, c1, c2)
	bad := running(t.Context(), c1, coreFunc(func([]byte) (int, Next, error) { panic("oh") }), c1)
	running(t.Context(), c2, echo(c2), c2)
	_, _ = a1.Write([]byte("x"))
	if err := <-bad; err == nil || !strings.Contains(err.Error(), "panic: oh") {
		t.Error(err)
	}
	_, _ = a2.Write([]byte("x"))
	if _, err := io.ReadFull(a2, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestDeadlinesOnALoop(t *testing.T) {
	_, b := pair(t)
	c := Wrap(b)
	board(t, startLoops(t), c)
	for _, at := range []time.Duration{-time.Second, 20 * time.Millisecond} {
		_ = c.SetDeadline(time.Now().Add(at))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: read: %v", at, err)
		}
		if _, err := c.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: write: %v", at, err)
		}
	}
}

// TestLoopsThatEnd: what they carry fails, and so does what comes later.
func TestLoopsThatEnd(t *testing.T) {
	loops, err := NewLoops(2)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := running2(ctx, loops)
	var done []<-chan error
	for range 4 {
		_, b := pair(t)
		c := Wrap(b)
		if err := loops.Board(c); err != nil {
			t.Fatal(err)
		}
		done = append(done, running(t.Context(), c, echo(c), c))
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, d := range done {
		if err := <-d; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	}
	_, b := pair(t)
	if err := loops.Board(Wrap(b)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a socket for loops that have ended: %v", err)
	}
}

func running2(ctx context.Context, loops *Loops) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- loops.Run(ctx) }()
	return ended
}

// TestManySessions: sessions of two sockets each come, talk, stall, are poked and go, at
// once; each byte arrives where it should.
func TestManySessions(t *testing.T) {
	for _, kernel := range []string{"ring", "none"} {
		t.Run(kernel, func(t *testing.T) {
			loops := startLoops(t)
			kernels[kernel](loops.all[0])
			manySessions(t, loops)
		})
	}
}

func manySessions(t *testing.T, loops *Loops) {
	var all sync.WaitGroup
	for i := range 40 {
		a, b := pair(t)
		far, near := pair(t)
		client, target := Wrap(b), Wrap(near)
		board(t, loops, client, target)
		ctx, cancel := context.WithCancel(t.Context())
		up := running(ctx, client, echo(target), target, client)
		down := running(ctx, target, echo(client), target, client)
		all.Go(func() { _, _ = io.Copy(far, far) }) // the server says what it is told
		all.Go(func() {
			defer cancel()
			want := make([]byte, 200_000)
			_, _ = rand.Read(want)
			go func() {
				for rest := want; len(rest) > 0; {
					n := min(len(rest), 1+(len(rest)*(i+1))%9973)
					_, _ = a.Write(rest[:n])
					rest = rest[n:]
					Poke(client)
					Poke(target)
				}
			}()
			got := make([]byte, len(want))
			if _, err := io.ReadFull(a, got); err != nil || !bytes.Equal(got, want) {
				t.Errorf("session %d: other bytes came (%v)", i, err)
			}
			cancel()
			Poke(client)
			Poke(target)
			for _, done := range []<-chan error{up, down} {
				if err := <-done; !errors.Is(err, context.Canceled) {
					t.Errorf("session %d: %v", i, err)
				}
			}
			_, _ = client.Close(), target.Close()
		})
	}
	all.Wait()
}

// TestAbrupt: an end that is no end of what was said is told as one, on a loop and elsewhere.
func TestAbrupt(t *testing.T) {
	loops := startLoops(t)
	for name, change := range map[string]func(t *testing.T, c net.Conn){
		"a socket": func(*testing.T, net.Conn) {},
		"a loop's": func(t *testing.T, c net.Conn) { t.Helper(); board(t, loops, c) },
	} {
		for _, whole := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				a, b := pair(t)
				c := Wrap(b)
				change(t, c)
				if err := Abrupt(c, true); err != nil {
					t.Fatal(err)
				}
				if whole {
					if err := Abrupt(c, false); err != nil {
						t.Fatal(err)
					}
				}
				_ = HangUp(c)
				if _, err := a.Read(make([]byte, 1)); errors.Is(err, io.EOF) != whole || err == nil {
					t.Errorf("whole %v: %v", whole, err)
				}
			})
		}
	}
}
