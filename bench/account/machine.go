package account

import (
	"bufio"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Machine is where figures were taken, as far as it bears on them.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
	System string `json:"system"`
	Go     string `json:"go"`
}

func cores() int { return runtime.NumCPU() }

// Here describes this machine.
func Here() Machine {
	m := Machine{Cores: cores(), Go: runtime.Version(), CPU: value("/proc/cpuinfo", "model name"), System: strings.Trim(value("/etc/os-release", "PRETTY_NAME"), `"`)}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel, _, _ = strings.Cut(strings.TrimSpace(string(b)), "-")
	}
	if kb, err := strconv.ParseInt(strings.TrimSuffix(value("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		m.Memory = strconv.FormatInt((kb+512<<10)>>20, 10) + " GiB"
	}
	return m
}

// value finds a line "key: value" or "key=value".
func value(file, key string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), key)
		if !ok {
			continue
		}
		return strings.TrimSpace(strings.TrimLeft(rest, " \t:="))
	}
	return ""
}
