//go:build linux

package pump

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/test/wait"
)

// carried runs fn with a seat on conn, and gives its error.
func carried(conn net.Conn, fn func(c *Carrier) error) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				done <- fmt.Errorf("panic: %v", v)
			}
		}()
		var err error
		Carry(func(c *Carrier) {
			Seat(conn, c)
			c.On()
			err = fn(c)
		})
		done <- err
	}()
	return done
}

func await(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
		return nil
	}
}

// TestCarry: what many passengers say to a second socket each comes back, whether they ride
// or have got off, and however much it is.
func TestCarry(t *testing.T) {
	loops := startLoops(t)
	var all sync.WaitGroup
	for i := range 16 {
		client, near := pair(t)
		far, server := pair(t)
		near, far = Wrap(near), Wrap(far)
		board(t, loops, near)
		board(t, loops, far)
		go func() { _, _ = io.Copy(server, server) }()
		done := carried(near, func(c *Carrier) error {
			Seat(far, c)
			from, back := bufio.NewReader(near), bufio.NewReader(far)
			for {
				c.On()
				line, err := from.ReadString('\n')
				if err != nil {
					return err
				}
				if strings.HasPrefix(line, "off") {
					c.Off()
				}
				if _, err := io.WriteString(far, line); err != nil {
					return err
				}
				if line, err = back.ReadString('\n'); err != nil {
					return err
				}
				if _, err := io.WriteString(near, line); err != nil {
					return err
				}
			}
		})
		all.Add(1)
		go func() {
			defer all.Done()
			r := bufio.NewReader(client)
			for n := range 200 {
				line := fmt.Sprintf("%s %d %d %s\n", []string{"on", "off"}[n/7%2], i, n, strings.Repeat("x", n*n))
				_, _ = io.WriteString(client, line)
				if got, err := r.ReadString('\n'); err != nil || got != line {
					t.Errorf("%.20q %v, want %.20q", got, err, line)
					return
				}
			}
			_ = client.Close()
			if err := await(t, done); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
		}()
	}
	all.Wait()
}

// TestCarryAdrift: what a passenger wrote to a peer that takes no more is written by the loop
// once it does, while the passenger waits for somebody else, who is served.
func TestCarryAdrift(t *testing.T) {
	loops := startLoops(t)
	if err := loops.Batches(); err != nil { // without, nothing is kept for the end of a round
		t.Log(err)
		return
	}
	client, near := pair(t)
	far, server := pair(t)
	near, far = Wrap(near), Wrap(far)
	board(t, loops, near)
	board(t, loops, far)
	text := strings.Repeat("x", 4000)
	wrote := make(chan struct{})
	done := carried(near, func(c *Carrier) error {
		Seat(far, c)
		for {
			c.On()
			if _, err := near.Read(make([]byte, 1)); err != nil {
				return err
			}
			if _, err := io.WriteString(far, text); err != nil {
				return err
			}
			wrote <- struct{}{}
		}
	})
	s := far.(*Feed).sock
	n := 0
	for adrift := false; !adrift; n++ {
		_, _ = client.Write([]byte("."))
		<-wrote
		for sent := false; !sent; {
			s.mu.Lock()
			sent, adrift = s.posted == 0, s.adrift
			s.mu.Unlock()
		}
		if n > 10_000 {
			t.Fatal("the peer takes everything")
		}
	}
	got := make([]byte, n*len(text))
	if _, err := io.ReadFull(server, got); err != nil {
		t.Fatal(err)
	}
	_, _ = client.Write([]byte("."))
	<-wrote
	if _, err := io.ReadFull(server, got[:len(text)]); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	if s.adrift || s.stalled.Load() {
		t.Error("it is still adrift")
	}
	s.mu.Unlock()
	_ = client.Close()
	if err := await(t, done); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestCarryEnds: a passenger that waits is told of a deadline and of the end of its socket,
// can be evicted, and panics where it was begun.
func TestCarryEnds(t *testing.T) {
	loops := startLoops(t)
	seated := func(t *testing.T, fn func(c *Carrier, near net.Conn) error) (client, near net.Conn, done <-chan error) {
		client, near = pair(t)
		near = Wrap(near)
		board(t, loops, near)
		return client, near, carried(near, func(c *Carrier) error { return fn(c, near) })
	}
	read := func(_ *Carrier, near net.Conn) error {
		_, err := near.Read(make([]byte, 1))
		return err
	}
	t.Run("deadline", func(t *testing.T) {
		_, near, done := seated(t, read)
		_ = near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if err := await(t, done); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("close", func(t *testing.T) {
		_, near, done := seated(t, read)
		_ = near.Close()
		if err := await(t, done); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	t.Run("peer", func(t *testing.T) {
		client, _, done := seated(t, read)
		_ = client.Close()
		if err := await(t, done); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
	})
	t.Run("panic", func(t *testing.T) {
		client, _, done := seated(t, func(c *Carrier, near net.Conn) error {
			_ = read(c, near)
			panic("here")
		})
		_, _ = client.Write([]byte("x"))
		if err := await(t, done); err == nil || !strings.Contains(err.Error(), "here") {
			t.Error(err)
		}
	})
	t.Run("evict", func(t *testing.T) {
		held := make(chan struct{})
		who := make(chan *Carrier, 1)
		client, _, done := seated(t, func(c *Carrier, near net.Conn) error {
			who <- c
			if err := read(c, near); err != nil {
				return err
			}
			<-held // which would stop the loop
			return nil
		})
		c := <-who
		wait.For(t, "the passenger is put out", c.Evict)
		_, _ = client.Write([]byte("x"))
		other, _, first := seated(t, read)
		_, _ = other.Write([]byte("x"))
		if err := await(t, first); err != nil {
			t.Error(err)
		}
		close(held)
		if err := await(t, done); err != nil {
			t.Error(err)
		}
	})
}
