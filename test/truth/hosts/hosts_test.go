package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// nginxTask is the catalogue's: one command, and nothing else.
const nginxTask = `
apiVersion: postern/v1
kind: Task
metadata: {name: ssh-nginx-restart}
spec:
  purpose: restart nginx
  resources: {names: [web-1]}
  permit: [{channel: exec, argv: ["${WEB_DIR}/bin/systemctl", restart, nginx]}]
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: ssh-logs}
spec:
  purpose: read what a program says, but for addresses
  resources: {names: [web-1]}
  permit: [{channel: exec, argv: ["${WEB_DIR}/bin/say", "*"], pty: true, detect: {email: email}}]
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: ssh-nginx-restart}
spec: {subjects: [{group: analysts}], tasks: [ssh-nginx-restart, ssh-logs]}
`

// journal has what sshd was asked to run, one line each, with the environment that counts.
// It is written before anything of it runs.
const journal = `#!/bin/sh
{ printf '%s' "${SSH_ORIGINAL_COMMAND-shell}" | tr '\n' ' '; for v in LD_PRELOAD BASH_ENV SYSTEMD_PAGER SSH_TTY; do eval "test -z \"\${$v-}\" || printf ' %s' $v"; done; echo; } >>"$(dirname "$0")/journal"
case ${SSH_ORIGINAL_COMMAND-} in "") exec /bin/sh ;; internal-sftp) exec /usr/lib/openssh/sftp-server ;; esac
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
`

// say says the parts of an entry, each a while after the other.
const say = "#!/bin/sh\nfor f in \"$(dirname \"$0\")/../run/$1\".*; do cat \"$f\"; sleep 0.3; done\n"

const systemctl = "#!/bin/sh\necho \"$1 $2\"\n"

// TestCatalogue: what ran at the host is what was permitted and nothing else.
func TestCatalogue(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true, Host: []string{"ForceCommand ${DIR}/run/witness", "AcceptEnv *"}, Extra: nginxTask})
	w := &world{h: h, token: h.DataToken(t, "alice"), journal: filepath.Join(h.Web.Dir, "run/journal")}
	for name, text := range map[string]string{"run/witness": journal, "bin/systemctl": systemctl, "bin/say": say} {
		house.Must(0, os.WriteFile(filepath.Join(h.Web.Dir, name), []byte(text), 0o755))(t)
	}
	conns := map[string]*ssh.Client{}
	for _, task := range []string{"ssh-nginx-restart", "ssh-logs"} {
		conns[task] = w.dial(t, task)
		defer conns[task].Close()
	}
	missed, leaks, alarms, n := 0, 0, 0, 0
	for _, name := range []string{"catalogue.yaml", "rules.yaml"} {
		for _, e := range house.Must(Load(name, h.Web.Dir))(t) {
			n++
			switch fault := w.judge(t, conns[e.Task], &e); {
			case fault == "":
			case e.Want == "allow":
				alarms++
				t.Errorf("false alarm %s (%s): %s", e.ID, e.Class, fault)
			case e.Want == "no_leak":
				leaks++
				t.Errorf("leak %s (%s): %s", e.ID, e.Class, fault)
			default:
				missed++
				t.Errorf("missed %s (%s): %s", e.ID, e.Class, fault)
			}
		}
	}
	t.Logf("%d entries: missed=%d leaks=%d false_alarms=%d", n, missed, leaks, alarms)
}

// unseen is what a terminal obeys and does not show. What a title is set to it shows.
var unseen = regexp.MustCompile("\x1b\\[[0-9;?]*[@-~]|\x00")

type world struct {
	h       *house.House
	token   string
	journal string
}

// ran is what has run at the host so far.
func (w *world) ran(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(w.journal)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix("\n"+string(b), "\n"), "\n")[1:]
}

