package ssh

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestAppended: what is added to the end of a file by many requests at once is added in their
// order, as at a host.
func TestAppended(t *testing.T) {
	h := newHouse(t)
	name := filepath.Join(t.TempDir(), "log")
	ch := ask(t, h.connect(t), "subsystem", "sftp")
	number := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	text := func(s []byte) []byte { return append(number(uint32(len(s))), s...) }
	say := func(kind byte, parts ...[]byte) []byte {
		return text(append([]byte{kind}, bytes.Join(parts, nil)...))
	}
	hear := func() []byte {
		t.Helper()
		size := make([]byte, 4)
		_, err := io.ReadFull(ch, size)
		got := make([]byte, binary.BigEndian.Uint32(size))
		if _, rerr := io.ReadFull(ch, got); err != nil || rerr != nil {
			t.Fatal(err, rerr)
		}
		return got
	}
	asked := slices.Concat(say(1, number(3)), say(3, number(1), text([]byte(name)), number(2|4|8), number(0)))
	if _, err := ch.Write(asked); err != nil {
		t.Fatal(err)
	}
	hear()
	opened := hear()
	if opened[0] != 102 {
		t.Fatalf("it is not opened: %q", opened)
	}
	const many = 400
	var all, want []byte
	for i := range many {
		line := fmt.Appendf(nil, "%07d\n", i)
		all = append(all, say(6, number(uint32(i+2)), opened[5:], make([]byte, 4), number(uint32(i*len(line))), text(line))...)
		want = append(want, line...)
	}
	if _, err := ch.Write(append(all, say(4, number(many+2), opened[5:])...)); err != nil {
		t.Fatal(err)
	}
	for range many + 1 {
		if got := hear(); got[0] != 101 || binary.BigEndian.Uint32(got[5:]) != 0 {
			t.Fatalf("it says %q", got)
		}
	}
	if got, err := os.ReadFile(name); !bytes.Equal(got, want) {
		t.Errorf("%d bytes are there, and not as they were sent: %v", len(got), err)
	}
	if tags := h.tags("write " + name); len(tags) != 1 {
		t.Errorf("%q", tags)
	}
}

// FuzzFrames: packets end where they do however they are cut.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 9, 0, 0, 0, 2, 8, 8, 0, 0, 0, 0, 0, 0, 0}, uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		var parts frames
		got, want := 0, 0
		for part := range slices.Chunk(text, int(cut)+1) {
			got += parts.pass(part)
		}
		for rest := text; len(rest) >= 4 && int(binary.BigEndian.Uint32(rest)) <= len(rest)-4; want++ {
			rest = rest[4+binary.BigEndian.Uint32(rest):]
		}
		// One without anything behind its length has ended with the next byte.
		if got != want && got != want-1 || parts.left < 0 {
			t.Fatalf("%d end, want %d", got, want)
		}
	})
}
