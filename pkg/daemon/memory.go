package daemon

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// collector sets how much garbage there may be: percent of what lives, and four fifths of
// what the control group has in all. What the environment says (GOGC, GOMEMLIMIT) wins.
func collector(percent int) {
	if _, ok := os.LookupEnv("GOGC"); !ok && percent > 0 {
		debug.SetGCPercent(percent)
	}
	if _, ok := os.LookupEnv("GOMEMLIMIT"); !ok {
		if limit := groupLimit("/proc/self/cgroup", "/sys/fs/cgroup"); limit > 0 {
			debug.SetMemoryLimit(limit / 5 * 4)
		}
	}
}

// groupLimit is the least memory.max of the control group (v2) that file names and those
// above it, in bytes; 0 is none, and where it cannot be told.
func groupLimit(file, root string) (limit int64) {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	group := ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if at, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			group = filepath.Clean("/" + at)
		}
	}
	for group != "" {
		text, err := os.ReadFile(filepath.Join(root, group, "memory.max"))
		if n, perr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil && n > 0 && (limit == 0 || n < limit) {
			limit = n
		}
		if group == "/" {
			break
		}
		group = filepath.Dir(group)
	}
	return limit
}
