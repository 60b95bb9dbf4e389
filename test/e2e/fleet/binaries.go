package fleet

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/posterngate/postern/test/servers"
)

// commands are what is shipped, by the folder of their main.
var commands = map[string]string{
	"postern": "./pkg/cmd/postern", "postern-control": "./controlplane/cmd/postern-control", "postern-node": "./dataplane/cmd/postern-node",
}

// build makes the binaries of the checkout and puts them into dir. They are linked
// once for a run of several packages: the go command leaves alone what is up to date.
func build(dir string) error {
	root, err := servers.ModuleRoot()
	if err != nil {
		return err
	}
	cache, err := servers.CacheDir()
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

// Root is the checkout; an error ends the test.
func Root(t testing.TB) string {
	t.Helper()
	root, err := servers.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}
