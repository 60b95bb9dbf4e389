package ssh

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
	"github.com/posterngate/postern/test/servers"
)

const toolTasks = `
apiVersion: postern/v1
kind: Task
metadata: {name: web-play}
spec:
  purpose: look after the web servers by playbook
  resources: {names: [web-1]}
  permit: [{unrestricted: true}]
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: web-raw}
spec:
  purpose: a playbook of single commands
  resources: {names: [web-1]}
  permit: [{channel: exec, argv: ["${WEB_DIR}/bin/systemctl", status, "*", --no-pager], pty: true}]
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: web-care}
spec:
  purpose: a prompt at which restarts wait for leads
  resources: {names: [web-1]}
  permit:
    - {channel: guard}
    - {channel: exec, argv: ["${WEB_DIR}/bin/systemctl", status, "*"]}
    - channel: exec
      argv: ["${WEB_DIR}/bin/systemctl", restart, "*"]
      approval: {scope: statement, rule: leads}
    - {channel: forward, verbs: [listen], destinations: ["localhost:${PORT}"]}
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: web-tools}
spec: {subjects: [{group: analysts}], tasks: [web-play, web-raw, web-care]}
`

// TestTools: a playbook of Debian's ansible, a person at a terminal, and a forward from
// the host.
func TestTools(t *testing.T) {
	l := house.Must(net.Listen("tcp", "127.0.0.1:0"))(t)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	h := house.Start(t, house.Options{SSH: true, Extra: strings.ReplaceAll(toolTasks, "${PORT}", port)})
	alice := signedIn(t, h, "alice")
	for _, task := range []string{"web-play", "web-raw", "web-care"} {
		alice.take(t, task)
	}
	t.Run("ansible", func(t *testing.T) { playbook(t, h, alice) })
	t.Run("terminal", func(t *testing.T) { atTheTerminal(t, h, alice) })
	t.Run("forward", func(t *testing.T) {
		site := house.Must(net.Listen("tcp", "127.0.0.1:0"))(t)
		defer site.Close()
		go func() {
			for {
				c, err := site.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("from the client"))
				c.Close()
			}
		}()
		s := house.Begin(t, alice.cmd(t, "ssh", "web-care", "-v", "-N", "-T", "-o", "ExitOnForwardFailure=yes", "-R", port+":"+site.Addr().String(), at("web-care")))
		s.Expect("remote forward success")
		c := house.Must(net.Dial("tcp", net.JoinHostPort("127.0.0.1", port)))(t)
		b := make([]byte, len("from the client"))
		if n, err := c.Read(b); string(b[:n]) != "from the client" {
			t.Errorf("%q %v", b[:n], err)
		}
		c.Close()
		r := run(t, alice.cmd(t, "ssh", "web-care", "-N", "-T", "-o", "ExitOnForwardFailure=yes", "-R", "1"+port[1:]+":"+site.Addr().String(), at("web-care")))
		if r.Code == 0 || !strings.Contains(r.Err, "remote port forwarding failed") {
			t.Errorf("elsewhere: %+v", r)
		}
	})
}

