package main

import (
	"bytes"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/posterngate/postern/controlplane/config"
)

func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestInitWritesWhatStarts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc")
	args := []string{"init", "--dir", dir, "--data-dir", filepath.Join(dir, "data"), "--host", "postern.example", "--issuer", "https://login.example/realms/main", "--admin-group", "Platform Admins"}
	code, out, errs := command(t, args...)
	if code != 0 {
		t.Fatalf("code %d: %s", code, errs)
	}
	for _, want := range []string{"keeper.key", "postern-control --config", "ca.pem", "postern login"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said in:\n%s", want, out)
		}
	}
	file := filepath.Join(dir, "control.yaml")
	if code, _, errs := command(t, "--config", file, "--check-config"); code != 0 {
		t.Errorf("what was written is refused: %s", errs)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if c.Issuers[0].URL != "https://login.example/realms/main" || c.Admins[0].Group != "Platform Admins" || c.KeyFile != filepath.Join(dir, "keeper.key") || c.Issuers[0].AllowSharedAudience {
		t.Errorf("configuration = %+v", c)
	}
	st, err := os.Stat(c.KeyFile)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", st, err)
	}
	key, err := os.ReadFile(c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, args...); code != 1 || !strings.Contains(errs, "exists already") {
		t.Errorf("the second time: code %d, %s", code, errs)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := command(t, args...); code != 0 {
		t.Errorf("beside a key file: %s", errs)
	}
	if again, err := os.ReadFile(c.KeyFile); err != nil || !bytes.Equal(again, key) {
		t.Errorf("the key file was replaced (%v)", err)
	}
}

