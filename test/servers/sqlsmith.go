package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Sqlsmith is the path of sqlsmith, a generator of SQL that knows nothing of us: from
// PATH or, for root, Debian's package. A machine that can have neither fails the test.
func Sqlsmith(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	path, err := findSqlsmith(ctx, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatalf("no sqlsmith: %v", err)
	}
	return path
}

func findSqlsmith(ctx context.Context, log func(string)) (string, error) {
	if path, err := exec.LookPath("sqlsmith"); err == nil {
		return path, nil
	}
	if os.Geteuid() != 0 || onPath("apt-get") == "" {
		return "", errors.New("install Debian's package sqlsmith")
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	unlock, err := lockFile(ctx, filepath.Join(cache, "apt.lock"), func() { log("waiting for another process that installs packages") })
	if err != nil {
		return "", err
	}
	defer unlock()
	log("installing sqlsmith with apt-get (once)")
	for _, args := range [][]string{{"update", "-q"}, {"install", "-q", "-y", "--no-install-recommends", "sqlsmith"}} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if err := runLogged(ctx, "apt-get "+args[0], cmd, filepath.Join(cache, "apt.log"), log); err != nil {
			return "", fmt.Errorf("install sqlsmith: %w", err)
		}
	}
	return exec.LookPath("sqlsmith")
}
