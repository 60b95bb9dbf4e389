package ssh

import (
	"bufio"
	"strings"
	"testing"
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
		d := newDigest()
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