// TestCheckConfig: what starting would find wrong is found before, without reaching or making anything.
func TestCheckConfig(t *testing.T) {
	dir := t.TempDir()
	file, key := filepath.Join(dir, "control.yaml"), filepath.Join(dir, "open.key")
	if err := os.WriteFile(key, []byte("k"), 0o644); err != nil { //nolint:gosec // this is what is found
		t.Fatal(err)
	}
	good := "dataDir: " + dir + "/data\napi: {addr: ':1'}\nnodes: {addr: ':2'}\nissuers: [{name: i, url: 'https://i.example'}]\n"
	for name, c := range map[string]struct{ from, to, want string }{
		"nothing":         {"", "", ""},
		"one audience":    {"name: i", "name: i, apiAudience: a, dataAudience: a", "the audience \"a\" serves both"},
		"algorithm":       {"name: i", "name: i, algorithms: [HS256]", "HS256"},
		"leeway":          {"name: i", "name: i, leeway: 1h", "leeway 1h0m0s"},
		"issuer's CA":     {"name: i", "name: i, ca: " + dir + "/none.pem", "none.pem: no such file"},
		"issuer in clear": {"https://i", "http://i", "is not https"},
		"same issuer":     {"]\n", ", {name: j, url: 'https://i.example'}]\n", "is that of another"},
		"vault":           {"api:", "vault: {address: 'https://v', tokenFile: t, jwt: {role: r}}\napi:", "exactly one of tokenFile"},
		"etcd's files":    {"api:", "etcd: {endpoints: ['https://e:1'], ca: " + dir + "/none.pem}\napi:", "etcd: open"},
		"channel's CA":    {"api:", "channels: [{name: c, secret: s, webhook: {url: 'https://w', ca: " + dir + "/none.pem}}]\napi:", "channel c"},
		"bucket's keys":   {"api:", "recordings: {s3: {bucket: b, credentialsFile: " + dir + "/none}}\napi:", "recordings.s3.credentialsFile: open"},
		"index's login":   {"api:", "recordings: {postgres: {url: 'postgres://u@h/d', passwordFile: " + dir + "/none}}\napi:", "recordings.postgres.passwordFile: open"},
		"copy in clear":   {"api:", "recordings: {exportOTLP: 'http://collector:4317'}\napi:", "recordings.exportOTLP: export: \"http://collector:4317\""},
		"host":            {"addr: ':1'", "addr: ':1', hosts: ['*.example']", "api.hosts"},
		"open key":        {"api:", "keyFile: " + key + "\napi:", "can be read by others"},
		"open audit key":  {"api:", "auditKey: " + key + "\napi:", "can be read by others"},
	} {
		if err := os.WriteFile(file, []byte(strings.Replace(good, c.from, c.to, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, errs := command(t, "--config", file, "--check-config")
		if c.want == "" && (code != 0 || !strings.Contains(out, "is good")) || c.want != "" && (code != 2 || !strings.Contains(errs, c.want)) {
			t.Errorf("%s: code %d, %s%s", name, code, out, errs)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("there are %v, %v", left, err)
	}
}

// TestInitGivesTheKey: who runs the daemon can read its key, whoever has made it.
func TestInitGivesTheKey(t *testing.T) {
	dir := t.TempDir()
	args := []string{"init", "--dir", dir, "--host", "postern.example", "--issuer", "https://login.example", "--admin-group", "admins"}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	name := me.Username
	if os.Geteuid() == 0 {
		name = "nobody"
	}
	if code, _, errs := command(t, append(args, "--user", name)...); code != 0 {
		t.Fatalf("code %d: %s", code, errs)
	}
	st, err := os.Stat(filepath.Join(dir, "keeper.key"))
	if err != nil {
		t.Fatal(err)
	}
	of, err := user.LookupId(fmt.Sprint(st.Sys().(*syscall.Stat_t).Uid))
	if err != nil || of.Username != name || st.Mode().Perm() != 0o600 {
		t.Errorf("the key file is %s's (%v), mode %s, and %s runs the daemon", of.Username, err, st.Mode(), name)
	}
}

func TestInitRefuses(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing":   nil,
		"no group":  {"--issuer", "https://login.example"},
		"no issuer": {"--admin-group", "admins"},
		"no URL":    {"--admin-group", "admins", "--issuer", "login.example"},
		"in clear":  {"--admin-group", "admins", "--issuer", "http://login.example"},
		"a comment": {"--admin-group", "admins", "--issuer", "https://login.example/#x"},
		"YAML":      {"--admin-group", "[a, b]", "--issuer", "https://login.example"},
		"two lines": {"--admin-group", "a\nvault: {}", "--issuer", "https://login.example"},
		"host":      {"--admin-group", "admins", "--issuer", "https://login.example", "--host", "a, b"},
		"user":      {"--admin-group", "admins", "--issuer", "https://login.example", "--user", "no such account"},
		"argument":  {"--admin-group", "admins", "--issuer", "https://login.example", "more"},
	} {
		dir := t.TempDir()
		if code, _, errs := command(t, append([]string{"init", "--dir", dir}, args...)...); code != 2 || errs == "" {
			t.Errorf("%s: code %d, %q", name, code, errs)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s: left %v", name, left)
		}
	}
}

func TestEpochIsRenewed(t *testing.T) {
	dir := t.TempDir()
	if code, _, errs := command(t, "init", "--dir", dir, "--data-dir", filepath.Join(dir, "data"), "--host", "postern.example", "--issuer", "https://login.example", "--admin-group", "admins"); code != 0 {
		t.Fatal(errs)
	}
	file := filepath.Join(dir, "control.yaml")
	seen := map[string]bool{}
	for range 2 {
		code, out, errs := command(t, "epoch", "--config", file)
		if code != 0 || !strings.Contains(out, "new epoch") {
			t.Fatalf("code %d: %s%s", code, out, errs)
		}
		seen[out] = true
	}
	if len(seen) != 2 {
		t.Errorf("the epoch did not change: %v", seen)
	}
	if code, _, errs := command(t, "epoch", "--config", file+".missing"); code != 2 || errs == "" {
		t.Errorf("without a configuration: code %d, %q", code, errs)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"nonsense"}, {"--nonsense"}, {"--config", "/does/not/exist"}, {"epoch", "more"}, {"audit-key", "more"}} {
		if code, _, errs := command(t, args...); code != 2 || errs == "" {
			t.Errorf("%v: code %d, %q", args, code, errs)
		}
	}
	for _, args := range [][]string{{"--help"}, {"init", "-h"}, {"epoch", "--help"}, {"audit-key", "--help"}} {
		if code, _, errs := command(t, args...); code != 0 || !strings.Contains(errs, "usage: postern-control") {
			t.Errorf("%v: code %d, %q", args, code, errs)
		}
	}
	if code, out, _ := command(t, "--version"); code != 0 || !strings.HasPrefix(out, "postern-control ") {
		t.Errorf("--version: code %d, %q", code, out)
	}
}
