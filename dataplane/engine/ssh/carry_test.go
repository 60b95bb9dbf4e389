package ssh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/test/wait"
)

func sftpClient(t *testing.T, h *house) *sftp.Client {
	t.Helper()
	c, err := sftp.NewClient(h.connect(t).Client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestRekeying: keys change many times in the midst of what goes both ways.
func TestRekeying(t *testing.T) {
	h := newHouse(t)
	nc, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	conn, channels, requests, err := ssh.NewClientConn(nc, h.addr, &ssh.ClientConfig{
		Config: ssh.Config{RekeyThreshold: 64 << 10}, User: "t.target", Auth: []ssh.AuthMethod{ssh.Password(enginetest.Token)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // it is ours
	})
	if err != nil {
		t.Fatal(err)
	}
	c := ssh.NewClient(conn, channels, requests)
	t.Cleanup(func() { _ = c.Close() })
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("0123456789abcdef"), 256<<10/4)
	s.Stdin = bytes.NewReader(want)
	got, err := s.Output("cat")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(want), err)
	}
}

// TestSlowReader: a client that does not read makes the host wait, and not the node
// remember; its other channels go on.
func TestSlowReader(t *testing.T) {
	h := newHouse(t)
	c := h.connect(t)
	ch, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{"yes"})); !ok || err != nil {
		t.Fatalf("%v %v", ok, err)
	}
	chunks := func() int64 {
		for _, e := range h.door.Last().Executions() {
			if e.Text == "yes" {
				return e.Chunks
			}
		}
		return 0
	}
	// It comes to a stand: what is under way is what windows and buffers take.
	var last int64
	still := 0
	wait.For(t, "the host waits", func() bool {
		if n := chunks(); n > 0 && n == last {
			still++
		} else {
			last, still = n, 0
		}
		return still > 100
	})
	if last > 16<<20 {
		t.Errorf("%d bytes were taken for a client that reads nothing", last)
	}
	if out, _, err := c.run(testContext(t), "echo beside"); err != nil || string(out) != "beside\n" {
		t.Errorf("another channel: %q %v", out, err)
	}
	if n, err := io.CopyN(io.Discard, ch, 4*last); err != nil {
		t.Errorf("once it reads, %d bytes come: %v", n, err)
	}
	_ = ch.Close()
	wait.For(t, "it ends", func() bool {
		for _, e := range h.door.Last().Executions() {
			if e.Text == "yes" {
				return e.Done == 1
			}
		}
		return false
	})
}

// TestKilledAtOnce: a kill ends every channel with its cause: commands, terminals, files,
// forwards and what waits for people.
func TestKilledAtOnce(t *testing.T) {
	h := newHouse(t)
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(_ string, f any) postern.Decision {
			d := postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
			if fa, ok := f.(*facts.Facts); ok && fa.Line != nil && fa.Line.Commands()[0].Program() == "held" {
				d.Verdict = postern.VerdictHold
			}
			return d
		}
		p.Await = func(ctx context.Context, progress func(string)) error {
			progress("waiting for leads")
			<-ctx.Done()
			return context.Cause(ctx)
		}
	})
	c := h.connect(t)
	file := place(t, "")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := sftp.NewClient(c.Client)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.Open(file); err != nil {
		t.Fatal(err)
	}
	var said [3]strings.Builder
	ended := make(chan error, len(said))
	for i, line := range []string{"sleep 600", "held", ""} {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		s.Stderr = &said[i]
		if line == "" {
			if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.StdinPipe(); err != nil {
				t.Fatal(err)
			}
			err = s.Shell()
		} else {
			err = s.Start(line)
		}
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- s.Wait() }()
	}
	wait.For(t, "all of it runs", func() bool { return len(h.door.Last().Prepared()) >= 5 })
	wait.For(t, "all of it is admitted", func() bool { return len(h.door.Last().Executions()) >= 3 })
	h.door.Last().Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "contract ended"})
	for range said {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("one ended as if all were well")
			}
		case <-time.After(60 * time.Second):
			t.Fatal("one does not end")
		}
	}
	for i := range said {
		if !strings.Contains(said[i].String(), "contract ended") {
			t.Errorf("channel %d was told %q", i, said[i].String())
		}
	}
	if _, err := files.Open(file); err == nil {
		t.Error("files are still served")
	}
	_ = h.door.Last().Closed()
}

// TestTypedIsNotKept: what somebody types at a prompt that does not echo is on no record,
// and what a terminal shows is, with its sizes.
func TestTypedIsNotKept(t *testing.T) {
	h := newHouse(t)
	s, err := h.connect(t).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	kept := func() string {
		var all strings.Builder
		for _, e := range h.door.Last().Executions() {
			all.Write(e.Data)
		}
		return all.String()
	}
	say := func(line string) {
		t.Helper()
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	say("stty -echo; echo as''king; read x; stty echo; echo le''ngth ${#x}")
	wait.For(t, "the prompt does not echo", func() bool { return strings.Contains(kept(), "asking") })
	say("hunter2!")
	wait.For(t, "it was read", func() bool { return strings.Contains(kept(), "length 8") })
	say("exit")
	_ = s.Wait()
	if strings.Contains(kept(), "hunter2!") {
		t.Errorf("what was typed is kept: %q", kept())
	}
}

// TestSignalWhileJudged: a signal that comes before a command is admitted is not lost, also
// where nobody has to be waited for.
func TestSignalWhileJudged(t *testing.T) {
	h := newHouse(t)
	c := h.connect(t)
	if _, err := c.Exec(testContext(t), "true"); err != nil { // the host is there
		t.Fatal(err)
	}
	judging, admit := make(chan struct{}), make(chan struct{})
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(string, any) postern.Decision {
			judging <- struct{}{}
			<-admit
			return postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
		}
	})
	file := filepath.Join(t.TempDir(), "made")
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Start("touch " + file); err != nil {
		t.Fatal(err)
	}
	<-judging
	if err := s.Signal(ssh.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, err := s.SendRequest("env", true, nil); err != nil { // is answered behind the signal
		t.Fatal(err)
	}
	close(admit)
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != exitRefused {
		t.Errorf("the command ended with %v", err)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the command ran: %v", err)
	}
}