// playbook runs modules, which are programs that are sent and run, by the task that
// allows everything, and single commands by one that allows those alone.
func playbook(t *testing.T, h *house.House, alice *somebody) {
	program := servers.Program(t, "ansible-playbook", "ansible-core")
	dir := t.TempDir()
	_, port, _ := net.SplitHostPort(h.Nodes[0].SSH)
	inventory := "[web]\n"
	for _, task := range []string{"web-play", "web-raw"} {
		inventory += fmt.Sprintf("%[1]s ansible_host=127.0.0.1 ansible_port=%[2]s ansible_user=%[1]s.web-1 ansible_ssh_private_key_file=%[3]s/%[1]s ansible_python_interpreter=/usr/bin/python3\n", task, port, alice.dir)
	}
	config := fmt.Sprintf(`[defaults]
host_key_checking = True
remote_tmp = %[1]s/remote
local_tmp = %[1]s/local
[ssh_connection]
ssh_args = -C -o ControlMaster=auto -o ControlPersist=30s -o UserKnownHostsFile=%[2]s/known_hosts -o GlobalKnownHostsFile=none -o IdentitiesOnly=yes -o IdentityAgent=none
control_path_dir = %[1]s/cp
`, dir, alice.dir)
	play := fmt.Sprintf(`- hosts: web-play
  gather_facts: false
  tasks:
    - {name: run, command: "%[1]s/bin/systemctl status shop", register: said}
    - {name: copied, copy: {dest: %[1]s/www/played.html, content: "<p>{{ said.stdout_lines[0] }}</p>\n", mode: "0640"}}
- hosts: web-raw
  gather_facts: false
  tasks:
    - {name: raw, raw: "systemctl status shop --no-pager"}
    - {name: refused, raw: "systemctl restart shop", ignore_errors: true}
`, h.Web.Dir)
	for name, text := range map[string]string{"inventory": inventory, "ansible.cfg": config, "play.yaml": play} {
		house.Must(0, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))(t)
	}
	cmd := exec.Command(program, "-i", filepath.Join(dir, "inventory"), filepath.Join(dir, "play.yaml"))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8", "ANSIBLE_CONFIG=" + filepath.Join(dir, "ansible.cfg"), "ANSIBLE_NOCOLOR=1"}
	r := run(t, cmd)
	if r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	house.Has(t, r.Out, "does not allow systemctl restart shop", "ignored=1", "failed=0", "unreachable=0")
	page := string(house.Must(os.ReadFile(filepath.Join(h.Web.Dir, "www/played.html")))(t))
	if page != "<p>shop.service - the sample company's shop</p>\n" {
		t.Errorf("the page is %q", page)
	}
	if _, err := os.Stat(filepath.Join(h.Web.Dir, "run/shop")); err == nil {
		t.Error("what was refused ran")
	}
}

// atTheTerminal is a person in tmux at the gateway's prompt: a line that is allowed, one
// that is refused, and one that waits for a lead.
func atTheTerminal(t *testing.T, h *house.House, alice *somebody) {
	tmux := servers.Program(t, "tmux", "tmux")
	socket := filepath.Join(t.TempDir(), "tmux")
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + alice.Home, "LC_ALL=C.UTF-8", "TERM=xterm", "SHELL=/bin/sh"}
	do := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(tmux, append([]string{"-f", "/dev/null", "-S", socket}, args...)...)
		cmd.Env = env
		r := run(t, cmd)
		if r.Code != 0 {
			t.Fatalf("tmux %v: %+v", args, r)
		}
		return r.Out
	}
	ssh := alice.cmd(t, "ssh", "web-care", "-tt", at("web-care"))
	do("new-session", "-d", "-x", "240", "-y", "40", shellLine(ssh.Args))
	t.Cleanup(func() { _ = exec.Command(tmux, "-S", socket, "kill-server").Run() })
	screen := func(want string) string {
		t.Helper()
		return house.Poll(t, "the screen shows "+want, func() (string, bool) {
			s := do("capture-pane", "-p", "-S", "-")
			return s, strings.Contains(s, want)
		})
	}
	say := func(line string) { t.Helper(); do("send-keys", "-l", line); do("send-keys", "Enter") }
	screen("web-1>")
	say("systemctl status shop")
	screen("the sample company's shop")
	say("systemctl stop shop")
	screen("does not allow systemctl stop shop")
	do("resize-window", "-x", "220", "-y", "30")
	say("systemctl restart shop")
	_, id, _ := strings.Cut(screen("postern approve "), "postern approve ")
	id, _, _ = strings.Cut(id, ")")
	if _, err := os.Stat(filepath.Join(h.Web.Dir, "run/shop")); err == nil {
		t.Error("it ran before the yes")
	}
	if r := h.CLI(t, "bob", "approve", strings.TrimSpace(id)); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	house.Eventually(t, func() string { return "the restart" }, func() bool {
		_, err := os.Stat(filepath.Join(h.Web.Dir, "run/shop"))
		return err == nil
	})
	say("exit")
}

// shellLine is a command for a shell.
func shellLine(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}
