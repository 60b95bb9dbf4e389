package ssh

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// bare is a client of SFTP that says what it is told to.
type bare struct {
	t  *testing.T
	ch io.ReadWriter
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

func counted(s []byte) []byte { return append(u32(uint32(len(s))), s...) }

// request is a packet.
func request(kind byte, parts ...[]byte) []byte {
	return counted(append([]byte{kind}, bytes.Join(parts, nil)...))
}

// hear is what the packet that comes next says.
func (b bare) hear() []byte {
	b.t.Helper()
	size := make([]byte, 4)
	_, err := io.ReadFull(b.ch, size)
	got := make([]byte, binary.BigEndian.Uint32(size))
	if _, rerr := io.ReadFull(b.ch, got); err != nil || rerr != nil {
		b.t.Fatal(err, rerr)
	}
	return got
}

// TestAppended: what is added to the end of a file by many requests at once is added in their
// order, as at a host.
func TestAppended(t *testing.T) {
	h := newHouse(t)
	name := filepath.Join(t.TempDir(), "log")
	ch := ask(t, h.connect(t), "subsystem", "sftp")
	hear := bare{t, ch}.hear
	asked := slices.Concat(request(1, u32(3)), request(3, u32(1), counted([]byte(name)), u32(2|4|8), u32(0)))
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
		all = append(all, request(6, u32(uint32(i+2)), opened[5:], make([]byte, 4), u32(uint32(i*len(line))), counted(line))...)
		want = append(want, line...)
	}
	if _, err := ch.Write(append(all, request(4, u32(many+2), opened[5:])...)); err != nil {
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

// TestFolderModes: a folder that is made has the permissions that its client asks for, as at a
// host, whatever else it says of it.
func TestFolderModes(t *testing.T) {
	h := newHouse(t)
	ch := ask(t, h.connect(t), "subsystem", "sftp")
	dir := t.TempDir()
	cases := map[string]struct {
		attributes []byte
		want       fs.FileMode
	}{
		"closed": {slices.Concat(u32(4), u32(0o40700)), 0o700},
		"open":   {slices.Concat(u32(4), u32(0o777)), 0o755},
		"setgid": {slices.Concat(u32(4), u32(0o2750)), 0o750},
		"all":    {slices.Concat(u32(15), make([]byte, 16), u32(0o711), make([]byte, 8)), 0o711},
		"none":   {u32(0), 0o755},
		"times":  {slices.Concat(u32(8), make([]byte, 8)), 0o755},
	}
	asked := request(1, u32(3))
	for name, c := range cases {
		asked = append(asked, request(14, u32(1), counted([]byte(filepath.Join(dir, name))), c.attributes)...)
	}
	if _, err := ch.Write(asked); err != nil {
		t.Fatal(err)
	}
	b := bare{t, ch}
	b.hear()
	for range cases {
		if got := b.hear(); got[0] != 101 || binary.BigEndian.Uint32(got[5:]) != 0 {
			t.Fatalf("it says %q", got)
		}
	}
	for name, c := range cases {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != c.want|fs.ModeDir {
			t.Errorf("%s has %v, want %v: %v", name, info.Mode(), c.want, err)
		}
	}
}

// FuzzFrames: packets end where they do, and folders are asked for, however they are cut.
func FuzzFrames(f *testing.F) {
	f.Add(request(14, u32(1), counted([]byte("name")), u32(4), u32(0o700)), uint8(2))
	f.Add([]byte{0, 0, 0, 1, 9, 0, 0, 0, 2, 8, 8, 0, 0, 0, 0, 0, 0, 0}, uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		var parts, whole frames
		var folders, wanted []fs.FileMode
		parts.folder = func(request []byte) { folders = append(folders, folderMode(request)) }
		whole.folder = func(request []byte) { wanted = append(wanted, folderMode(request)) }
		whole.pass(text)
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
		if !slices.Equal(folders, wanted) {
			t.Fatalf("folders with %v, want %v", folders, wanted)
		}
	})
}
