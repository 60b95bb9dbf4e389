package ssh

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	facts "github.com/posterngate/postern/pkg/ssh"
)

// TestScpGoesOn: what one file, or folder, cannot be is not what becomes of the others, in the
// old protocol as in the new one.
func TestScpGoesOn(t *testing.T) {
	h := newHouse(t)
	dir, local := place(t, ""), t.TempDir()
	only(h, func(f *facts.Facts) bool {
		return !slices.ContainsFunc(f.Paths, func(p string) bool {
			return strings.HasPrefix(path.Base(p), "refused") || !strings.HasPrefix(p, dir) && p != "/dev/full"
		})
	})
	fill := func(folder string, names ...string) {
		t.Helper()
		for _, name := range names {
			name = filepath.Join(folder, name)
			if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, []byte("text"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	good := []string{"a", "m/b", "z"}
	come := func(how, folder string, code int, errs string) {
		t.Helper()
		if code == 0 {
			t.Errorf("%s: exit 0: %s", how, errs)
		}
		for _, name := range good {
			if b, err := os.ReadFile(filepath.Join(folder, name)); err != nil || string(b) != "text" {
				t.Errorf("%s: %s is %q: %v; %s", how, name, b, err, errs)
			}
		}
	}

	for _, how := range []string{"-O", "-s"} {
		up, to := filepath.Join(local, "up"+how), filepath.Join(dir, "up"+how)
		fill(up, append(good, "refused", "refused folder/x", "taken", "a folder/x", "full")...)
		link("nothing", filepath.Join(up, "gone"))
		fill(to, "taken/x", "a folder") // what is a folder on one side is none on the other
		link("/dev/full", filepath.Join(to, "full"))
		_, errs, code := h.stock(t, "scp", how, "-r", up, "node:"+dir)
		come(how+" up", to, code, errs)

		from, back := filepath.Join(dir, "down"+how), filepath.Join(local, "down"+how)
		fill(from, append(good, "refused", "refused folder/x", "taken", "a folder/x")...)
		link("nothing", filepath.Join(from, "gone"))
		fill(back, filepath.Base(from)+"/taken/x", filepath.Base(from)+"/a folder")
		_, errs, code = h.stock(t, "scp", how, "-r", "node:"+from, back)
		come(how+" down", filepath.Join(back, filepath.Base(from)), code, errs)
	}
}

// TestScpTimes: -p keeps when files and folders were changed, in the old protocol as in the new one.
func TestScpTimes(t *testing.T) {
	h := newHouse(t)
	dir, local := place(t, ""), t.TempDir()
	below(h, dir)
	old := time.Unix(1_500_000_000, 0)
	folder := filepath.Join(local, "folder")
	if err := errors.Join(
		os.MkdirAll(dir, 0o755), os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, "file"), []byte("text"), 0o644),
		os.Chtimes(filepath.Join(folder, "file"), old, old), os.Chtimes(folder, old, old),
	); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"-O", "-s"} {
		to, back := filepath.Join(dir, how[1:]), filepath.Join(local, "back"+how)
		if _, errs, code := h.stock(t, "scp", how, "-p", "-r", folder, "node:"+to); code != 0 {
			t.Errorf("%s up: exit %d: %s", how, code, errs)
		}
		if _, errs, code := h.stock(t, "scp", how, "-p", "-r", "node:"+to, back); code != 0 {
			t.Errorf("%s down: exit %d: %s", how, code, errs)
		}
		for _, name := range []string{to, to + "/file", back, back + "/file"} {
			if info, err := os.Stat(name); err != nil || !info.ModTime().Equal(old) {
				t.Errorf("%s: %s is of another time: %v, %v", how, name, info, err)
			}
		}
	}
	if _, errs, code := h.stock(t, "scp", "-O", "-r", folder, "node:"+dir+"/new"); code != 0 {
		t.Errorf("exit %d: %s", code, errs)
	}
	if info, err := os.Stat(filepath.Join(dir, "new/file")); err != nil || info.ModTime().Equal(old) {
		t.Errorf("without -p: %v, %v", info, err)
	}
}
