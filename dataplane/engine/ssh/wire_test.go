package ssh

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// TestWire: what is written arrives, in order and whatever its size, also where nothing
// follows what is taken for a beginning and where the reader is slow.
func TestWire(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	w := newWire(near)
	w.join.Store(true)
	whole := make([]byte, 300*(pageful+28<<10)+pageful)
	for i := range whole {
		whole[i] = byte(i * i >> 8)
	}
	wrote := make(chan error, 1)
	go func() {
		for rest := whole; len(rest) > 0; {
			n := pageful
			if len(rest)%3 > 0 && len(rest) > 28<<10 {
				n = 28<<10 - len(rest)%5
			}
			n = min(n, len(rest))
			m, err := w.Write(rest[:n])
			if err != nil || m != n {
				wrote <- err
				return
			}
			rest = rest[n:]
		}
		wrote <- nil
	}()
	if err := far.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(whole))
	if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, whole) {
		t.Errorf("what arrives differs: %v", err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	_ = near.Close()
	if _, err := w.Write(make([]byte, pageful)); err == nil {
		t.Error("a closed connection takes a page")
	}
}

// TestWireReads: what arrives is read in order, whatever is asked for at a time, and then
// the end.
func TestWireReads(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	whole := make([]byte, 16<<20)
	for i := range whole {
		whole[i] = byte(i * i >> 8)
	}
	wrote := make(chan error, 1)
	go func() {
		for rest := whole; len(rest) > 0; {
			n := min(1+len(rest)*7919%(300<<10), len(rest))
			if _, err := far.Write(rest[:n]); err != nil {
				wrote <- err
				return
			}
			rest = rest[n:]
		}
		wrote <- far.Close()
	}()
	if err := near.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	w := newWire(near)
	from := bufio.NewReader(w) // as the library reads
	got := make([]byte, 0, len(whole))
	for len(got) < len(whole) {
		n := min(1+len(got)*104729%(200<<10), len(whole)-len(got))
		if _, err := io.ReadFull(from, got[len(got):len(got)+n]); err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		got = got[:len(got)+n]
	}
	if !bytes.Equal(got, whole) {
		t.Error("what arrives differs")
	}
	if n, err := w.Read(make([]byte, 2*pageful)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d bytes, %v", n, err)
	}
	if w.spare != nil {
		t.Error("what was read ahead is kept")
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}
