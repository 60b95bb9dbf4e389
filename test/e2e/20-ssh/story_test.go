package ssh

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// TestHeld: a restart waits for a lead, is run once, and can be refused or given up.
func TestHeld(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true})
	alice := signedIn(t, h, "alice")
	alice.take(t, "web-deploy")
	restart := func() (*house.Session, string) {
		t.Helper()
		s := house.Begin(t, alice.cmd(t, "ssh", "web-deploy", "-T", at("web-deploy"), "systemctl restart shop"))
		_, id, _ := strings.Cut(s.Expect(")"), "postern approve ")
		id, _, _ = strings.Cut(id, ")")
		return s, id
	}
	stamp := filepath.Join(h.Web.Dir, "run/shop")
	for _, c := range []struct {
		verb []string
		code int
		says string
	}{
		{[]string{"deny", "--reason", "not now"}, 126, "not now"},
		{[]string{"approve"}, 0, ""},
	} {
		s, id := restart()
		if _, err := os.Stat(stamp); err == nil {
			t.Fatal("it ran before the yes")
		}
		if r := h.CLI(t, "bob", append(c.verb, id)...); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
		if r := s.Wait(); r.Code != c.code || !strings.Contains(r.Out, c.says) {
			t.Errorf("%s: %+v", c.verb[0], r)
		}
	}
	if _, err := os.Stat(stamp); err != nil {
		t.Errorf("it did not run: %v", err)
	}
	s, id := restart() // a yes is for one execution
	s.Signal(syscall.SIGINT)
	if r := s.Wait(); r.Code == 0 {
		t.Errorf("given up: %+v", r)
	}
	house.Eventually(t, func() string { return "the hold is withdrawn" }, func() bool {
		return h.CLI(t, "bob", "approve", id).Code != 0
	})
}

// TestRecord: what was said is replayed as it was seen, and the recording is proved.
func TestRecord(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true})
	alice := signedIn(t, h, "alice")
	alice.take(t, "web-status")
	if r := alice.ssh(t, "web-status", "systemctl status shop"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	if r := alice.ssh(t, "web-status", "systemctl restart shop"); r.Code != 126 {
		t.Fatalf("%+v", r)
	}
	shown := func(of string) string {
		t.Helper()
		return house.Poll(t, "a sealed recording of "+of, func() (string, bool) {
			var all []struct{ ID, Recording string }
			house.Must(0, json.Unmarshal([]byte(h.CLI(t, "bob", "sessions", "list", "--format", "json").Out), &all))(t)
			for _, s := range all {
				if text := h.CLI(t, "bob", "sessions", "replay", s.ID).Out; s.Recording == "sealed" && strings.Contains(text, of) {
					verified := h.CLI(t, "bob", "sessions", "verify", s.ID)
					house.Has(t, verified.Out, "chain and signature hold")
					if cast := h.CLI(t, "bob", "sessions", "export", s.ID, "--as", "asciicast"); strings.Contains(text, "| shop.service") {
						house.Has(t, cast.Out, `{"version":2,"width":80,"height":24,`, `"m","systemctl status shop"]`, `"o","`, `shop.service - the sample company's shop`)
					}
					return text, true
				}
			}
			return "", false
		})
	}
	house.Has(t, shown("systemctl status shop"), "web-status on web-1 (ssh)", "alice (analysts)", "| shop.service - the sample company's shop", "exit 0", "closed: client left",
		"sent: "+filepath.Join(h.Web.Dir, "bin/systemctl")+" status shop")
	house.Has(t, shown("systemctl restart shop"), `denied: task "web-status" does not allow systemctl restart shop`)
	t.Run("what masks hid", func(t *testing.T) { hidden(t, h, alice) })
}

