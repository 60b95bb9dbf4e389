package ssh

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/pkg/sftp"
)

func FuzzModes(f *testing.F) {
	f.Add("\x01\x00\x00\x00\x03\x00")
	f.Fuzz(func(t *testing.T, encoded string) {
		if modes, err := decodeModes(encoded); err == nil && len(modes) > maxModes {
			t.Errorf("%d modes", len(modes))
		}
	})
}

func FuzzAnnounced(f *testing.F) {
	f.Add("C0644 12 a b")
	f.Add("D0755 0 ..")
	f.Fuzz(func(t *testing.T, line string) {
		if line == "" {
			return
		}
		mode, size, name, err := announced(line)
		if err == nil && (mode&^0o777 != 0 || size < 0 || strings.Contains(name, "/") || name == ".." || name == "." || name == "") {
			t.Errorf("%q is %v %d %q", line, mode, size, name)
		}
	})
}

func FuzzStamped(f *testing.F) {
	f.Add("T1700000000 0 1700000000 0")
	f.Add("T-1 0 99999999999 0")
	f.Fuzz(func(t *testing.T, line string) {
		if line == "" {
			return
		}
		at, err := stamped(line)
		if at.said != (err == nil) || min(at.changed, at.read) < 0 || max(at.changed, at.read) > math.MaxUint32 {
			t.Errorf("%q is %+v: %v", line, at, err)
		}
	})
}

func FuzzCopyLine(f *testing.F) {
	f.Add("C0644 12 a\nrest")
	f.Fuzz(func(t *testing.T, text string) {
		c := &copier{in: bufio.NewReader(strings.NewReader(text))}
		if line, err := c.line(); err == nil && len(line) >= maxCopyLine {
			t.Errorf("a line of %d bytes", len(line))
		}
	})
}

func FuzzDigest(f *testing.F) {
	f.Add([]byte{0, 3, 6, 3, 3, 3})
	f.Fuzz(func(t *testing.T, parts []byte) {
		d := newDigest(&aside{})
		whole := true
		at, n := int64(0), int64(0)
		for i := 0; i+1 < len(parts); i += 2 {
			offset, p := int64(parts[i]), make([]byte, parts[i+1])
			d.part(offset, p)
			whole = whole && offset == at
			at, n = offset+int64(len(p)), n+int64(len(p))
		}
		got, sum := d.total()
		if got != n || whole && sum == "" {
			t.Errorf("%v: %d bytes %q", parts, got, sum)
		}
	})
}

// anything asks all that our handlers ask of a request, and does nothing.
type anything struct{}

func (anything) ask(r *sftp.Request) error {
	_, _, _ = r.AttrFlags(), r.Pflags(), len(r.Filepath)+len(r.Target)
	if a := r.Attributes(); a != nil {
		_, _, _ = a.FileMode(), a.AccessTime(), a.ModTime()
	}
	return fs.ErrPermission
}
func (a anything) Fileread(r *sftp.Request) (io.ReaderAt, error)   { return nil, a.ask(r) }
func (a anything) Filewrite(r *sftp.Request) (io.WriterAt, error)  { return nil, a.ask(r) }
func (a anything) Filecmd(r *sftp.Request) error                   { return a.ask(r) }
func (a anything) PosixRename(r *sftp.Request) error               { return a.ask(r) }
func (a anything) Filelist(r *sftp.Request) (sftp.ListerAt, error) { return nil, a.ask(r) }
func (a anything) Lstat(r *sftp.Request) (sftp.ListerAt, error)    { return nil, a.ask(r) }

// FuzzSFTP: packets of a client, whatever is in them, end a file session at the worst.
func FuzzSFTP(f *testing.F) {
	packet := func(kind byte, parts ...[]byte) []byte {
		rest := slices.Concat(parts...)
		return append(append(binary.BigEndian.AppendUint32(nil, uint32(1+len(rest))), kind), rest...)
	}
	text := func(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
	id := []byte{0, 0, 0, 1}
	for _, p := range [][]byte{
		packet(3, id, text("/x"), []byte{0, 0, 0, 1, 0, 0, 0, 0}), packet(9, id, text("/x"), []byte{0, 0, 0, 13}), packet(18, id, text("/x"), text("/y")),
		packet(200, id, text("posix-rename@openssh.com"), text("/x"), text("/y")), packet(6, id, text("0"), make([]byte, 8), text("data")), packet(14, id, text("/x"), []byte{0, 0, 0, 4}),
	} {
		f.Add(p)
	}
	f.Fuzz(func(_ *testing.T, said []byte) {
		a := anything{}
		s := sftp.NewRequestServer(struct {
			io.Reader
			io.WriteCloser
		}{bytes.NewReader(append(packet(1, []byte{0, 0, 0, 3}), said...)), nowhere{}}, sftp.Handlers{FileGet: a, FilePut: a, FileCmd: a, FileList: a})
		_ = s.Serve()
		_ = s.Close()
	})
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) Close() error                { return nil }
