// Package secrets_test lets people work, and mistype, with secrets that can be told
// apart from everything else, and then looks for them wherever Postern leaves traces:
// logs, recordings, spools, etcd, SQLite, and what the system shows of processes.
package secrets_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/posterngate/postern/test/e2e/fleet"
)

const refused = "canary-refused-by-the-server-4e9d"

// TestSecrets: no secret is where it need not be, the bodies of calls and what is said of
// failures included (CVE-2025-62513, CVE-2025-62705, GHSA-444v-8vxr-p36h).
func TestSecrets(t *testing.T) {
	f := fleet.Start(t, fleet.Options{World: world(refused)})
	c := known(t, f)
	story(t, f, c)

	// While somebody is at work with the stock client, everything is up and sessions live.
	client := startConnect(t, f)
	live := &report{}
	live.families(t, c, f.Control.PID(), f.Nodes["eu-1-a"].PID(), f.Nodes["us-1-a"].PID(), client.Process.Pid)
	search(t, f, c, live)
	_ = syscall.Kill(-client.Process.Pid, syscall.SIGINT)
	_ = client.Wait()
	expect(t, "while all is up", live)
	if live.processes < 7 { // three, a parser or more at each node, postern and psql
		t.Errorf("only %d processes were searched", live.processes)
	}

	f.AwaitSealed(t, 20*time.Second)
	c.learn(t, f)
	for _, p := range []*fleet.Process{f.Nodes["eu-1-a"].Process, f.Nodes["us-1-a"].Process, f.Control} {
		if code := p.Stop(); code != 0 {
			t.Errorf("%s ended with code %d", p.Name, code)
		}
	}
	after := &report{}
	search(t, f, c, after)
	expect(t, "after all has stopped", after)
	if after.chunks < 10 {
		t.Errorf("only %d chunks of recordings were searched", after.chunks)
	}
	if left, _ := filepath.Glob(filepath.Join(f.Dir, "home-*", ".*")); len(left) > 0 {
		t.Errorf("files of tokens were left behind: %v", left)
	}
}

func expect(t *testing.T, when string, r *report) {
	t.Helper()
	for _, h := range r.hits {
		t.Errorf("%s: %s", when, h)
	}
	t.Logf("%s: %d hits in %d files (%.1f MB), %d chunks and %d processes", when, len(r.hits), r.files, float64(r.bytes)/1e6, r.chunks, r.processes)
}

// known are the secrets that exist before anybody works.
func known(t *testing.T, f *fleet.Fleet) *canaries {
	t.Helper()
	c := &canaries{values: map[string][]string{}, patterns: map[string]*regexp.Regexp{
		"a password that Vault made": regexp.MustCompile(fmt.Sprintf("[%s]{%d}", fleet.PasswordLetters, fleet.PasswordLength)),
		"a token of Vault":           regexp.MustCompile(`hv[sb]\.[A-Za-z0-9_-]{24,}`),
	}}
	for _, a := range []string{fleet.AppAccount, fleet.CatalogAccount, fleet.KVAccount} {
		c.add("password of "+a, f.Password(a))
	}
	c.add("a password that the server refuses", refused)
	for _, who := range []string{"alice", "bob", "ada"} {
		f.Token(t, who)
		b, err := os.ReadFile(filepath.Join(f.Home(t, who), "tokens.json"))
		if err != nil {
			t.Fatal(err)
		}
		var tokens struct {
			API, Data struct{ IDToken, RefreshToken string }
		}
		if err := json.Unmarshal(b, &tokens); err != nil {
			t.Fatal(err)
		}
		c.add(who+"'s token for the API", tokens.API.IDToken)
		c.add(who+"'s token for listeners", tokens.Data.IDToken)
		c.add(who+"'s refresh token", tokens.API.RefreshToken)
		c.add(who+"'s refresh token", tokens.Data.RefreshToken)
		// A signature is the part of a token that nobody else can make.
		c.add("signature of "+who+"'s token", tokens.Data.IDToken[strings.LastIndex(tokens.Data.IDToken, ".")+1:])
	}
	for _, n := range f.Nodes {
		c.add("join token of "+n.Name, n.JoinToken)
	}
	key, err := os.ReadFile(filepath.Join(f.ControlData(), "keeper.key"))
	if err != nil {
		t.Fatal(err)
	}
	c.add("the key that seals secrets", strings.Fields(string(key))[1])

	// What Vault makes can be recognised: seen once, as root, and given back.
	made := f.Vault.Must(t, "GET", "database/creds/warehouse", nil)
	data, _ := made["data"].(map[string]any)
	if password, _ := data["password"].(string); !slices.Contains(c.in([]byte(password)), "a password that Vault made") {
		t.Fatalf("passwords of Vault would not be recognised: %q", password)
	}
	f.Vault.Must(t, "PUT", "sys/leases/revoke", map[string]any{"lease_id": made["lease_id"]})
	return c
}

