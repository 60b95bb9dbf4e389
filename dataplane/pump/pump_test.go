package pump

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"testing"
	"time"
)

// pair is a connection over loopback.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	a, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

// plain hides that a connection is a bare socket.
type plain struct{ net.Conn }

// bare stands for a socket.
type bare struct{ *net.TCPConn }

func (b bare) Bare() *net.TCPConn { return b.TCPConn }

// coreFunc is a Core.
type coreFunc func(in []byte) (int, Next, error)

func (f coreFunc) Step(in []byte) (int, Next, error) { return f(in) }

// each runs fn over every kind of connection that a pump tells apart.
func each(t *testing.T, fn func(t *testing.T, pair func(*testing.T) (a, b net.Conn))) {
	t.Run("raw", func(t *testing.T) { fn(t, pair) })
	t.Run("wrapped", func(t *testing.T) {
		fn(t, func(t *testing.T) (net.Conn, net.Conn) {
			a, b := pair(t)
			return a, Wrap(b)
		})
	})
	t.Run("bare", func(t *testing.T) {
		fn(t, func(t *testing.T) (net.Conn, net.Conn) {
			a, b := pair(t)
			f := NewFeed(bare{b.(*net.TCPConn)}, nil)
			if f.write == nil {
				t.Error("what is written to a bare connection goes through its own Write")
			}
			return a, f
		})
	})
	t.Run("plain", func(t *testing.T) {
		fn(t, func(t *testing.T) (net.Conn, net.Conn) {
			a, b := pair(t)
			return a, plain{b}
		})
	})
	t.Run("tls", func(t *testing.T) { fn(t, tlsPair) })
	for name, pair := range map[string]func(*testing.T) (a, b net.Conn){
		"loop":     func(t *testing.T) (net.Conn, net.Conn) { a, b := pair(t); return a, Wrap(b) },
		"loop tls": tlsPair,
	} {
		t.Run(name, func(t *testing.T) {
			loops := startLoops(t)
			fn(t, func(t *testing.T) (net.Conn, net.Conn) {
				a, b := pair(t)
				board(t, loops, b)
				return a, b
			})
		})
	}
}

// startLoops runs one loop until the test ends.
func startLoops(t *testing.T) *Loops {
	t.Helper()
	loops, err := NewLoops(1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- loops.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return loops
}

func board(t *testing.T, loops *Loops, conns ...net.Conn) {
	t.Helper()
	if err := loops.Board(conns...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
}

// tlsPair is TLS over loopback, of which b is read through a Feed.
func tlsPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"pump"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	a, b = pair(t)
	server := tls.Server(NewFeed(b, nil), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13})
	client := tls.Client(a, &tls.Config{RootCAs: roots, ServerName: "pump", MinVersion: tls.VersionTLS13})
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	if err := errors.Join(server.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestEverythingArrives(t *testing.T) {
	each(t, func(t *testing.T, pair func(*testing.T) (a, b net.Conn)) {
		a, b := pair(t)
		want := make([]byte, 3<<20)
		_, _ = rand.Read(want)
		go func() {
			for rest := want; len(rest) > 0; {
				n := min(len(rest), 1+len(rest)%70_001)
				_, _ = a.Write(rest[:n])
				rest = rest[n:]
			}
			_ = a.Close()
		}()
		// A close that comes together with the last bytes shows at the next Poke, which
		// engines do as time passes.
		done := make(chan struct{})
		defer close(done)
		go func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(20 * time.Millisecond):
					Poke(b)
				}
			}
		}()
		var got bytes.Buffer
		parks := 0
		const unit = 100_003
		err := Run(context.Background(), b, coreFunc(func(in []byte) (int, Next, error) {
			if len(in) < unit && got.Len()+len(in) < len(want) {
				return 0, Next{Bytes: unit}, nil
			}
			if parks++; parks%3 == 0 {
				return 0, Next{Park: func(context.Context) error { return nil }}, nil
			}
			n := min(len(in), unit)
			got.Write(in[:n])
			return n, Next{}, nil
		}))
		if !errors.Is(err, io.EOF) || !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("%d of %d bytes, %v", got.Len(), len(want), err)
		}
	})
}

// TestMore: a core that has much to say says it in steps, and is not asked for the next
// while the peer takes no more.
func TestMore(t *testing.T) {
	each(t, func(t *testing.T, pair func(*testing.T) (a, b net.Conn)) {
		a, b := pair(t)
		const asked, size = 64, 1 << 20
		steps := make(chan struct{}, asked)
		core := coreFunc(func(in []byte) (int, Next, error) {
			steps <- struct{}{}
			_, err := b.Write(bytes.Repeat(in[:1], size))
			return 1, Next{More: len(in) > 1}, err
		})
		done := make(chan error, 1)
		go func() { done <- Run(t.Context(), b, core, b) }()
		in := make([]byte, asked)
		for i := range in {
			in[i] = byte(i)
		}
		if _, err := a.Write(in); err != nil {
			t.Fatal(err)
		}
		<-steps
		got := make([]byte, size)
		for i := range in {
			if _, err := io.ReadFull(a, got); err != nil || got[0] != in[i] || got[size-1] != in[i] {
				t.Fatalf("part %d: %v", i, err)
			}
			// What the sockets hold, what one step wrote, and the step under way.
			if ahead := len(steps) - i; ahead > 32 {
				t.Fatalf("%d steps ahead of a peer that has not read them", ahead)
			}
		}
		if err := errors.Join(a.Close(), b.Close()); err != nil {
			t.Log(err)
		}
		<-done
	})
}

