// Package child starts the programs that are measured, each in a process of its own that
// dies with the suite.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// A Child is a running program.
type Child struct {
	Name  string
	cmd   *exec.Cmd
	group *run.Group
	done  chan struct{}
	in    io.WriteCloser
	out   *bufio.Reader
	log   string
}

// startWait bounds how long a program may take to answer, stopWait to end.
const (
	startWait = 15 * time.Second
	stopWait  = 5 * time.Second
)

// Start starts a program, whose errors go to the file log. Where it is ordinary, root
// runs it as nobody.
func Start(name, log string, ordinary bool, program string, args ...string) (*Child, error) {
	errs, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	cmd := exec.Command(program, args...)
	cmd.Stderr, cmd.Dir = errs, os.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if uid, gid, ok := nobody(); ok && ordinary {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
	c := &Child{Name: name, cmd: cmd, group: run.New(context.Background()), done: make(chan struct{}), log: log}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	c.group.Go(name, func(context.Context) error {
		// The child dies with the thread that made it, so that thread must last.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_, _ = cmd.Process.Wait()
		}
		close(c.done)
		return nil
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// PID is the process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Ask writes a line to the program, unless it is empty, and reads one line of JSON.
func (c *Child) Ask(line string, answer any) error {
	if line != "" {
		if _, err := io.WriteString(c.in, line+"\n"); err != nil {
			return fmt.Errorf("%s: %w: %s", c.Name, err, c.said())
		}
	}
	b, err := c.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("%s: %w: %s", c.Name, err, c.said())
	}
	return json.Unmarshal(b, answer)
}

// Listening waits until the program takes connections.
func (c *Child) Listening(addr string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(startWait); ; {
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s has ended: %s", c.Name, c.said())
		case <-late:
			return fmt.Errorf("%s does not answer: %w: %s", c.Name, err, c.said())
		case <-tick.C:
		}
	}
}

func (c *Child) said() string {
	b, _ := os.ReadFile(c.log)
	return string(b[max(0, len(b)-2000):])
}

// Stop ends it. It may be called again.
func (c *Child) Stop() {
	_ = c.in.Close()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(stopWait):
	}
	_ = syscall.Kill(-c.PID(), syscall.SIGKILL)
	_ = c.group.Wait()
}

// nobody is the ordinary user that root runs things as; false where we are one.
func nobody() (uid, gid uint32, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	uid, gid = 65534, 65534
	if u, err := user.Lookup("nobody"); err == nil {
		a, aerr := strconv.ParseUint(u.Uid, 10, 32)
		b, berr := strconv.ParseUint(u.Gid, 10, 32)
		if errors.Join(aerr, berr) == nil {
			uid, gid = uint32(a), uint32(b)
		}
	}
	return uid, gid, true
}
