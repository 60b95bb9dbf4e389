package account

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// burn uses the processor for a while.
func burn(d time.Duration) {
	for before := CPU(os.Getpid()); CPU(os.Getpid())-before < d; {
	}
}

func TestCPUIsWhatWasUsed(t *testing.T) {
	before := CPU(os.Getpid())
	burn(30 * time.Millisecond)
	if used := CPU(os.Getpid()) - before; used < 30*time.Millisecond {
		t.Errorf("used %s of 30 ms", used)
	}
	if CPU(1<<21) != 0 {
		t.Error("a process that is none has used something")
	}
}

func TestAFamilyHasItsChildren(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	own := os.Getpid()
	if !slices.Contains(Family(own), cmd.Process.Pid) || !slices.Contains(Children(own), cmd.Process.Pid) {
		t.Errorf("%d is missing in %v, %v", cmd.Process.Pid, Family(own), Children(own))
	}
	if slices.Contains(Family(cmd.Process.Pid), own) {
		t.Error("a child has its parent in the family")
	}
	if alone, both := RSS(cmd.Process.Pid), RSS(own); alone <= 0 || both <= alone {
		t.Errorf("resident: the child %d, both %d", alone, both)
	}
}

// TestReaped shows that what ended children used stays in the total of who waited for
// them.
func TestReaped(t *testing.T) {
	before := Total(os.Getpid())
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if got := Total(os.Getpid()) - before; got < used-2*tick {
		t.Errorf("the total grew by %s, and the child alone used %s", got, used)
	}
}

func TestOwnWorkIsNotOthers(t *testing.T) {
	own := os.Getpid()
	all := processes()
	if p, ok := all[own]; !ok || p.kernel || p.parent != os.Getppid() {
		t.Errorf("this process: %+v, %v", p, ok)
	}
	used := 3 * time.Second
	for name, c := range map[string]struct {
		all  map[int]process
		want time.Duration
	}{
		"own, and what it has started": {map[int]process{own: {pid: own, reaped: used}, -2: {pid: -2, parent: own, reaped: used}}, 0},
		"the kernel":                   {map[int]process{-2: {pid: -2, kernel: true, reaped: used}}, 0},
		"another":                      {map[int]process{own: {pid: own}, -2: {pid: -2, parent: -3, reaped: used}}, used},
	} {
		if got := others(c.all); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
