// Package servers starts the real programs that tests and the development house speak
// to: PostgreSQL, etcd and Vault, each a private child process on loopback, with TLS
// from a CA of its own. What is missing is installed or built; what cannot be had is
// an error and fails the test, never a skip. Tests call Postgres, Etcd and Vault;
// deploy/dev calls the Start functions, which keep their state in a folder.
package servers

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/ports"
)

// startTimeout bounds a start, builds and installs not counted.
const startTimeout = 60 * time.Second

// portTries is how often a start is tried when another process takes the port first.
const portTries = 5

// folder makes a temporary folder that other users can reach, gone at the test's end.
func folder(t testing.TB, name string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "postern-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// logTo is a log function for tests.
func logTo(t testing.TB) func(string) { return func(s string) { t.Log(s) } }

// keptPort is the port in the file, or a new one that is then kept there.
func keptPort(file string) (int, error) {
	if b, err := os.ReadFile(file); err == nil {
		if p, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && p > 0 && p < 1<<16 {
			return p, nil
		}
	}
	port, err := ports.Take()
	if err != nil {
		return 0, err
	}
	return port, os.WriteFile(file, []byte(strconv.Itoa(port)), 0o644)
}

// waitReady asks probe until it says nil, the process ends, or time is over.
func waitReady(ctx context.Context, p *process, probe func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		one, stop := context.WithTimeout(ctx, 5*time.Second)
		err := probe(one)
		stop()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended while starting (%w):\n%s", p.name, p.err, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w:\n%s", p.name, errors.Join(ctx.Err(), err), p.tail())
		case <-tick.C:
		}
	}
}

// portClash reports whether a start failed because somebody else has the port.
func portClash(err error) bool {
	return err != nil && strings.Contains(strings.ToLower(err.Error()), "address already in use")
}

// CacheDir is where built helpers and templates are kept between runs.
func CacheDir() (string, error) {
	if dir := os.Getenv("POSTERN_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: set POSTERN_CACHE: %w", err)
	}
	return filepath.Join(dir, "postern"), nil
}

// ModuleRoot is the folder of Postern's go.mod, above the working directory.
func ModuleRoot() (string, error) {
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
			return "", errors.New("not in a checkout of postern: helpers are built from test/tools")
		}
		dir = up
	}
}

// randomHex is 128 random bits.
func randomHex() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
