package secret

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	path := filepath.Join(dir, "key")
	holds := func(want string) {
		t.Helper()
		text, err := ReadFile(path, 8)
		if err != nil || string(text) != want {
			t.Errorf("%q, %v; want %q", text, err, want)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
			t.Errorf("there are %v, %v", all, err)
		}
	}
	if _, err := ReadFile(path, 8); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is there: %v", err)
	}
	if err := MakeFile(path, []byte("first")); err != nil {
		t.Fatal(err)
	}
	holds("first")
	if err := MakeFile(path, []byte("second")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	holds("first")
	if err := ReplaceFile(path, []byte("third")); err != nil {
		t.Fatal(err)
	}
	holds("third")
	if _, err := ReadFile(path, 4); err == nil || !strings.Contains(err.Error(), "longer than 4 bytes") {
		t.Errorf("too long: %v", err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o601} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(path, 8); err == nil || !strings.Contains(err.Error(), "can be read by others (mode 0") {
			t.Errorf("%#o: %v", mode, err)
		}
	}
}
