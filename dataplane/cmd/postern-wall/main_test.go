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
	bad := filepath.Join(t.TempDir(), "wall.yaml")
	if err := os.WriteFile(bad, []byte("name: eu-1\nnames: m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sample := "../../../deploy/config/wall.yaml"
	for name, c := range map[string]struct {
		args        []string
		code        int
		out, errout string
	}{
		"version":         {[]string{"--version"}, 0, "postern-wall", ""},
		"good config":     {[]string{"--config", sample, "--check-config"}, 0, "is good", ""},
		"unknown key":     {[]string{"--config", bad, "--check-config"}, 2, "", "names"},
		"no such file":    {[]string{"--config", bad + ".no", "--check-config"}, 2, "", "no such file"},
		"unknown flag":    {[]string{"--nope"}, 2, "", "nope"},
		"help":            {[]string{"--help"}, 0, "", "usage: postern-wall"},
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

// TestNotEnrolled says what a wall needs that has neither identity nor join token.
func TestNotEnrolled(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "wall.yaml")
	text := "name: eu-1\ndataDir: " + dir + "/data\ncontrolPlane: ['127.0.0.1:1']\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, errout := command(t, "--config", file)
	if code != 1 || !strings.Contains(errout, "postern nodes enrol eu-1") {
		t.Errorf("code %d, stderr %q; want 1 and the command that makes a join token", code, errout)
	}
}
