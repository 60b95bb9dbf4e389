//go:build !linux

package worker

import (
	"os"
	"os/exec"
	"time"
)

var began = time.Now()

// self is the program of this process.
func self() (string, error) { return os.Executable() }

// attend has nothing to do: the child ends when its standard input does.
func attend(*exec.Cmd) {}

// confine has nothing to do where the kernel offers no limits that hold: the deadline
// and the memory limit of the Go runtime stand.
func confine(int64) error { return nil }

// processorTime is the wall's clock: what a child uses cannot be asked for.
func processorTime(int) (time.Duration, error) { return time.Since(began), nil }
