package fleet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// commands are what is shipped, by the folder of their main.
var commands = map[string]string{
	"postern": "./pkg/cmd/postern", "postern-control": "./controlplane/cmd/postern-control", "postern-node": "./dataplane/cmd/postern-node",
}

// build makes the binaries of the checkout and puts them into dir. They are linked
// once for a run of several packages: the go command leaves alone what is up to date.
func build(dir string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	kept := filepath.Join(cache, "e2e-bin")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(kept+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	args := []string{"build", "-buildvcs=false", "-o", kept + string(filepath.Separator)}
	for _, pkg := range commands {
		args = append(args, pkg)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	for name := range commands {
		// A copy of its own: a later run may build anew while this one restarts nodes.
		if err := link(filepath.Join(kept, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func link(from, to string) error {
	if os.Link(from, to) == nil && os.Chmod(to, 0o755) == nil {
		return nil
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// cacheDir is where test/servers keeps what it builds, too.
func cacheDir() (string, error) {
	if dir := os.Getenv("POSTERN_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: set POSTERN_CACHE: %w", err)
	}
	return filepath.Join(dir, "postern"), nil
}

// moduleRoot is the folder of Postern's go.mod, above the working directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module github.com/posterngate/postern\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no checkout of postern above the working directory")
		}
		dir = up
	}
}

// Root is the checkout; an error ends the test.
func Root(t testing.TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}
