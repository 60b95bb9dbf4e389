package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = program.Run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

func TestCommand(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(bad, []byte("name: eu-1\nnames: m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sample := "../../../deploy/config/node.yaml"
	good := "name: eu-1\ndataDir: /nowhere\ncontrolPlane: ['127.0.0.1:1']\nlisteners: {postgres: {addr: '127.0.0.1:0'}}\n"
	variant := func(name, text string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	engine := variant("engine.yaml", strings.Replace(good, "postgres:", "mysql:", 1))
	loud := variant("loud.yaml", good+"telemetry: {logLevel: loud}\n")
	for name, c := range map[string]struct {
		args        []string
		code        int
		out, errout string
	}{
		"version":         {[]string{"--version"}, 0, "postern-node", ""},
		"good config":     {[]string{"--config", sample, "--check-config"}, 0, "is good", ""},
		"unknown key":     {[]string{"--config", bad, "--check-config"}, 2, "", "names"},
		"no such file":    {[]string{"--config", bad + ".no", "--check-config"}, 2, "", "no such file"},
		"unknown flag":    {[]string{"--nope"}, 2, "", "nope"},
		"help":            {[]string{"--help"}, 0, "", "usage: postern-node"},
		"unknown engine":  {[]string{"--config", engine, "--check-config"}, 2, "", "listeners.mysql: this release speaks"},
		"log level":       {[]string{"--config", loud, "--check-config"}, 2, "", "telemetry.logLevel"},
		"bad config runs": {[]string{"--config", bad}, 2, "", "names"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errout := command(t, c.args...)
			if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errout, c.errout) {
				t.Errorf("code %d, stdout %q, stderr %q; want %d, %q, %q", code, out, errout, c.code, c.out, c.errout)
			}
		})
	}
}

// TestNotEnrolled says what a node needs that has neither identity nor join token.
func TestNotEnrolled(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "node.yaml")
	text := "name: eu-1\ndataDir: " + dir + "/data\ncontrolPlane: ['127.0.0.1:1']\nlisteners: {postgres: {addr: '127.0.0.1:0'}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errout := command(t, "--config", file)
	if code != 1 || !strings.Contains(errout, "postern nodes enrol eu-1") {
		t.Errorf("code %d, stderr %q; want 1 and the command that makes a join token", code, errout)
	}
}