// hidden: what a command said is recorded as it was shown, and apart from that what was
// hidden, for those who have the right and the key.
func hidden(t *testing.T, h *house.House, alice *somebody) {
	alice.take(t, "web-log")
	r := alice.ssh(t, "web-log", "tail "+filepath.Join(h.Web.Dir, "log/shop.log"))
	if r.Code != 0 || !strings.Contains(r.Out, "of ***") || len(house.Leaks(r.All())) > 0 {
		t.Fatalf("%+v", r)
	}
	id := house.Poll(t, "the session is on file", func() (string, bool) {
		var all []struct{ ID string }
		out := h.CLI(t, "bob", "sessions", "list", "--task", "web-log", "--format", "json").Out
		if json.Unmarshal([]byte(out), &all) != nil || len(all) != 1 {
			return "", false
		}
		return all[0].ID, true
	})
	bob := func(what string, says []string, args ...string) {
		t.Helper()
		last := ""
		house.Eventually(t, func() string { return what + ": " + last }, func() bool { // what is sealed is shipped by itself
			last = h.CLI(t, "bob", append([]string{"sessions"}, args...)...).All()
			return !slices.ContainsFunc(says, func(s string) bool { return !strings.Contains(last, s) })
		})
		if shows := len(house.Leaks(last)) > 0; shows != slices.Contains(says, house.CanaryEmail) {
			t.Errorf("%s: %s", what, last)
		}
	}
	bob("the recording has what was shown", []string{"of ***", "what masks hide is recorded too"}, "replay", id)
	bob("who may not read the rest is told", []string{"NOT verified"}, "verify", id)
	bob("nor is it shown to them", []string{"rawreader"}, "replay", id, "--raw-key", h.RawKey)
	h.Apply(t, "ada", "{apiVersion: postern/v1, kind: RoleBinding, metadata: {name: leads-raw}, spec: {role: rawreader, subjects: [{group: leads}]}}")
	bob("what was hidden is shown", []string{"before its masks", house.CanaryEmail, "of ***"}, "replay", id, "--raw-key", h.RawKey)
	bob("and verified", []string{id + "_raw sealed", "opened"}, "verify", id, "--raw-key", h.RawKey)
}

// TestLocked: a lock ends a shell with its cause, and keeps the next one out.
func TestLocked(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true})
	alice := signedIn(t, h, "alice")
	alice.take(t, "web-status")
	s := house.Begin(t, alice.cmd(t, "ssh", "web-status", "-tt", at("web-status")))
	s.Expect("web-1> ")
	s.Say("systemctl status shop")
	s.Expect("since boot\r\nweb-1> ") // what is typed while a line runs is not kept
	s.Say("systemctl restart shop")
	s.Expect(`does not allow systemctl restart shop`)
	if r := h.CLI(t, "ada", "lock", "--subject", "alice", "--reason", "contract ended"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	s.Expect("contract ended")
	if r := s.Wait(); r.Code == 0 {
		t.Errorf("%+v", r)
	}
	if r := alice.ssh(t, "web-status", "uptime"); r.Code != 255 || !strings.Contains(r.Err, "contract ended") {
		t.Errorf("%+v", r)
	}
}

// TestNarrowed: a terminal that was let in ends when its task allows none any more.
func TestNarrowed(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true})
	alice := signedIn(t, h, "alice")
	alice.take(t, "web-status")
	s := house.Begin(t, alice.cmd(t, "ssh", "web-status", "-tt", at("web-status")))
	s.Expect("web-1> ")
	narrow := func(permit string) {
		t.Helper()
		h.Apply(t, "ada", `{apiVersion: postern/v1, kind: Task, metadata: {name: web-status, labels: {team: web}},
			spec: {purpose: see how the web servers are, resources: {names: [web-1]}, duration: 1h, permit: [`+permit+`]}}`)
	}
	narrow(`{channel: guard}, {channel: exec, argv: [/usr/bin/uptime]}`)
	s.Say("systemctl status shop")
	s.Expect(`does not allow systemctl status shop`)
	narrow(`{channel: exec, argv: [/usr/bin/uptime]}`)
	s.Expect("what runs here is not allowed any more")
	if r := s.Wait(); r.Code == 0 {
		t.Errorf("%+v", r)
	}
	if r := alice.ssh(t, "web-status", "uptime"); r.Code != 0 {
		t.Errorf("what is still allowed: %+v", r)
	}
}

