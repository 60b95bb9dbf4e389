package wire

import (
	"bytes"
	"testing"
)

func TestBufferGrowsWithTheBytesThatCome(t *testing.T) {
	b := Get(Small)
	defer Put(b)
	const claimed = 1 << 30
	for range 3 {
		n := len(b.Space(claimed))
		b.Wrote(n)
	}
	if b.Cap() > 8*Small {
		t.Fatalf("a claimed length of %d made a buffer of %d", claimed, b.Cap())
	}
	if b.Len() != b.Cap() {
		t.Fatalf("lost bytes: %d of %d", b.Len(), b.Cap())
	}
}

func TestBufferKeepsUnreadBytes(t *testing.T) {
	b := Get(Small)
	defer Put(b)
	var want []byte
	next := byte(0)
	for range 200 {
		s := b.Space(0)
		n := min(len(s), 777)
		for i := range n {
			s[i] = next
			want = append(want, next)
			next++
		}
		b.Wrote(n)
		drop := min(b.Len(), 700)
		b.Consume(drop)
		want = want[drop:]
		if !bytes.Equal(b.Bytes(), want) {
			t.Fatal("unread bytes changed")
		}
	}
	l := Get(Large)
	defer Put(l)
	b.MoveTo(l)
	if !bytes.Equal(l.Bytes(), want[:min(len(want), l.Cap())]) || b.Len() != 0 {
		t.Fatal("MoveTo lost bytes")
	}
}

func TestOutJoins(t *testing.T) {
	in := []byte("abcdefghij")
	var o Out
	o.Pass(in[0:3])
	o.Pass(in[3:5])
	if got := o.Bytes(); &got[0] != &in[0] || string(got) != "abcde" {
		t.Fatalf("spans that touch must not be copied: %q", got)
	}
	o.Set(append(o.Grow(), "XY"...))
	o.Pass(in[7:])
	if got := string(o.Bytes()); got != "abcdeXYhij" {
		t.Fatalf("got %q", got)
	}
	o.Reset()
	o.Pass(in[0:2])
	o.Pass(in[4:6])
	if got := string(o.Bytes()); got != "abef" {
		t.Fatalf("got %q", got)
	}
	if string(in) != "abcdefghij" {
		t.Fatalf("the input was written to: %q", in)
	}
}

// TestOutKeepsLittle: much that is gathered is in a buffer of the pool, and goes with it.
func TestOutKeepsLittle(t *testing.T) {
	in := bytes.Repeat([]byte("0123456789abcdef"), Large/16)
	var o Out
	gather := func(n int) {
		o.Pass(in[:n])
		o.Set(append(o.GrowLarge(), "and more"...))
		o.Pass(in[n:])
		if got, want := string(o.Bytes()), string(in[:n])+"and more"+string(in[n:]); got != want {
			t.Fatalf("%d bytes, want %d", len(got), len(want))
		}
		o.Reset()
		if cap(o.joined) > Small || o.large != nil {
			t.Fatalf("%d bytes are kept", cap(o.joined))
		}
	}
	gather(len(in) / 2) // longer than Large in the end
	in = in[:Large-8]
	gather(100)
	gather(len(in))
	if n := testing.AllocsPerRun(50, func() {
		o.Set(append(o.Grow(), "little"...))
		o.Reset()
		o.Pass(in[:9])
		o.Pass(in[10:])
		o.Reset()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add([]byte("name\x00\x00\x01\x00\x00\x00\x05hello"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		c := Read(body)
		s := c.CString()
		c.Int16()
		p := c.Bytes(int(c.Int32()))
		if len(s)+len(p)+len(c.Rest()) > len(body) {
			t.Fatal("fields are longer than the body")
		}
		if c.Err() != nil && (c.Byte() != 0 || c.Done() == nil) {
			t.Fatal("a failed cursor must stay failed")
		}
	})
}
