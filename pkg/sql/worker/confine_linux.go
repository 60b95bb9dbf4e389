package worker

import (
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// self is the program of this process, also where its file was replaced since.
func self() (string, error) { return "/proc/self/exe", nil }

// attend makes the child end when the parent does, even if killed.
func attend(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

// confine takes from the child what a parser does not need: memory beyond its bound,
// files, and core dumps, which would hold statements.
func confine(memory int64) error {
	for _, l := range []struct {
		what int
		max  uint64
	}{
		{syscall.RLIMIT_DATA, uint64(memory)},
		{syscall.RLIMIT_NOFILE, 32},
		{syscall.RLIMIT_FSIZE, 0},
		{syscall.RLIMIT_CORE, 0},
	} {
		if err := syscall.Setrlimit(l.what, &syscall.Rlimit{Cur: l.max, Max: l.max}); err != nil {
			return fmt.Errorf("limit child: %w", err)
		}
	}
	return nil
}

// processorTime is what a process has used of the processors. The clock's name is made of
// the process's as in clock_getcpuclockid(3).
func processorTime(pid int) (time.Duration, error) {
	const scheduled = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &t); err != nil {
		return 0, fmt.Errorf("clock of the child: %w", err)
	}
	return time.Duration(t.Nano()), nil
}
