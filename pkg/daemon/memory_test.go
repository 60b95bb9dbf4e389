package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

func TestGroupLimit(t *testing.T) {
	for name, c := range map[string]struct {
		cgroup string
		max    map[string]string
		want   int64
	}{
		"its own":         {"0::/a/b\n", map[string]string{"a/b": "1000\n", "a": "max\n"}, 1000},
		"of one above":    {"12:pids:/x\n0::/a/b\n", map[string]string{"a/b": "max\n", "a": "500\n"}, 500},
		"the least":       {"0::/a/b\n", map[string]string{"a/b": "1000\n", "a": "500\n"}, 500},
		"of a container":  {"0::/\n", map[string]string{"": "700\n"}, 700},
		"none":            {"0::/a\n", map[string]string{"a": "max\n"}, 0},
		"version 1":       {"4:memory:/a\n", map[string]string{"a": "700\n"}, 0},
		"nothing is read": {"0::/a\n", nil, 0},
		"outside":         {"0::/../../a\n", map[string]string{"a": "7\n"}, 7},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			file := filepath.Join(root, "cgroup")
			if err := os.WriteFile(file, []byte(c.cgroup), 0o600); err != nil {
				t.Fatal(err)
			}
			for group, text := range c.max {
				dir := filepath.Join(root, "fs", group)
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dir, "memory.max"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := groupLimit(file, filepath.Join(root, "fs")); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
	if got := groupLimit(filepath.Join(t.TempDir(), "none"), "/"); got != 0 {
		t.Errorf("without a file: %d", got)
	}
}