func TestParkedWaitEndsWithThePeer(t *testing.T) {
	each(t, func(t *testing.T, pair func(*testing.T) (a, b net.Conn)) {
		for _, bye := range []bool{true, false} {
			a, b := pair(t)
			_, _ = a.Write([]byte("ask"))
			parked := make(chan struct{})
			var cause error
			go func() {
				<-parked
				if bye {
					_, _ = a.Write([]byte("X"))
					return
				}
				_ = a.Close()
			}()
			err := Run(context.Background(), b, coreFunc(func(in []byte) (int, Next, error) {
				return 0, Next{
					Watch: func(unread []byte) bool { return bytes.HasSuffix(unread, []byte("X")) },
					Park: func(ctx context.Context) error {
						close(parked)
						<-ctx.Done()
						cause = context.Cause(ctx)
						return nil
					},
				}, nil
			}))
			if err == nil || !errors.Is(cause, ErrGone) {
				t.Fatalf("bye=%v: %v, cause %v", bye, err, cause)
			}
		}
	})
}

func TestParkedWaitGoesOn(t *testing.T) {
	each(t, func(t *testing.T, pair func(*testing.T) (a, b net.Conn)) {
		a, b := pair(t)
		_, _ = a.Write([]byte("1"))
		parks := 0
		var got []byte
		err := Run(context.Background(), b, coreFunc(func(in []byte) (int, Next, error) {
			if parks == 0 {
				parks++
				return 0, Next{Watch: func([]byte) bool { return false }, Park: func(context.Context) error {
					_, _ = a.Write([]byte("2"))
					return nil
				}}, nil
			}
			got = append(got, in...)
			if bytes.HasSuffix(got, []byte("2")) {
				return len(in), Next{}, ErrDone
			}
			return len(in), Next{}, nil
		}))
		if err != nil || string(got) != "12" {
			t.Fatalf("%q %v", got, err)
		}
	})
}

func TestCancelAndPoke(t *testing.T) {
	each(t, func(t *testing.T, pair func(*testing.T) (a, b net.Conn)) {
		a, b := pair(t)
		ctx, cancel := context.WithCancelCause(context.Background())
		why := errors.New("enough")
		done := make(chan error, 1)
		go func() {
			done <- Run(ctx, b, coreFunc(func(in []byte) (int, Next, error) { return len(in), Next{}, nil }))
		}()
		_, _ = a.Write([]byte("x"))
		Poke(b) // without a cause nothing ends
		select {
		case err := <-done:
			t.Fatalf("a poke ended the pump: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		cancel(why)
		Poke(b)
		if err := <-done; !errors.Is(err, why) {
			t.Fatal(err)
		}
	})
}

// TestFeedWrites: what the socket does not take at once is written later, whole, unless a
// deadline comes first.
func TestFeedWrites(t *testing.T) {
	t.Run("alone", func(t *testing.T) {
		a, b := pair(t)
		feedWrites(t, a, NewFeed(b, nil))
	})
	t.Run("loop", func(t *testing.T) {
		a, b := pair(t)
		f := NewFeed(b, nil)
		board(t, startLoops(t), f)
		feedWrites(t, a, f)
	})
}

func feedWrites(t *testing.T, a net.Conn, f *Feed) {
	want := make([]byte, 16<<20) // more than any socket buffer
	_, _ = rand.Read(want)
	wrote := make(chan error, 1)
	go func() {
		n, err := f.Write(want)
		if err == nil && n != len(want) {
			err = io.ErrShortWrite
		}
		wrote <- err
	}()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(a, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("other bytes came (%v)", err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if err := f.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Write(want); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 || n == len(want) {
		t.Errorf("a write that nobody reads: %d bytes, %v", n, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(want); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after the close: %v", err)
	}
}

func TestFeedWriteAllocates(t *testing.T) {
	for _, aboard := range []bool{false, true} {
		a, b := pair(t)
		go func() { _, _ = io.Copy(io.Discard, a) }()
		f := NewFeed(b, nil)
		if aboard {
			board(t, startLoops(t), f)
		}
		row := make([]byte, 100)
		if n := testing.AllocsPerRun(100, func() { _, _ = f.Write(row) }); n > 0 {
			t.Errorf("%v allocations a write, loop: %v", n, aboard)
		}
	}
}

// TestFeedReads: a Feed reads beside Run like any other connection.
func TestFeedReads(t *testing.T) {
	a, b := pair(t)
	f := NewFeed(b, []byte("he"))
	read := func() (string, error) {
		room := make([]byte, 8)
		n, err := f.Read(room)
		return string(room[:n]), err
	}
	if got, err := read(); got != "he" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	time.AfterFunc(10*time.Millisecond, func() { _, _ = a.Write([]byte("llo")) })
	if got, err := read(); got != "llo" || err != nil {
		t.Fatalf("%q %v", got, err)
	}
	_ = f.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	var timeout net.Error
	if _, err := read(); !errors.As(err, &timeout) || !timeout.Timeout() || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("past the deadline: %v", err)
	}
	_ = f.SetReadDeadline(time.Time{})
	_ = a.Close()
	if _, err := read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	_ = f.Close()
	if _, err := read(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
