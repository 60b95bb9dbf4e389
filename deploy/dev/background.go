package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/posterngate/postern/test/servers"
)

// upTimeout bounds the start in the background, everything that is built or installed
// on the way included.
const upTimeout = 15 * time.Minute

func pidFile(o options) string   { return filepath.Join(o.dir, "pid") }
func readyFile(o options) string { return filepath.Join(o.dir, "ready") }
func logFile(o options) string   { return filepath.Join(o.dir, "log") }

// running is the process that up or run started, or 0. The lock that it holds, and not
// the number alone, says that it lives.
func running(o options) int {
	b, err := os.ReadFile(pidFile(o))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || free(pidFile(o)) {
		return 0
	}
	return pid
}

// free reports whether nobody holds the lock on a file.
func free(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return true
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return false
	}
	return true
}

// claim writes and locks the pid file; a second house in the same folder is refused.
func claim(o options) (release func(), err error) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(pidFile(o), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("a house is running in %s already: make dev-down", o.dir), f.Close())
	}
	_ = f.Truncate(0)
	_, err = f.WriteString(strconv.Itoa(os.Getpid()))
	return func() { _ = os.Remove(pidFile(o)); _ = f.Close() }, err
}

// up starts run in the background and waits until everything answers.
func up(ctx context.Context, o options) error {
	if running(o) != 0 {
		if _, err := os.Stat(readyFile(o)); err == nil {
			o.log("the house is up already; see " + filepath.Join(o.dir, "env"))
			return nil
		}
		return fmt.Errorf("a house is starting in %s already: see %s", o.dir, logFile(o))
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return err
	}
	_ = os.Remove(readyFile(o))
	out, err := os.Create(logFile(o))
	if err != nil {
		return err
	}
	defer out.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"run", "--dir", o.dir}
	if o.vault {
		args = append(args, "--vault")
	}
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return follow(ctx, o, cmd.Process.Pid)
}

// follow shows the log of the start until the house is ready or has ended.
func follow(ctx context.Context, o options, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, upTimeout)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	shown := 0
	for {
		b, err := os.ReadFile(logFile(o))
		if err == nil && len(b) > shown {
			if end := bytes.LastIndexByte(b, '\n') + 1; end > shown {
				_, _ = os.Stderr.Write(b[shown:end])
				shown = end
			}
		}
		if _, err := os.Stat(readyFile(o)); err == nil {
			return nil
		}
		var status syscall.WaitStatus
		if got, _ := syscall.Wait4(pid, &status, syscall.WNOHANG, nil); got == pid {
			return fmt.Errorf("the house did not start; the end of %s says why", logFile(o))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the house is not ready: %w; see %s", ctx.Err(), logFile(o))
		case <-tick.C:
		}
	}
}

// down stops the house and waits until it has.
func down(ctx context.Context, o options) error {
	pid := running(o)
	if pid == 0 {
		o.log("no house is running")
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for running(o) != 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("process %d does not stop", pid)
		case <-tick.C:
		}
	}
	o.log("the house is down")
	return nil
}

// reset forgets everything.
func reset(ctx context.Context, o options) error {
	if err := down(ctx, o); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(o.dir, "ports.json")); errors.Is(err, fs.ErrNotExist) {
		return nil // nothing of ours is there
	}
	return errors.Join(servers.RemoveData(filepath.Join(o.dir, "warehouse")), os.RemoveAll(o.dir))
}
