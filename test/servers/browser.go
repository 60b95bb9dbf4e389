package servers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A Browser is Debian's Chromium, and what drives it.
type Browser struct {
	Chromium string // the program
	Modules  string // the folder with playwright-core, for NODE_PATH
}

// Chromium finds the browser, and for root installs it where it is not there. A machine
// that can have neither fails the test.
func Chromium(t testing.TB) Browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	log := func(s string) { t.Log(s) }
	there := func() bool { return onPath("chromium") != "" && onPath("node") != "" && onPath("npm") != "" }
	if !there() {
		if os.Geteuid() != 0 || onPath("apt-get") == "" {
			t.Fatal("no browser: install the packages chromium, nodejs and npm")
		}
		err := withApt(ctx, log, "chromium", there, func(install func(...string) error) error {
			packages := []string{"chromium"}
			if onPath("node") == "" || onPath("npm") == "" {
				packages = append(packages, "nodejs", "npm")
			}
			return install(packages...)
		})
		if err == nil && !there() {
			err = errors.New("installing it did not help")
		}
		if err != nil {
			t.Fatalf("no browser: %v", err)
		}
	}
	modules, err := npm(ctx, "browser", log)
	if err != nil {
		t.Fatalf("nothing to drive the browser: %v", err)
	}
	return Browser{Chromium: onPath("chromium"), Modules: modules}
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