func (w *world) dial(t *testing.T, task string) *ssh.Client {
	t.Helper()
	c, err := ssh.Dial("tcp", w.h.Nodes[0].SSH, &ssh.ClientConfig{
		User: task + ".web-1", Auth: []ssh.AuthMethod{ssh.Password(w.token)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: house.Patience, //nolint:gosec // it is ours
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// judge asks, and says what is wrong with the answer; nothing where it is right.
func (w *world) judge(t *testing.T, c *ssh.Client, e *Entry) string {
	t.Helper()
	permitted := filepath.Join(w.h.Web.Dir, "bin/systemctl") + " restart nginx"
	if e.After != "" {
		if out, err := exec(t, c, &Entry{Text: e.After}); err != nil {
			return fmt.Sprintf("what comes first does not run: %v %s", err, out)
		}
	}
	for i, part := range e.Says {
		house.Must(0, os.WriteFile(filepath.Join(w.h.Web.Dir, "run", e.ID+"."+strconv.Itoa(i)), []byte(part), 0o644))(t)
	}
	before := w.ran(t)
	out, err := w.ask(t, c, e)
	since := w.ran(t)[len(before):]
	// The connection is of use afterwards, whatever it was asked.
	if ok, _, uerr := c.SendRequest("keepalive@openssh.com", true, nil); !ok {
		t.Fatalf("%s: the connection is of no use afterwards: %v", e.ID, uerr)
	}
	if e.Want == "no_leak" {
		if shown := unseen.ReplaceAllString(string(out), ""); err != nil || len(since) != 1 || strings.Contains(shown, "ice@") || strings.Contains(shown, "ple.com") {
			return fmt.Sprintf("it ran %d times, and the client sees %q, %v", len(since), out, err)
		}
		return ""
	}
	if e.Want == "allow" {
		if err != nil || len(since) != 1 || since[0] != permitted || string(out) != "restart nginx\n" {
			return fmt.Sprintf("%q ran as %q and says %q, %v", e.Text, since, out, err)
		}
		return ""
	}
	switch _, werr := os.Stat(filepath.Join(w.h.Web.Dir, "written")); {
	case err == nil:
		return fmt.Sprintf("it is done, and says %q", out)
	case len(since) > 0:
		return fmt.Sprintf("%q ran", since)
	case werr == nil:
		return "a file was written"
	case bytes.Contains(out, []byte("uid=")) || bytes.Contains(out, []byte("restart nginx\n")):
		return fmt.Sprintf("the client sees %q", out)
	}
	return ""
}

// ask does what the entry says; an error is a refusal.
func (w *world) ask(t *testing.T, c *ssh.Client, e *Entry) ([]byte, error) {
	t.Helper()
	var payload []byte
	if e.Address != "" {
		host, port, err := net.SplitHostPort(e.Address)
		n, nerr := strconv.Atoi(port)
		if err := errors.Join(err, nerr); err != nil {
			t.Fatal(err)
		}
		payload = ssh.Marshal(struct {
			Host string
			Port uint32
		}{host, uint32(n)})
		if e.Does == "channel" {
			payload = append(payload, ssh.Marshal(struct {
				Origin string
				From   uint32
			}{"127.0.0.1", 1})...)
		}
	}
	switch e.Does {
	case "exec", "shell":
		return exec(t, c, e)
	case "subsystem":
		return nil, subsystem(t, c, e.Text)
	case "channel":
		ch, requests, err := c.OpenChannel(e.Text, payload)
		if err == nil {
			go ssh.DiscardRequests(requests)
			_ = ch.Close()
		}
		return nil, err
	case "request":
		ok, answer, err := c.SendRequest(e.Text, true, payload)
		return answer, refused(ok, err)
	case "ask":
		ch, requests, err := c.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ch.Close()
		go ssh.DiscardRequests(requests)
		ok, err := ch.SendRequest(e.Text, true, payload)
		return nil, refused(ok, err)
	}
	t.Fatalf("%s does %q", e.ID, e.Does)
	return nil, nil
}

func refused(ok bool, err error) error {
	if err == nil && !ok {
		err = errors.New("refused")
	}
	return err
}

// subsystem asks for one and says nothing to it; an error is a refusal.
func subsystem(t *testing.T, c *ssh.Client, name string) error {
	t.Helper()
	ch, requests, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	late := time.AfterFunc(house.Patience, func() { _ = ch.Close() })
	defer late.Stop()
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{name})); !ok || err != nil {
		return refused(ok, err)
	}
	_ = ch.CloseWrite()
	for r := range requests {
		var status struct{ Status uint32 }
		if r.Type == "exit-status" && ssh.Unmarshal(r.Payload, &status) == nil && status.Status != 0 {
			return fmt.Errorf("exit %d", status.Status)
		}
	}
	return nil
}

// exec runs a command or a shell on a session of its own, and returns its
// output. An exit code that is not 0 is an error.
func exec(t *testing.T, c *ssh.Client, e *Entry) ([]byte, error) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	late := time.AfterFunc(house.Patience, func() { _ = s.Close() })
	defer late.Stop()
	for name, value := range e.Env {
		_ = s.Setenv(name, value)
	}
	if e.Terminal {
		if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	s.Stdout, s.Stdin = &out, strings.NewReader(e.Typed)
	switch e.Does {
	case "shell":
		err = s.Shell()
	default:
		err = s.Start(e.Text)
	}
	if err != nil {
		return nil, err
	}
	err = s.Wait()
	return out.Bytes(), err
}
