package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
)

// below permits everything with what is in a folder, and refuses the rest as policy does:
// by what was asked for.
func below(h *house, dir string) {
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(_ string, f any) postern.Decision {
			fa := f.(*facts.Facts)
			for _, p := range fa.Paths {
				if p != dir && !strings.HasPrefix(p, dir+"/") {
					return postern.Decision{Rule: "t/permit", Reason: fmt.Sprintf("not to %s %s", fa.Verb, fa.Asked)}
				}
			}
			return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
		}
	})
}

// said is all that a client hears that runs a command and says something to it.
func said(t *testing.T, c *client, command, input string) string {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	s.Stdin = strings.NewReader(input)
	pipe, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := s.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(command); err != nil {
		t.Fatal(err)
	}
	for _, from := range []io.Reader{pipe, errs} {
		if _, err := io.Copy(&out, from); err != nil {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("%s%v", out.String(), s.Wait())
}

// TestNothingIsTold: of what the task does not permit nobody learns whether it is there, or
// what it is.
func TestNothingIsTold(t *testing.T) {
	h := newHouse(t)
	dir, secret := place(t, ""), place(t, "secret-")
	for _, d := range []string{dir, filepath.Join(secret, "folder")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(secret, "file"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(secret, "file"), filepath.Join(secret, "link")); err != nil {
		t.Fatal(err)
	}
	below(h, dir)
	c := h.connect(t)
	files := sftpClient(t, h)
	for what, ask := range map[string]func(name string) string{
		"scp a file":           func(name string) string { return said(t, c, "scp -t "+secret+"/"+name, "C0644 1 new\nx\x00") },
		"scp files":            func(name string) string { return said(t, c, "scp -d -t "+secret+"/"+name, "C0644 1 new\nx\x00") },
		"scp a folder":         func(name string) string { return said(t, c, "scp -r -t "+secret+"/"+name, "D0755 0 new\nE\n") },
		"scp the folder there": func(name string) string { return said(t, c, "scp -r -t "+secret, "D0755 0 "+name+"\nE\n") },
		"scp from":             func(name string) string { return said(t, c, "scp -r -f "+secret+"/"+name, "\x00\x00\x00\x00\x00") },
		"look":                 func(name string) string { return fmt.Sprint(second(files.Lstat(filepath.Join(secret, name)))) },
		"list":                 func(name string) string { return fmt.Sprint(second(files.ReadDir(filepath.Join(secret, name)))) },
		"read":                 func(name string) string { return fmt.Sprint(second(files.Open(filepath.Join(secret, name)))) },
		"make":                 func(name string) string { return fmt.Sprint(files.Mkdir(filepath.Join(secret, name))) },
		"room":                 func(name string) string { return fmt.Sprint(second(files.StatVFS(filepath.Join(secret, name)))) },
		"follow":               func(name string) string { return fmt.Sprint(second(files.ReadLink(filepath.Join(secret, name)))) },
		"resolve":              func(name string) string { return fmt.Sprint(files.RealPath(filepath.Join(secret, name))) },
		"rename": func(name string) string {
			return fmt.Sprint(files.Rename(filepath.Join(secret, name), filepath.Join(dir, "x")))
		},
	} {
		nothing := ask("nothing")
		for _, name := range []string{"folder", "file", "link"} {
			if got := strings.ReplaceAll(ask(name), name, "nothing"); got != strings.ReplaceAll(nothing, name, "nothing") {
				t.Errorf("%s: for a %s it says\n%q, and for what is not there\n%q", what, name, got, nothing)
			}
		}
	}
	if left, _ := os.ReadDir(secret); len(left) != 3 {
		t.Errorf("outside are %v", left)
	}
}

// TestFoldersMoveWhole: a folder is renamed as all that is below it, a file as itself.
func TestFoldersMoveWhole(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(filepath.Join(dir, "folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	only(h, func(f *facts.Facts) bool { return !f.Below })
	c := sftpClient(t, h)
	for name, may := range map[string]bool{"file": true, "folder": false} {
		for how, rename := range map[string]func(string, string) error{"": c.Rename, "/posix": c.PosixRename} {
			err := rename(filepath.Join(dir, name), filepath.Join(dir, name+"-moved"))
			if (err == nil) != may {
				t.Errorf("%s%s: %v", name, how, err)
			}
			if may {
				if err := os.Rename(filepath.Join(dir, name+"-moved"), filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	only(h, func(*facts.Facts) bool { return true })
	if err := c.Rename(filepath.Join(dir, "folder"), filepath.Join(dir, "moved")); err != nil {
		t.Error(err)
	}
}

// TestARenameIsOfWhatItsNamesMean: policy hears what the host makes of both names.
func TestARenameIsOfWhatItsNamesMean(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(filepath.Join(dir, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "in", "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "in"), filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	var from, to string
	only(h, func(f *facts.Facts) bool {
		if f.Verb == facts.Write {
			from, to = f.From, f.To
		}
		return f.Verb != facts.Write || f.From == ""
	})
	c := sftpClient(t, h)
	for how, rename := range map[string]func(string, string) error{"rename": c.Rename, "posix-rename": c.PosixRename} {
		from, to = "", ""
		if err := rename(filepath.Join(dir, "out", "file"), filepath.Join(dir, "out", "new")); err == nil || from != filepath.Join(dir, "in", "file") || to != filepath.Join(dir, "in", "new") {
			t.Errorf("%s: %v; %q to %q", how, err, from, to)
		}
	}
	if err := c.Mkdir(filepath.Join(dir, "folder")); err != nil {
		t.Errorf("what is no rename: %v", err)
	}
	if err := c.Link(filepath.Join(dir, "in", "file"), filepath.Join(dir, "linked")); err == nil {
		t.Error("a second name was made")
	}
	if err := c.Symlink(filepath.Join(dir, "in", "file"), filepath.Join(dir, "linked")); err == nil {
		t.Error("a link was made")
	}
	if _, ok := c.HasExtension("copy-data"); ok {
		t.Error("data can be copied at the host")
	}
}

// TestHomeIsTold: what is changed is judged by where the account is at home, too.
func TestHomeIsTold(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	home, err := filepath.EvalSymlinks(me.HomeDir)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	only(h, func(f *facts.Facts) bool {
		if f.Verb == facts.Write || f.Verb == facts.Delete {
			told = append(told, f.Home)
		}
		return true
	})
	c := sftpClient(t, h)
	if err := errors.Join(c.MkdirAll(dir), c.RemoveDirectory(dir)); err != nil {
		t.Fatal(err)
	}
	if len(told) < 2 || slices.ContainsFunc(told, func(at string) bool { return at != home }) {
		t.Errorf("told of homes %q, want %q", told, home)
	}
}

// TestNoLinks: who wants to make one is told why not, and what to do.
func TestNoLinks(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	only(h, func(*facts.Facts) bool { return true })
	batch := filepath.Join(dir, "batch")
	for _, how := range []string{"ln", "ln -s"} {
		if err := os.WriteFile(batch, []byte(how+" "+batch+" "+dir+"/link\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, errs, code := h.stock(t, "sftp", "-o", "BatchMode=no", "-b", batch, "node")
		if code == 0 || !strings.Contains(errs, "no links are made over SFTP") || !strings.Contains(errs, "hint: copy the file") {
			t.Errorf("%s: exit %d, %s", how, code, errs)
		}
	}
}

// TestScpOfAFileThatShrinks: who was told how long a file is gets that many bytes, and then that
// it has become shorter, as from a host; otherwise both sides would wait for each other.
func TestScpOfAFileThatShrinks(t *testing.T) {
	h := newHouse(t)
	name := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(name, []byte("a line"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := h.connect(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("scp -f " + name); err != nil {
		t.Fatal(err)
	}
	stop := context.AfterFunc(testContext(t), func() { _ = s.Close() })
	defer stop()
	out := bufio.NewReader(pipe)
	say := func(want string) {
		t.Helper()
		_, err := in.Write([]byte{0})
		got := make([]byte, len(want))
		if _, rerr := io.ReadFull(out, got); err != nil || rerr != nil || string(got) != want {
			t.Fatalf("got %q, want %q: %v, %v", got, want, err, rerr)
		}
	}
	say("C0600 6 log\n")
	if err := os.Truncate(name, 2); err != nil {
		t.Fatal(err)
	}
	say("a \x00\x00\x00\x00\x01scp: log: it has become shorter\n")
	if _, err := in.Write([]byte{0}); err != nil {
		t.Fatal(err)
	}
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 1 {
		t.Errorf("it ended with %v", err)
	}
}

// TestOwners: whose a file is at the host is told wherever it is looked at.
func TestOwners(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	user, group := os.Getuid(), os.Getgid()
	if user == 0 {
		user, group = 4711, 4712
		if err := os.Chown(name, user, group); err != nil {
			t.Fatal(err)
		}
	}
	files := sftpClient(t, h)
	for what, look := range map[string]func() (fs.FileInfo, error){
		"stat":  func() (fs.FileInfo, error) { return files.Stat(name) },
		"lstat": func() (fs.FileInfo, error) { return files.Lstat(name) },
		"list": func() (fs.FileInfo, error) {
			all, err := files.ReadDir(dir)
			if err != nil || len(all) != 1 {
				return nil, fmt.Errorf("%v: %w", all, err)
			}
			return all[0], nil
		},
		"open": func() (fs.FileInfo, error) {
			f, err := files.Open(name)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return f.Stat()
		},
	} {
		info, err := look()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if s := info.Sys().(*sftp.FileStat); int(s.UID) != user || int(s.GID) != group {
			t.Errorf("%s: it is %d's of %d, want %d and %d", what, s.UID, s.GID, user, group)
		}
	}
	if err := files.Chown(name, user, group); err != nil {
		t.Errorf("made its owner's: %v", err)
	}
	for _, other := range [][2]int{{user + 1, group}, {user, group + 1}} {
		if err := files.Chown(name, other[0], other[1]); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("made %d's: %v", other, err)
		}
	}
}

// TestRoom: how much room there is at the host is told to whom may look there.
func TestRoom(t *testing.T) {
	h := newHouse(t)
	dir := t.TempDir()
	below(h, dir)
	files := sftpClient(t, h)
	room, err := files.StatVFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	var want syscall.Statfs_t
	if err := syscall.Statfs(dir, &want); err != nil {
		t.Fatal(err)
	}
	if room.Blocks != want.Blocks {
		t.Errorf("there is %+v, want %+v", room, want)
	}
	if _, err := files.StatVFS("/"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("elsewhere: %v", err)
	}
	if _, err := files.StatVFS(filepath.Join(dir, "nothing")); err == nil {
		t.Error("there is room in nothing")
	}
}
