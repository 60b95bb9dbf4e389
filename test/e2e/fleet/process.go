package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// stopWait is how long a process may take to end in order.
const stopWait = 30 * time.Second

// A Process is one of the binaries as a child in a process group of its own. It dies
// with the test. Its output goes to a file that a failing test prints the end of.
type Process struct {
	Name    string
	LogFile string

	path string
	args []string
	dir  string
	// in is the network it runs in; nil is the test's.
	in *Namespace

	cmd   *exec.Cmd
	group *run.Group
	done  chan struct{} // closed once it has ended
	err   error         // how it ended; read after done
}

// Start starts it, also again. It does not wait for readiness.
func (p *Process) Start() error {
	out, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, out, out
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "HOME=" + p.dir}
	ordinary(cmd)
	p.cmd, p.done, p.group = cmd, make(chan struct{}), run.New(context.Background())
	done, started := p.done, make(chan error, 1)
	p.group.Go(p.Name, func(context.Context) error {
		// The child dies with the thread that made it, so that thread must last.
		runtime.LockOSThread()
		if p.in == nil {
			defer runtime.UnlockOSThread()
		}
		err := p.in.enter()
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
		close(done)
		return nil
	})
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	return nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed once the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.done }

// Signal sends sig to the process itself.
func (p *Process) Signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// Pause stops the whole group as a debugger or a frozen machine would; Resume goes on.
func (p *Process) Pause() { _ = syscall.Kill(-p.PID(), syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Process) Resume() { _ = syscall.Kill(-p.PID(), syscall.SIGCONT) }

// Crash kills the process itself, as the kernel would for lack of memory, and waits.
// It is an error if children of its outlive it.
func (p *Process) Crash() error {
	children := Family(p.PID())[1:]
	p.Signal(syscall.SIGKILL)
	<-p.done
	for end := time.Now().Add(5 * time.Second); len(children) > 0; {
		if errors.Is(syscall.Kill(children[0], 0), syscall.ESRCH) {
			children = children[1:]
			continue
		}
		if time.Now().After(end) {
			_ = syscall.Kill(children[0], syscall.SIGKILL)
			return fmt.Errorf("process %d, a child of %s, outlived it", children[0], p.Name)
		}
		<-time.After(10 * time.Millisecond)
	}
	return nil
}

// Family is a process and all that it has started, itself first. Where the system does
// not show processes as files it is the process alone.
func Family(pid int) []int {
	parents := map[int][]int{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent ...; the name may hold anything.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil || len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			parents[parent] = append(parents[parent], child)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, parents[all[i]]...)
	}
	return all
}

// Stop asks the process to end and returns its exit code, -1 where it had to be killed.
func (p *Process) Stop() int {
	if p.cmd == nil {
		return 0
	}
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopWait):
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
		<-p.done
	}
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL) // what it may have left
	return p.cmd.ProcessState.ExitCode()
}

// Log is everything that the process has said, over all its starts.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.LogFile)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// showOnFailure prints the end of the log where the test failed.
func (p *Process) showOnFailure(t testing.TB) {
	if !t.Failed() {
		return
	}
	b := []byte(p.Log())
	const most = 6 << 10
	if len(b) > most {
		b = b[len(b)-most:]
	}
	t.Logf("the end of the log of %s:\n%s", p.Name, bytes.TrimSpace(b))
}

// ordinary makes a command run in a group of its own, as nobody where the test is root.
func ordinary(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)
	if uid, gid, ok := nobody(); ok {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}

// nobody is the ordinary user that root runs things as.
func nobody() (uid, gid int, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	uid, gid = 65534, 65534
	if u, err := user.Lookup("nobody"); err == nil {
		if n, err := strconv.Atoi(u.Uid); err == nil {
			uid = n
		}
		if n, err := strconv.Atoi(u.Gid); err == nil {
			gid = n
		}
	}
	return uid, gid, true
}

// Give makes a file or folder belong to the ordinary user.
func Give(path string) error {
	if uid, gid, ok := nobody(); ok {
		return os.Lchown(path, uid, gid)
	}
	return nil
}
