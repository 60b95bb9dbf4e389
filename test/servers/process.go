package servers

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/posterngate/postern/pkg/run"
)

// process is a child that dies with us, in a process group of its own.
type process struct {
	name    string
	cmd     *exec.Cmd
	logFile string
	done    chan struct{} // closed once it has ended
	err     error         // how it ended; read after done
	group   *run.Group
	once    sync.Once
}

// start runs cmd with its output appended to logFile.
func start(name string, cmd *exec.Cmd, logFile string) (*process, error) {
	out, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	isolate(cmd)
	p := &process{name: name, cmd: cmd, logFile: logFile, done: make(chan struct{}), group: run.New(context.Background())}
	started := make(chan error, 1)
	p.group.Go(name, func(context.Context) error {
		// The child dies with the thread that made it, so that thread must last.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return nil
		}
		started <- nil
		p.err = cmd.Wait()
		close(p.done)
		return nil
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// signal sends sig to the process itself.
func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// kill ends the whole process group at once and waits.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	_ = p.group.Wait()
}

// stop asks with sig, and kills what is still there after ten seconds. Idempotent.
func (p *process) stop(sig syscall.Signal) {
	p.once.Do(func() {
		p.signal(sig)
		late := time.NewTimer(10 * time.Second)
		defer late.Stop()
		select {
		case <-p.done:
		case <-late.C:
		}
		p.kill()
	})
}

// tail is the end of the log.
func (p *process) tail() string {
	b, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	const most = 4 << 10
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return string(bytes.TrimSpace(b))
}
