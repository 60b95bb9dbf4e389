package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// NodeModules is the folder with the packages that test/tools/NAME pins, for NODE_PATH;
// they are installed where they are not there.
func NodeModules(t testing.TB, name string) string {
	t.Helper()
	if onPath("node") == "" || onPath("npm") == "" {
		t.Fatal("install the packages nodejs and npm")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	modules, err := npm(ctx, name, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatalf("test/tools/%s: %v", name, err)
	}
	return modules
}

// npm installs the packages of a folder under test/tools, once for each lock file, and
// returns the folder that has them.
func npm(ctx context.Context, name string, log func(string)) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "test", "tools", name)
	pinned, err := os.ReadFile(filepath.Join(source, "package-lock.json"))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(pinned)
	dir := filepath.Join(cache, name+"-"+hex.EncodeToString(sum[:8]))
	modules := filepath.Join(dir, "node_modules")
	unlock, err := lockFile(ctx, filepath.Join(cache, name+".lock"), func() { log("waiting for another process that installs " + name) })
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return modules, nil
	}
	fresh, err := os.MkdirTemp(cache, name+"-new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	for _, file := range []string{"package.json", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join(source, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(fresh, file), b, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	log("installing " + name + " with npm ci (once)")
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = fresh
	if err := runLogged(ctx, "npm ci of "+name, cmd, filepath.Join(cache, name+".log"), log); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return "", fmt.Errorf("keep %s: %w", name, err)
	}
	return modules, nil
}