const otherTasks = `
apiVersion: postern/v1
kind: Task
metadata: {name: web-sync}
spec:
  purpose: other programs that speak through ssh
  resources: {names: [web-1]}
  permit:
    - {channel: exec, argv: [/usr/bin/rsync, --server, "-logDtpre.iLsfxCIvu", ".", "${WEB_DIR}/www/"]}
    - {channel: exec, argv: [/usr/bin/git-upload-pack, "${WEB_DIR}/shop.git"]}
    - {channel: exec, argv: [/bin/sh, -c, "kill -TERM $$"]}
    - {channel: exec, argv: [/bin/sh, -c, "exit 3"]}
    - {channel: exec, argv: [/bin/sh, -c, "echo out; echo err >&2; exit 255"]}
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: web-sync}
spec: {subjects: [{group: analysts}], tasks: [web-sync]}
`

// TestOthers: rsync and git over ssh, and how programs end.
func TestOthers(t *testing.T) {
	h := house.Start(t, house.Options{SSH: true, Extra: otherTasks})
	alice := signedIn(t, h, "alice")
	alice.take(t, "web-sync")
	client := "ssh -T " + strings.Join(h.SSHArgs(h.Nodes[0], alice.dir, "web-sync"), " ")
	with := func(program string, args ...string) house.Result {
		t.Helper()
		path, err := exec.LookPath(program)
		if err != nil {
			t.Fatalf("there is no %s: install it", program)
		}
		cmd := exec.Command(path, args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + alice.Home, "LC_ALL=C", "GIT_SSH_COMMAND=" + client, "GIT_SSH_VARIANT=simple",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x.example", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@x.example"}
		return run(t, cmd)
	}
	t.Run("rsync", func(t *testing.T) {
		from := filepath.Join(alice.Home, "site")
		house.Must(0, os.MkdirAll(from, 0o755))(t)
		house.Must(0, os.WriteFile(from+"/page.html", []byte("page"), 0o644))(t)
		if r := with("rsync", "-a", "-e", client, from+"/", at("web-sync")+":"+h.Web.Dir+"/www/"); r.Code != 0 {
			t.Errorf("%+v", r)
		}
		if b, _ := os.ReadFile(h.Web.Dir + "/www/page.html"); string(b) != "page" {
			t.Errorf("there is %q", b)
		}
		if r := with("rsync", "-a", "-e", client, from+"/", at("web-sync")+":"+h.Web.Dir+"/bin/"); r.Code == 0 || !strings.Contains(r.Err, "does not allow rsync") {
			t.Errorf("elsewhere: %+v", r)
		}
	})
	t.Run("git", func(t *testing.T) {
		repo := filepath.Join(h.Web.Dir, "shop.git")
		for _, args := range [][]string{
			{"init", "-q", repo}, {"-C", repo, "commit", "-q", "--allow-empty", "-m", "first"},
			{"clone", "-q", at("web-sync") + ":" + repo, filepath.Join(alice.Home, "shop")},
		} {
			if r := with("git", args...); r.Code != 0 {
				t.Fatalf("git %v: %+v", args, r)
			}
		}
		if r := with("git", "-C", filepath.Join(alice.Home, "shop"), "push", "origin", "HEAD:refs/heads/x"); r.Code == 0 || !strings.Contains(r.Err, "does not allow git-receive-pack") {
			t.Errorf("push: %+v", r)
		}
	})
	t.Run("ends as directly", func(t *testing.T) {
		key := filepath.Join(alice.Home, "direct")
		house.Must(0, os.WriteFile(key, h.Web.UserKey, 0o600))(t)
		for _, command := range []string{"/bin/sh -c 'kill -TERM $$'", "/bin/sh -c 'exit 3'", "/bin/sh -c 'echo out; echo err >&2; exit 255'"} {
			direct := with("ssh", "-T", "-F", "none", "-i", key, "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
				"-p", fmt.Sprint(h.Web.Port), h.Web.User+"@127.0.0.1", command)
			if through := alice.ssh(t, "web-sync", command); through != direct {
				t.Errorf("%s: %+v, and directly %+v", command, through, direct)
			}
		}
	})
}
