package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

// only allows what fn says yes to.
func only(h *house, fn func(f *facts.Facts) bool, obligations ...postern.Obligation) {
	h.door.Set(func(p *enginetest.Policy) {
		p.Version++
		p.Decide = func(_ string, f any) postern.Decision {
			if fa, ok := f.(*facts.Facts); ok && fa.Unknown == "" && fn(fa) {
				return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource, Obligations: obligations}
			}
			return postern.Decision{Rule: "t/permit", Reason: "not allowed here"}
		}
	})
}

// stock runs a program of OpenSSH against the house.
func (h *house) stock(t *testing.T, program string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	dir := t.TempDir()
	host, port, _ := net.SplitHostPort(h.addr)
	files := map[string]string{
		"ask":   "#!/bin/sh\necho " + enginetest.Token + "\n",
		"known": fmt.Sprintf("[%s]:%s %s", host, port, ssh.MarshalAuthorizedKey(h.key)),
		"config": fmt.Sprintf("Host node\nHostName %s\nPort %s\nUser t.target\nUserKnownHostsFile %s/known\nPreferredAuthentications password,keyboard-interactive\nNumberOfPasswordPrompts 1\nIdentityAgent none\nSendEnv LANG LC_TEST\n",
			host, port, dir),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(testContext(t), program, append([]string{"-F", filepath.Join(dir, "config")}, args...)...)
	cmd.Env = append(os.Environ(), "SSH_ASKPASS="+filepath.Join(dir, "ask"), "SSH_ASKPASS_REQUIRE=force", "LANG=de_DE.UTF-8", "LC_TEST=x")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	code = cmd.ProcessState.ExitCode()
	if err != nil && code < 0 {
		t.Fatalf("%s %v: %v\n%s", program, args, err, errs.String())
	}
	return out.String(), errs.String(), code
}

func TestStockSSH(t *testing.T) {
	h := newHouse(t)
	only(h, func(f *facts.Facts) bool {
		return f.Verb == facts.Exec && !slices.ContainsFunc(f.Line.Commands(), func(c shell.Command) bool { return c.Program() == "id" })
	})
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{[]string{"node", "echo hello"}, "hello\n", 0},
		{[]string{"node", "echo 'a  b'"}, "a  b\n", 0},
		{[]string{"node", "false"}, "", 1},
		{[]string{"node", "printf abc | tr a-c A-C"}, "ABC", 0},
		{[]string{"-tt", "node", "tty"}, "/dev/pts", 0},
	} {
		out, errs, code := h.stock(t, "ssh", c.args...)
		if !strings.HasPrefix(out, c.want) || code != c.code {
			t.Errorf("%v: exit %d, %q, %q", c.args, code, out, errs)
		}
	}
	for _, line := range []string{"id", "echo $(id)", "echo a > /tmp/x", "sh -c id; id"} {
		out, errs, code := h.stock(t, "ssh", "node", line)
		if out != "" || code != exitRefused || !strings.Contains(errs, "postern: not allowed here") || !strings.Contains(errs, "rule: t/permit") {
			t.Errorf("%q: exit %d, %q, %q", line, code, out, errs)
		}
	}
	if _, errs, code := h.stock(t, "ssh", "-W", "127.0.0.1:1", "node"); code == 0 || !strings.Contains(errs, "not allowed") {
		t.Errorf("a forward: exit %d, %q", code, errs)
	}
}

func TestWhatIsRecorded(t *testing.T) {
	h := newHouse(t)
	only(h, func(*facts.Facts) bool { return true }, postern.Obligation{Programs: []string{"/bin/echo"}})
	c := h.connect(t)
	if out, said, err := c.run(testContext(t), "echo one; echo two"); err == nil {
		t.Fatalf("two commands with the path of one: %q %q", out, said)
	}
	out, _, err := c.run(testContext(t), "echo hello")
	if err != nil || string(out) != "hello\n" {
		t.Fatalf("%q %v", out, err)
	}
	all := h.door.Last().Executions()
	last := all[len(all)-1]
	if last.Text != "echo hello" || string(last.Data) != "hello\n" || last.Outcome.Tag != "exit 0" {
		t.Errorf("%+v", last)
	}
}

// TestTooLong: a line that is too long to be judged is refused in words, and on record.
func TestTooLong(t *testing.T) {
	h := newHouse(t)
	_, said, err := h.connect(t).run(testContext(t), "echo "+strings.Repeat("x", 40<<10))
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != exitRefused || !strings.Contains(string(said), "the command line has 40965 bytes") {
		t.Errorf("%v: %s", err, said)
	}
	if notes := h.door.Last().Notes(); len(notes) != 1 || !strings.HasPrefix(notes[0], "unread 40965 ") {
		t.Errorf("on record is %q", notes)
	}
}

