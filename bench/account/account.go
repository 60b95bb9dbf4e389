// Package account says what processes have used: CPU time to the nanosecond, memory,
// and what the rest of the machine did meanwhile.
package account

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of times in /proc/PID/stat.
const tick = time.Second / 100

// CPU is what one process has used so far, all its threads together; 0 where it has
// ended.
func CPU(pid int) time.Duration {
	// The kernel's clock of another process: its id inverted, and "scheduled time".
	var ts unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|2), &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Sum is what processes have used so far.
func Sum(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		sum += CPU(pid)
	}
	return sum
}

// Children are the processes that one has started, by whatever thread, and that live; it
// is cheap.
func Children(pid int) []int {
	var out []int
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*/children", pid))
	for _, file := range threads {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for _, f := range strings.Fields(string(b)) {
			if child, err := strconv.Atoi(f); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// A process is one line of /proc.
type process struct {
	pid, parent int
	kernel      bool
	reaped      time.Duration // used by children that have ended
}

func processes() map[int]process {
	all := map[int]process{}
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		// pid (name) state parent ...; the name may hold anything.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 16 {
			continue
		}
		p := process{pid: pid}
		p.parent, _ = strconv.Atoi(f[1])
		flags, _ := strconv.ParseUint(f[6], 10, 64)
		p.kernel = flags&0x00200000 != 0 // PF_KTHREAD
		user, _ := strconv.ParseInt(f[13], 10, 64)
		system, _ := strconv.ParseInt(f[14], 10, 64)
		p.reaped = time.Duration(user+system) * tick
		all[pid] = p
	}
	return all
}

// Family is the processes given and all that they have started and that live.
func Family(roots ...int) []int { return family(processes(), roots) }

func family(all map[int]process, roots []int) []int {
	children := map[int][]int{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p.pid)
	}
	out := append([]int(nil), roots...)
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

// Total is what families have used, with what their ended children had.
func Total(roots ...int) time.Duration { return total(processes(), roots) }

func total(all map[int]process, roots []int) time.Duration {
	var sum time.Duration
	for _, pid := range family(all, roots) {
		sum += CPU(pid) + all[pid].reaped
	}
	return sum
}

// RSS is the resident memory of families, in bytes.
func RSS(roots ...int) int64 {
	var sum int64
	for _, pid := range Family(roots...) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			continue
		}
		if f := strings.Fields(string(b)); len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64)
			sum += pages * int64(os.Getpagesize())
		}
	}
	return sum
}

// A Watch measures what happened on the machine outside of the suite.
type Watch struct {
	began  time.Time
	others time.Duration
	stolen time.Duration
	cores  int
}

// Others begins a Watch. Everything that this process has started belongs to the suite;
// threads of the kernel do its work and count for nobody.
func Others() Watch {
	all := processes()
	return Watch{began: time.Now(), others: others(all), stolen: stolen(), cores: cores()}
}

func others(all map[int]process) time.Duration {
	own := map[int]bool{}
	for _, pid := range family(all, []int{os.Getpid()}) {
		own[pid] = true
	}
	var sum time.Duration
	for _, p := range all {
		if own[p.pid] || p.kernel {
			continue
		}
		sum += CPU(p.pid) + p.reaped
	}
	return sum
}

// Share is the part of the machine's time since the Watch began that others used or
// that was stolen, from 0 to 1.
func (w Watch) Share() float64 {
	end := Others()
	lost := max(0, end.others-w.others) + max(0, end.stolen-w.stolen)
	return float64(lost) / float64(end.began.Sub(w.began)) / float64(w.cores)
}

func stolen() time.Duration {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	if !lines.Scan() {
		return 0
	}
	if fields := strings.Fields(lines.Text()); len(fields) > 8 {
		n, _ := strconv.ParseInt(fields[8], 10, 64)
		return time.Duration(n) * tick
	}
	return 0
}
