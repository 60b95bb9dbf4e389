package ssh

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkg/sftp"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	facts "github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/test/wait"
)

// TestPermissions: what is made has the permissions that its client asks for, as far as the
// host's umask lets, before there is anything in it; what was there keeps its own.
func TestPermissions(t *testing.T) {
	h := newHouse(t)
	dir, local := place(t, ""), t.TempDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	below(h, dir)
	for _, c := range []struct {
		name string
		mode fs.FileMode
	}{{"secret", 0o600}, {"program", 0o755}, {"plain", 0o644}} {
		if err := os.WriteFile(filepath.Join(local, c.name), []byte("#!/bin/sh"), c.mode); err != nil {
			t.Fatal(err)
		}
		for _, how := range [][]string{{"-s"}, {"-O"}, {"-s", "-p"}, {"-O", "-p"}} {
			to := filepath.Join(dir, c.name+strings.Join(how, ""))
			for _, there := range []fs.FileMode{0, 0o640} { // it is made, and it was there
				want := c.mode
				if there != 0 {
					if err := os.Chmod(to, there); err != nil {
						t.Fatal(err)
					}
					if len(how) == 1 {
						want = there
					}
				}
				if _, errs, code := h.stock(t, "scp", append(how, filepath.Join(local, c.name), "node:"+to)...); code != 0 {
					t.Fatalf("%s: exit %d, %s", to, code, errs)
				}
				if info, err := os.Stat(to); err != nil || info.Mode() != want || info.Size() != 9 {
					t.Errorf("%s has %v, want %v: %v", to, info.Mode(), want, err)
				}
			}
		}
	}
	for name, mode := range map[string]fs.FileMode{"folder": 0o700, "folder/open": 0o755, "folder/closed": 0o750} {
		if err := os.MkdirAll(filepath.Join(local, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(local, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, how := range []string{"-s", "-O"} {
		if _, errs, code := h.stock(t, "scp", how, "-r", filepath.Join(local, "folder"), "node:"+dir+"/"+how[1:]); code != 0 {
			t.Fatalf("%s: exit %d, %s", how, code, errs)
		}
		for name, mode := range map[string]fs.FileMode{"": 0o700, "open": 0o755, "closed": 0o750} {
			if info, err := os.Stat(filepath.Join(dir, how[1:], name)); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s: the folder %q has %v, want %v: %v", how, name, info.Mode(), mode, err)
			}
		}
	}
	for _, c := range []struct{ mode, made, want fs.FileMode }{
		{0o777, 0o644, 0o755}, {0o777, 0o640, 0o750}, {0o755, 0o600, 0o700}, {0o666, 0o664, 0o664}, {0o600, 0o644, 0o600}, {0o755, 0o755, 0o755},
	} {
		if got := let(c.mode, c.made); got != c.want {
			t.Errorf("%v where %v is made is %v, want %v", c.mode, c.made, got, c.want)
		}
	}
}

// TestCutOff: the record says of a file which its client did not close that it may be a part.
func TestCutOff(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	below(h, dir)
	c := h.connect(t)
	files, err := sftp.NewClient(c.Client)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"whole", "part"} {
		f, err := files.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if name == "whole" {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = files.Close()
	said(t, c, "scp -t "+dir+"/scp", "C0644 9 new\nhel")
	for name, want := range map[string]bool{"whole": false, "part": true, "scp": true} {
		text := "write " + dir + "/" + name
		wait.For(t, text+" ends", func() bool { return len(h.tags(text)) == 1 })
		if tag := h.tags(text)[0]; strings.HasSuffix(tag, ", cut off") != want || !strings.Contains(tag, " bytes sha256:") {
			t.Errorf("%s: %s", name, tag)
		}
	}
}

// TestFilesWithinLimits: what is set aside for one stream is no other's, and a file that fits
// the limit is read, however much its client asks for at once.
func TestFilesWithinLimits(t *testing.T) {
	x := &execution{}
	x.flow.Start(&more{left: 2}, -1, 10)
	for _, want := range []int{6, 6, 0} {
		if got := x.room(6); got != want {
			t.Errorf("%d may pass, want %d", got, want)
		}
	}
	x.give(3)
	if got := x.room(6); got != 3 {
		t.Errorf("%d may pass of 3 that were given back", got)
	}

	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) { p.Bytes = 100 })
	c := sftpClient(t, h)
	for size, may := range map[int]bool{90: true, 101: false} {
		name := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := c.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if (err == nil) != may || may && len(got) != size || len(got) > 100 {
			t.Errorf("%d of %d bytes: %v", len(got), size, err)
		}
		_ = f.Close()
	}
}

// more is a budget that has some more bytes than what was said at the start.
type more struct {
	engine.FlowSink
	left int64
}

func (m *more) Room(_, bytes int64) (int64, int64) {
	bytes = min(bytes, m.left)
	m.left -= bytes
	return 0, bytes
}

// TestReadAndWritten: a file is opened for both where both are permitted, and nothing is done to
// it otherwise.
func TestReadAndWritten(t *testing.T) {
	h := newHouse(t)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := sftpClient(t, h)
	for _, verb := range []facts.Verb{facts.Read, facts.Write} {
		only(h, func(f *facts.Facts) bool { return f.Verb != verb })
		if f, err := c.OpenFile(name, os.O_RDWR|os.O_TRUNC); err == nil {
			_ = f.Close()
			t.Errorf("it is opened where nobody may %s", verb)
		}
	}
	if b, err := os.ReadFile(name); string(b) != "before" {
		t.Fatalf("it has %q: %v", b, err)
	}
	only(h, func(*facts.Facts) bool { return true })
	f, err := c.OpenFile(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("AFTER"), 0); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if n, err := f.ReadAt(got, 0); string(got[:n]) != "AFTERe" {
		t.Errorf("%q: %v", got[:n], err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"write " + name: "write 5 bytes sha256:", "read " + name: "read 6 bytes sha256:"} {
		if tags := h.tags(text); len(tags) == 0 || !strings.HasPrefix(tags[len(tags)-1], want) {
			t.Errorf("%s: %q", text, tags)
		}
	}
}

// TestReadlink: where a link leads is told to whom may look there.
func TestReadlink(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"in": "file", "out": "/etc/passwd"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	below(h, dir)
	c := sftpClient(t, h)
	if to, err := c.ReadLink(filepath.Join(dir, "in")); to != "file" || err != nil {
		t.Errorf("%q, %v", to, err)
	}
	if to, err := c.ReadLink(filepath.Join(dir, "out")); err == nil || strings.Contains(err.Error(), "passwd") {
		t.Errorf("out of the folder: %q, %v", to, err)
	}
}
