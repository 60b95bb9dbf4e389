package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWriteConfig: what postern config wrote it writes anew, and what people wrote stays.
func TestWriteConfig(t *testing.T) {
	a, dir := &app{}, t.TempDir()
	file, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	if err := os.WriteFile(theirs, []byte("[mine]\nhost=db\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"[a]\n", "[b]\n"} {
		if err := a.writeConfig(file, text); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || !strings.HasSuffix(string(got), "\n"+text) || strings.Count(string(got), "[") != 1 {
			t.Errorf("%q, %v", got, err)
		}
		if err := a.writeConfig(theirs, text); err == nil || !strings.Contains(err.Error(), theirs+" was not written by postern config") {
			t.Errorf("%v", err)
		}
	}
	if got, err := os.ReadFile(theirs); err != nil || string(got) != "[mine]\nhost=db\n" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestClientFolder: what a client reads can lie elsewhere than with the settings, and is gone after it.
func TestClientFolder(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	full := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(full, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, home := range []string{"", filepath.Join(full, "home"), t.TempDir()} {
		dir, done, err := (&app{home: home}).clientFolder()
		if err != nil {
			t.Fatalf("%q: %v", home, err)
		}
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%q: %v, %v", home, st, err)
		}
		done()
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is left", dir)
		}
	}
}
