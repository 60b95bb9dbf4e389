package ssh

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// somebody is a person who has signed in, and holds certificates in a folder.
type somebody struct {
	*house.Person
	h   *house.House
	dir string
}

func signedIn(t *testing.T, h *house.House, who string) *somebody {
	t.Helper()
	p := &somebody{Person: h.Person(t), h: h}
	p.dir = filepath.Join(p.Home, "keys")
	p.Browser(t, who)
	if r := p.Run(t, "", "login"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	return p
}

// take gets a certificate for a task.
func (p *somebody) take(t *testing.T, task string) {
	t.Helper()
	if r := p.Run(t, "", "grant", task, "--ssh", p.dir); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
}

// cmd is a stock client of OpenSSH at the first node, with the certificate for a task.
func (p *somebody) cmd(t *testing.T, program, task string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("there is no %s: install openssh-client", program)
	}
	cmd := exec.Command(program, append(append(p.h.SSHArgs(p.h.Nodes[0], p.dir, task), "-o", "BatchMode=yes"), args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.Home, "LC_ALL=C"}
	return cmd
}

// at is where a task's client goes.
func at(task string) string { return task + ".web-1@127.0.0.1" }

// ssh runs one command.
func (p *somebody) ssh(t *testing.T, task string, args ...string) house.Result {
	t.Helper()
	return run(t, p.cmd(t, "ssh", task, append([]string{"-T", at(task)}, args...)...))
}

func run(t *testing.T, cmd *exec.Cmd) house.Result {
	t.Helper()
	return house.Finish(t, cmd)
}

// certified is a host whose logins Vault would certify.
const certified = `
apiVersion: postern/v1
kind: Resource
metadata: {name: web-2, labels: {env: dev}}
spec:
  protocol: ssh
  endpoint: {host: web-2.example, port: 22, ssh: {hostKeys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"]}}
  credential: {vault: {mount: ssh, sshRole: web, user: deploy}}
---
apiVersion: postern/v1
kind: Task
metadata: {name: web-2-restart}
spec: {purpose: restart the shop, resources: {names: [web-2]}, permit: [{channel: exec, argv: [/usr/bin/systemctl, restart, shop]}], duration: 1h}
---
apiVersion: postern/v1
kind: Task
metadata: {name: web-2-look}
spec: {purpose: look around, resources: {names: [web-2]}, permit: [{channel: shell}], duration: 1h}
`

// TestStockClients is the daily path: what is allowed runs as it would directly, and what
// is not is refused with the rule.
func TestStockClients(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true})
	alice := signedIn(t, h, "alice")
	alice.take(t, "web-status")
	alice.take(t, "web-deploy")
	www := filepath.Join(h.Web.Dir, "www")

	t.Run("files of the certificate", func(t *testing.T) {
		for _, name := range []string{"web-status", "web-status-cert.pub", "known_hosts"} {
			if mode := house.Must(os.Stat(filepath.Join(alice.dir, name)))(t).Mode().Perm(); mode != 0o600 {
				t.Errorf("%s has the mode %s", name, mode)
			}
		}
		r := run(t, exec.Command("ssh-keygen", "-L", "-f", filepath.Join(alice.dir, "web-status-cert.pub")))
		house.Has(t, r.Out, "user certificate", "web-status.web-1", "Critical Options: (none)", "Extensions: (none)")
	})
	t.Run("doctor", func(t *testing.T) {
		r := h.CLI(t, "ada", "doctor", "web-status")
		house.Has(t, r.Out, "[host-wall]", "the gateway alone stands between a session and what the lent account may do", "spec.credential.vault.sshRole")
		if r.Code != 0 || strings.Contains(r.Out, "is wanted") {
			t.Errorf("%+v", r)
		}
		h.Apply(t, "ada", certified)
		r = h.CLI(t, "ada", "doctor", "web-2")
		house.Has(t, r.Out, `the host itself runs "/usr/bin/systemctl restart shop" and nothing else`, "a session's certificate forces it, without terminal or forwards",
			"web-2-look", "bounds it to commands, with a terminal")
	})
	t.Run("exec", func(t *testing.T) {
		for _, c := range []struct {
			args []string
			code int
			out  string
			err  string
		}{
			{[]string{"systemctl status shop"}, 0, "active (running)", ""},
			{[]string{filepath.Join(h.Web.Dir, "bin/systemctl"), "status", "search"}, 0, "search.service", ""},
			{[]string{"uptime"}, 0, "load average", ""},
			{[]string{"systemctl status nothing"}, 4, "", "could not be found"}, // the program's own exit code
			{[]string{"systemctl restart shop"}, 126, "", `task "web-status" does not allow systemctl restart shop`},
			{[]string{"systemctl status shop; id"}, 126, "", `does not allow id`},
			{[]string{"systemctl status $(id)"}, 126, "", "postern: "},
			{[]string{"/tmp/systemctl status shop"}, 126, "", "does not allow"},
			{[]string{"id"}, 126, "", "postern tasks"},
		} {
			r := alice.ssh(t, "web-status", c.args...)
			if r.Code != c.code || !strings.Contains(r.Out, c.out) || !strings.Contains(r.Err, c.err) || c.code != 0 && r.Out != "" {
				t.Errorf("%v: %+v, want %d", c.args, r, c.code)
			}
		}
	})
	t.Run("sftp", func(t *testing.T) {
		cmd := alice.cmd(t, "sftp", "web-deploy", "-b", "-", at("web-deploy"))
		file := filepath.Join(alice.Home, "new.html")
		house.Must(0, os.WriteFile(file, []byte("<h1>new</h1>\n"), 0o644))(t)
		cmd.Stdin = strings.NewReader("put " + file + " " + www + "/new.html\nget " + www + "/new.html " + alice.Home + "/back.html\n-put " + file + " " + h.Web.Dir + "/bin/new\n")
		r := run(t, cmd)
		if r.Code != 0 {
			t.Errorf("%+v", r)
		}
		house.Has(t, r.Err, "Permission denied")
		if got := house.Must(os.ReadFile(alice.Home + "/back.html"))(t); string(got) != "<h1>new</h1>\n" {
			t.Errorf("came back as %q", got)
		}
		if _, err := os.Stat(filepath.Join(h.Web.Dir, "bin/new")); err == nil {
			t.Error("a file was written outside of what the task names")
		}
	})
	t.Run("a link is not what it is named like", func(t *testing.T) {
		// A file that may be read, by a name that says what a link beside it leads to.
		private := filepath.Join(h.Web.Dir, "private")
		decoy := www + "/out (" + private + ")"
		house.Must(0, os.WriteFile(private, []byte("private\n"), 0o600))(t)
		house.Must(0, os.Symlink(private, www+"/out"))(t)
		house.Must(0, os.MkdirAll(filepath.Dir(decoy), 0o755))(t)
		house.Must(0, os.WriteFile(decoy, []byte("decoy\n"), 0o644))(t)
		cmd := alice.cmd(t, "sftp", "web-deploy", "-b", "-", at("web-deploy"))
		cmd.Stdin = strings.NewReader("get \"" + decoy + "\" " + alice.Home + "/decoy\n-get " + www + "/out " + alice.Home + "/out\n")
		r := run(t, cmd)
		if got := house.Must(os.ReadFile(alice.Home + "/decoy"))(t); r.Code != 0 || string(got) != "decoy\n" {
			t.Errorf("%q, %+v", got, r)
		}
		if got, err := os.ReadFile(alice.Home + "/out"); err == nil {
			t.Errorf("the link led to %q", got)
		}
	})
	t.Run("scp", func(t *testing.T) {
		big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		file := filepath.Join(alice.Home, "big")
		house.Must(0, os.WriteFile(file, big, 0o644))(t)
		for _, mode := range []string{"-s", "-O"} {
			up := run(t, alice.cmd(t, "scp", "web-deploy", mode, "-q", file, at("web-deploy")+":"+www+"/big"))
			if up.Code != 0 || !bytes.Equal(house.Must(os.ReadFile(www+"/big"))(t), big) {
				t.Errorf("scp %s up: %+v", mode, up)
			}
			down := run(t, alice.cmd(t, "scp", "web-status", mode, "-q", at("web-status")+":"+www+"/big", file+mode))
			if down.Code != 0 || !bytes.Equal(house.Must(os.ReadFile(file+mode))(t), big) {
				t.Errorf("scp %s down: %+v", mode, down)
			}
			no := run(t, alice.cmd(t, "scp", "web-status", mode, "-q", file, at("web-status")+":"+www+"/other"))
			if _, err := os.Stat(www + "/other"); no.Code == 0 || err == nil {
				t.Errorf("scp %s wrote by a task that reads: %+v", mode, no)
			}
		}
	})
	t.Run("multiplexed", func(t *testing.T) {
		path := filepath.Join(alice.Home, "mux")
		master := alice.cmd(t, "ssh", "web-status", "-M", "-S", path, "-N", "-f", at("web-status"))
		if r := run(t, master); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		for range 5 {
			r := run(t, alice.cmd(t, "ssh", "web-status", "-S", path, "-T", at("web-status"), "uptime"))
			if r.Code != 0 || !strings.Contains(r.Out, "load average") {
				t.Errorf("%+v", r)
			}
		}
		if r := run(t, alice.cmd(t, "ssh", "web-status", "-S", path, "-O", "exit", at("web-status"))); r.Code != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("refused channels", func(t *testing.T) {
		r := run(t, alice.cmd(t, "ssh", "web-status", "-T", "-W", "127.0.0.1:22", at("web-status")))
		if r.Code == 0 || !strings.Contains(r.Err, "does not allow") {
			t.Errorf("forward: %+v", r)
		}
	})
}

// TestPeople: who comes in at all, by what.
func TestPeople(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true})
	alice := signedIn(t, h, "alice")
	alice.take(t, "web-status")

	t.Run("another node key", func(t *testing.T) {
		hosts := filepath.Join(alice.dir, "known_hosts")
		good := house.Must(os.ReadFile(hosts))(t)
		house.Must(0, os.WriteFile(hosts, []byte("@cert-authority * "+h.Web.HostKey+"\n"), 0o600))(t)
		r := alice.ssh(t, "web-status", "uptime")
		house.Must(0, os.WriteFile(hosts, good, 0o600))(t)
		if r.Code != 255 || !strings.Contains(r.Err, "Host key verification failed") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("another task", func(t *testing.T) {
		r := run(t, alice.cmd(t, "ssh", "web-status", "-T", at("web-deploy"), "uptime"))
		if r.Code != 255 || !strings.Contains(r.Err, "Permission denied") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("revoked", func(t *testing.T) {
		bob := signedIn(t, h, "bob")
		bob.take(t, "web-status")
		var grants []struct{ ID string }
		house.Must(0, json.Unmarshal([]byte(bob.Run(t, "", "grants", "--format", "json").Out), &grants))(t)
		for _, g := range grants {
			bob.Run(t, "", "revoke", g.ID, "--reason", "done with it")
		}
		r := bob.ssh(t, "web-status", "uptime")
		if r.Code != 255 || !strings.Contains(r.Err, "is over: revoked by bob: done with it") {
			t.Errorf("%+v", r)
		}
	})
	t.Run("postern ssh", func(t *testing.T) {
		for _, c := range []struct {
			args []string
			code int
		}{{[]string{"uptime"}, 0}, {[]string{"systemctl", "status", "nothing"}, 4}, {[]string{"id"}, 126}} {
			for _, verb := range []string{"ssh", "connect"} {
				r := alice.Run(t, "", append([]string{verb, "web-status", "--", "-T"}, c.args...)...)
				if r.Code != c.code {
					t.Errorf("%s %v: %+v, want %d", verb, c.args, r, c.code)
				}
			}
		}
		if left := house.Must(filepath.Glob(filepath.Join(alice.Home, "postern", ".client-*")))(t); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("postern config ssh", func(t *testing.T) {
		file := filepath.Join(alice.Home, "config")
		if r := alice.Run(t, "", "config", "ssh", "--file", file); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		for range 2 { // fetched, and then kept
			cmd := exec.Command("ssh", "-F", file, "-T", "web-status.web-1", "uptime")
			cmd.Env = slices.DeleteFunc(alice.Cmd(t).Env, func(kv string) bool { return strings.HasPrefix(kv, "POSTERN_") }) // as an editor has it that runs ssh
			if r := run(t, cmd); r.Code != 0 || !strings.Contains(r.Out, "load average") {
				t.Errorf("%+v", r)
			}
		}
		if left := house.Must(filepath.Glob(filepath.Join(alice.Home, "postern", "ssh", "*")))(t); len(left) != 3 {
			t.Errorf("in the folder: %v", left)
		}
	})
	t.Run("nothing secret where others look", func(t *testing.T) {
		r := alice.Run(t, "", "ssh", "web-status", "--", "-T", "-o", "PermitLocalCommand=yes", "-o", "LocalCommand=tr '\\0' '\\n' < /proc/$PPID/cmdline; env", "uptime")
		if slices.ContainsFunc([]string{"pst_", "eyJ", "PRIVATE", "POSTERN_TOKEN"}, func(s string) bool { return strings.Contains(r.All(), s) }) {
			t.Errorf("%+v", r)
		}
		house.Has(t, r.All(), "IdentityFile=")
	})
}