func TestEnvironment(t *testing.T) {
	h := newHouse(t)
	only(h, func(*facts.Facts) bool { return true }, postern.Obligation{Env: []string{"LANG"}})
	s, err := h.connect(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"LANG": "C.UTF-8", "POSTERN_X": "1"} {
		if err := s.Setenv(name, value); err != nil {
			t.Fatal(err)
		}
	}
	out, err := s.Output("env")
	if err != nil || !strings.Contains(string(out), "LANG=C.UTF-8\n") || strings.Contains(string(out), "POSTERN_X") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestRequests(t *testing.T) {
	h := newHouse(t)
	c := h.connect(t)
	for _, kind := range []string{"x11", "auth-agent@openssh.com", "forwarded-tcpip", "direct-streamlocal@openssh.com", "tun@openssh.com", "nonsense"} {
		if _, _, err := c.OpenChannel(kind, nil); err == nil {
			t.Errorf("a channel of kind %s was opened", kind)
		}
	}
	for _, kind := range []string{"tcpip-forward", "streamlocal-forward@openssh.com", "nonsense"} {
		if ok, _, err := c.SendRequest(kind, true, nil); ok || err != nil {
			t.Errorf("the request %s: %v %v", kind, ok, err)
		}
	}
	if ok, _, err := c.SendRequest("keepalive@openssh.com", true, nil); !ok || err != nil {
		t.Errorf("keepalive: %v", err)
	}
	ch, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	for _, r := range []struct {
		kind    string
		payload []byte
	}{
		{"x11-req", nil}, {"auth-agent-req@openssh.com", nil}, {"subsystem", ssh.Marshal(struct{ Name string }{"netconf"})}, {"env", []byte{1}},
		{"exec", []byte{0, 0, 1, 0}}, {"pty-req", []byte("x")}, {"window-change", nil}, {"shell", []byte{1}}, {"nonsense", nil},
		{"env", ssh.Marshal(struct{ Name, Value string }{"A", strings.Repeat("x", 64<<10)})},
	} {
		if ok, err := ch.SendRequest(r.kind, true, r.payload); ok || err != nil {
			t.Errorf("%s with %q: %v %v", r.kind, r.payload, ok, err)
		}
	}
	if out, _, err := c.run(testContext(t), "echo still here"); err != nil || string(out) != "still here\n" {
		t.Errorf("%q %v", out, err)
	}
}

// TestUnknownHost: a host with another key than the resource's is refused, and the session
// says so without saying more.
func TestUnknownHost(t *testing.T) {
	h := newHouse(t)
	other := newSigner(t)
	terms := target(t)
	terms.SSH.HostKeys = []string{string(ssh.MarshalAuthorizedKey(other.PublicKey()))}
	h.door = enginetest.NewDoor(t, terms, credential(t))
	key := newSigner(t)
	h.addr = enginetest.Serve(t, New(Config{HostKeys: func() []ssh.Signer { return []ssh.Signer{key} }}), h.door)
	_, said, err := h.connect(t).run(testContext(t), "echo hello")
	if err == nil || !strings.Contains(string(said), "cannot log in to resource") || strings.Contains(string(said), "key") {
		t.Errorf("%v, %q", err, said)
	}
}

func TestFiles(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	secret := place(t, "secret-")
	for _, d := range []string{dir, secret} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(secret, "s"), []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	only(h, func(f *facts.Facts) bool {
		for _, p := range f.Paths {
			if p != dir && !strings.HasPrefix(p, dir+"/") {
				return false
			}
		}
		return f.Verb == facts.Files || len(f.Paths) > 0 && f.Verb != facts.Delete
	})
	c, err := sftp.NewClient(h.connect(t).Client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	big := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
	f, err := c.Create(filepath.Join(dir, "big"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(bytes.NewReader(big)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "big"))
	if err != nil || !bytes.Equal(got, big) {
		t.Fatalf("%d bytes arrived: %v", len(got), err)
	}
	if f, err = c.Open(filepath.Join(dir, "big")); err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if _, err := f.WriteTo(&back); err != nil || !bytes.Equal(back.Bytes(), big) {
		t.Fatalf("%d bytes came back: %v", back.Len(), err)
	}
	_ = f.Close()
	entries, err := c.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if err := c.Rename(filepath.Join(dir, "big"), filepath.Join(dir, "renamed")); err != nil {
		t.Errorf("rename: %v", err)
	}
	for what, err := range map[string]error{
		"read outside":                 second(c.Open(filepath.Join(secret, "s"))),
		"read through a link":          second(c.Open(filepath.Join(dir, "link/s"))),
		"list through a link":          second(c.ReadDir(filepath.Join(dir, "link"))),
		"write through a link":         second(c.Create(filepath.Join(dir, "link/new"))),
		"climb":                        second(c.Open(dir + "/../" + filepath.Base(secret) + "/s")),
		"remove":                       c.Remove(filepath.Join(dir, "renamed")),
		"rename outside":               c.Rename(filepath.Join(dir, "renamed"), filepath.Join(secret, "x")),
		"make a link":                  c.Symlink("/etc/passwd", filepath.Join(dir, "passwd")),
		"make a hard link":             c.Link(filepath.Join(secret, "s"), filepath.Join(dir, "hard")),
		"make a folder through a link": c.Mkdir(filepath.Join(dir, "link/folder")),
	} {
		if err == nil {
			t.Errorf("%s: allowed", what)
		}
	}
	if left, _ := os.ReadDir(secret); len(left) != 1 {
		t.Errorf("outside are %v", left)
	}
	// The record has names, sizes and hashes.
	var texts []string
	for _, e := range h.door.Last().Executions() {
		texts = append(texts, e.Text+": "+e.Outcome.Tag)
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{"write " + dir + "/big: write 3200000 bytes sha256:", "read " + dir + "/big: read 3200000 bytes sha256:", "rename " + dir + "/big " + dir + "/renamed"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestScp(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	local := t.TempDir()
	for _, name := range []string{"a", "b c"} {
		if err := os.WriteFile(filepath.Join(local, name), []byte("text of "+name), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	only(h, func(f *facts.Facts) bool {
		for _, p := range f.Paths {
			if p != dir && !strings.HasPrefix(p, dir+"/") {
				return false
			}
		}
		return f.Verb == facts.Files || len(f.Paths) > 0
	})
	for _, mode := range []string{"-O", "-s"} {
		if _, errs, code := h.stock(t, "scp", mode, "-r", local, "node:"+dir+"/sub"); code != 0 {
			t.Fatalf("%s up: exit %d, %s", mode, code, errs)
		}
		name := filepath.Join(dir, "sub", filepath.Base(local), "a")
		if b, err := os.ReadFile(name); err != nil || string(b) != "text of a" {
			t.Fatalf("%s: %q %v", mode, b, err)
		}
		back := filepath.Join(t.TempDir(), "back")
		if _, errs, code := h.stock(t, "scp", mode, "-r", "node:"+filepath.Join(dir, "sub", filepath.Base(local)), back); code != 0 {
			t.Fatalf("%s down: exit %d, %s", mode, code, errs)
		}
		if b, err := os.ReadFile(filepath.Join(back, "a")); err != nil || string(b) != "text of a" {
			t.Fatalf("%s: %q %v", mode, b, err)
		}
		for _, args := range [][]string{{filepath.Join(local, "a"), "node:/tmp/postern-not-allowed"}, {"node:/etc/passwd", filepath.Join(local, "x")}} {
			if _, errs, code := h.stock(t, "scp", append([]string{mode}, args...)...); code == 0 || !strings.Contains(errs, "not allowed here") {
				t.Errorf("%s %v: exit %d, %s", mode, args, code, errs)
			}
		}
		if err := os.RemoveAll(filepath.Join(dir, "sub", filepath.Base(local))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestScpOfSeveral: several files go into a folder, and not one over the other to what is none.
func TestScpOfSeveral(t *testing.T) {
	h := newHouse(t)
	dir := place(t, "")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	below(h, dir)
	local := t.TempDir()
	for _, name := range []string{filepath.Join(local, "a"), filepath.Join(local, "b"), filepath.Join(dir, "file")} {
		if err := os.WriteFile(name, []byte("text of "+filepath.Base(name)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, mode := range []string{"-O", "-s"} {
		for _, into := range []string{"file", "nothing"} {
			_, errs, code := h.stock(t, "scp", mode, filepath.Join(local, "a"), filepath.Join(local, "b"), "node:"+filepath.Join(dir, into))
			makes := mode == "-s" && into == "nothing" // a folder: so the client
			if (code == 0) != makes {
				t.Errorf("%s: to %s: exit %d, %s", mode, into, code, errs)
			}
		}
		if _, errs, code := h.stock(t, "scp", mode, filepath.Join(local, "a"), filepath.Join(local, "b"), "node:"+dir); code != 0 {
			t.Errorf("%s: into a folder: exit %d, %s", mode, code, errs)
		}
	}
	for name, want := range map[string]string{"file": "text of file", "a": "text of a", "b": "text of b", "nothing": ""} {
		if b, _ := os.ReadFile(filepath.Join(dir, name)); string(b) != want {
			t.Errorf("%s has %q", name, b)
		}
	}
}

func TestGuardedShell(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(_ string, f any) postern.Decision {
			fa, _ := f.(*facts.Facts)
			switch {
			case fa.Verb == facts.Shell:
				return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource, Obligations: []postern.Obligation{{Guard: true}}}
			case fa.Unknown == "" && fa.Line.Commands()[0].Program() == "echo":
				return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
			case fa.Unknown == "" && fa.Line.Commands()[0].Program() == "true":
				return postern.Decision{Verdict: postern.VerdictHold, Level: postern.LevelSource}
			}
			return postern.Decision{Rule: "t/permit", Reason: "not allowed here"}
		}
		p.Await = func(_ context.Context, progress func(string)) error {
			progress("waiting for leads")
			return nil
		}
	})
	s, err := h.connect(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	s.Stdout = &out
	s.Stdin = strings.NewReader("not this\x03echo allowed line\rid\rtrue\recho $HOME\rexit\r")
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"target> ", "\r\nallowed line\r\n", "postern: not allowed here", "postern: waiting for leads"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "uid=") || strings.Contains(out.String(), os.Getenv("HOME")+"\r\n") {
		t.Errorf("what was refused ran:\n%s", out.String())
	}
}
