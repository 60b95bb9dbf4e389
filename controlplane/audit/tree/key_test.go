package tree

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestKey: the first who asks makes the key, all others have the same, and one that others may
// read, or that is none, signs nothing.
func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "audit.key")
	made, err := OpenKey(path)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenKey(path)
	if err != nil || again.Verifier != made.Verifier || made.Verifier == "" {
		t.Errorf("%q, then %q, %v", made.Verifier, again.Verifier, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(path); err == nil || !strings.Contains(err.Error(), "can be read by others") {
		t.Errorf("others may read it: %v", err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "none.key"), []byte("no key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenKey(filepath.Join(filepath.Dir(path), "none.key")); err == nil {
		t.Error("what is no key is taken for one")
	}
}

// TestLostKeys: what each lost key has signed can still be verified.
func TestLostKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.key")
	var made []string
	for range 4 {
		k, err := OpenKey(path)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, k.Verifier)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{".pub.old", ".pub.old2", ".pub.old3", ".pub"} {
		if text, err := os.ReadFile(path + name); err != nil || strings.TrimSpace(string(text)) != made[i] {
			t.Errorf("%s holds %q, %v; want %q", name, text, err, made[i])
		}
	}
}
