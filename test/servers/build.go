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
	"runtime"
	"strings"
	"syscall"
	"time"
)

// helper is a program that is built from a module of its own under test/tools.
type helper struct {
	name     string
	packages []string
	flags    []string
	about    string // how long the first build takes, for those who wait
}

// build returns the folder with the helper's binaries. They are built once for each
// go.mod, go.sum, flags and Go version, by one process at a time.
func build(ctx context.Context, h helper, log func(string)) (string, error) {
	root, err := ModuleRoot()
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	module := filepath.Join(root, "test", "tools", h.name)
	key, err := h.key(module)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", h.name, err)
	}
	dir := filepath.Join(cache, h.name+"-"+key)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unlock, err := lockFile(ctx, filepath.Join(cache, h.name+".lock"), func() {
		log("waiting for another process that builds " + h.name)
	})
	if err != nil {
		return "", fmt.Errorf("build %s: %w", h.name, err)
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp := filepath.Join(cache, h.name+"-build") // one for whoever has the lock, with what a build that was killed has left
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	log(fmt.Sprintf("building %s (%s, once)", h.name, h.about))
	args := append([]string{"build", "-p", "2", "-o", tmp + string(filepath.Separator)}, h.flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, h.packages...)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	if err := runLogged(ctx, "go build of "+h.name, cmd, filepath.Join(cache, h.name+".log"), log); err != nil {
		return "", err
	}
	return dir, os.Rename(tmp, dir)
}

func (h helper) key(module string) (string, error) {
	sum := sha256.New()
	for _, f := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(module, f))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(sum, "%s %d\n%s", f, len(b), b)
	}
	version, err := exec.Command("go", "env", "GOVERSION").Output()
	if err != nil {
		return "", fmt.Errorf("the go command is needed: %w", err)
	}
	fmt.Fprintf(sum, "%q %q %s %s/%s", h.flags, h.packages, version, runtime.GOOS, runtime.GOARCH)
	return hex.EncodeToString(sum.Sum(nil)[:8]), nil
}

// runLogged runs cmd to its end and says every ten seconds that it lives.
func runLogged(ctx context.Context, what string, cmd *exec.Cmd, logFile string, log func(string)) error {
	_ = os.Remove(logFile)
	begin := time.Now()
	p, err := start(what, cmd, logFile)
	if err != nil {
		return err
	}
	defer p.kill()
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			if p.err != nil {
				return fmt.Errorf("%s: %w:\n%s", what, p.err, p.tail())
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-tick.C:
			log(fmt.Sprintf("%s: %s so far", what, time.Since(begin).Round(time.Second)))
		}
	}
}

// lockFile takes an exclusive lock that ends with the process; waiting is told once.
func lockFile(ctx context.Context, file string, waiting func()) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", file, err)
		}
		if !told {
			waiting()
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// onPath finds a program, on PATH or in one of the folders.
func onPath(name string, folders ...string) string {
	for _, dir := range folders {
		file := filepath.Join(dir, name)
		if st, err := os.Stat(file); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return file
		}
	}
	if file, err := exec.LookPath(name); err == nil {
		return strings.TrimSpace(file)
	}
	return ""
}