// places are the folders to search, and what in them holds a secret because it must:
// what a person or an operator has given.
func search(t *testing.T, f *fleet.Fleet, c *canaries, r *report) {
	t.Helper()
	own := regexp.MustCompile(`^(home-[a-z]+/tokens\.json|home-[a-z]+/\.client-[0-9]+/pgpass|nightly-token|[a-z0-9-]+\.join|world\.yaml|vault-token|control/keeper\.key)$`)
	r.tree(t, c, f.Dir, func(rel string) bool {
		return rel == "warehouse" || rel == "vault" || rel == "postern" || rel == "postern-node" || rel == "postern-control" || own.MatchString(rel)
	})
	r.tree(t, c, filepath.Dir(f.Etcd.CAFile), func(string) bool { return false })
	// The token files that are allowed are nobody else's to read.
	for _, pattern := range []string{"home-*/tokens.json", "home-*/.client-*/pgpass", "control/keeper.key", "*/identity/identity.json"} {
		files, err := filepath.Glob(filepath.Join(f.Dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if st, err := os.Stat(file); err == nil && st.Mode().Perm() != 0o600 {
				t.Errorf("%s has the mode %s", file, st.Mode().Perm())
			}
		}
	}
}

// startConnect runs "postern connect" with psql at work until it is interrupted.
func startConnect(t *testing.T, f *fleet.Fleet) *exec.Cmd {
	t.Helper()
	cmd := f.Command(t, "alice", "postern", "connect", "sales-report", "--", "-Xc",
		"SELECT count(*) FROM orders a, orders b, orders c WHERE a.amount < b.amount AND b.amount < c.amount")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	fleet.Eventually(t, time.Minute, "psql is at work", func() error {
		if n := f.PG.SQL(t, "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'v-%' AND state = 'active'")[0][0]; n != "1" {
			return fmt.Errorf("%s statements run", n)
		}
		return nil
	})
	return cmd
}

// TestTheSearchFinds plants a hit in each kind of place and asks the search for it.
func TestTheSearchFinds(t *testing.T) {
	f := fleet.Start(t, fleet.Options{Sealed: true})
	c := &canaries{values: map[string][]string{}, patterns: map[string]*regexp.Regexp{"pattern": regexp.MustCompile("[QZ]{64}")}}
	const canary = "canary-that-was-planted-0b77"
	c.add("planted", canary)

	// In a recording and in SQLite, by a statement; in a spool, while nobody takes it in.
	conn := f.Connect(t, f.Nodes["eu-1-a"], "sales-report.warehouse", f.Token(t, "alice"))
	say := func() {
		t.Helper()
		if _, err := fleet.Query(t.Context(), conn, "SELECT code FROM regions WHERE name = '"+canary+"'"); err != nil {
			t.Fatal(err)
		}
	}
	say()
	fleet.Eventually(t, time.Minute, "the recording is stored", func() error {
		c.learn(t, f)
		return found(t, f, c, "control/recordings/chunks", "opened")
	})
	if err := found(t, f, c, "control/recordings/chunks", "0: "); err == nil {
		t.Error("what is recorded stands in a stored chunk in clear")
	}
	if code := f.Control.Stop(); code != 0 {
		t.Errorf("the control plane ended with code %d", code)
	}
	say()
	etcd, err := clientv3.New(clientv3.Config{Endpoints: f.Etcd.Endpoints, TLS: f.Etcd.TLS(), DialTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer etcd.Close()
	if _, err := etcd.Put(t.Context(), "/postern/v1/planted/x", "before "+canary+" behind"); err != nil {
		t.Fatal(err)
	}
	f.File(t, "eu-1-a/a-log", "token="+canary)
	for i := range 3 { // base64 of the canary at each place
		f.File(t, fmt.Sprintf("us-1-a/b64-%d", i), forms(canary)[3+i])
	}
	f.File(t, "control/a-password", strings.Repeat("QZZQ", 16))
	if err := found(t, f, c, "eu-1-a/spool", ""); err == nil {
		t.Error("what is recorded stands in a spool in clear")
	}
	for _, where := range []string{"eu-1-a/a-log", "us-1-a/b64-0", "us-1-a/b64-1", "us-1-a/b64-2", "control/a-password", "etcd"} {
		if err := found(t, f, c, where, ""); err != nil {
			t.Error(err)
		}
	}

	// In the arguments and the environment of a process.
	for name, cmd := range map[string]*exec.Cmd{
		"cmdline": exec.Command("sleep", "60", "60", canary), "environ": exec.Command("sleep", "60"),
	} {
		if name == "cmdline" {
			cmd = exec.Command("sh", "-c", "sleep 60; : "+canary)
		} else {
			cmd.Env = []string{"TOKEN=" + canary}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := &report{}
		r.families(t, c, cmd.Process.Pid)
		if !slices.ContainsFunc(r.hits, func(h string) bool { return strings.HasPrefix(h, name+" of process") }) {
			t.Errorf("a canary in the %s of a process is not found: %v", name, r.hits)
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}
	_ = conn.Close(context.Background())
	if err := f.Control.Start(); err != nil { // so that the nodes can end in order
		t.Fatal(err)
	}
	f.AwaitControl(t)
}

// found is nil where the search has a hit in a place.
func found(t *testing.T, f *fleet.Fleet, c *canaries, place, how string) error {
	t.Helper()
	r := &report{}
	search(t, f, c, r)
	for _, h := range r.hits {
		if strings.Contains(h, place) && strings.Contains(h, how) {
			return nil
		}
	}
	return fmt.Errorf("no hit in %s: %v", place, r.hits)
}
