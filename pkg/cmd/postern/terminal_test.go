//go:build linux

package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// onTerminal runs the command on a terminal of so many columns, and returns what it shows.
func onTerminal(t *testing.T, columns int, env map[string]string, args ...string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(fakeAPI())
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	home := t.TempDir()
	ca := filepath.Join(home, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	getenv := func(name string) string {
		if v, ok := env[name]; ok {
			return v
		}
		return map[string]string{"POSTERN_ADDR": srv.URL, "POSTERN_CA": ca, "POSTERN_HOME": home, "POSTERN_TOKEN": "alice", "TERM": "xterm"}[name]
	}
	var stderr strings.Builder
	if code := Main(t.Context(), args, Env{Stdin: strings.NewReader(""), Stdout: tty, Stderr: &stderr, Getenv: getenv}); code != 0 {
		t.Fatalf("postern %s: %d: %s", strings.Join(args, " "), code, &stderr)
	}
	tty.Close() // its other end has what was written, and then an error
	out, _ := io.ReadAll(master)
	return strings.ReplaceAll(string(out), "\r\n", "\n")
}

// Tables fit the terminal; names and ids are never cut.
func TestTablesFit(t *testing.T) {
	for _, columns := range []int{200, 90, 70, 40} {
		out := onTerminal(t, columns, nil, "tasks")
		for line := range strings.Lines(out) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > columns {
				t.Errorf("%d of %d columns: %q", n, columns, line)
			}
		}
		for _, want := range []string{"sales-report", "warehouse", "orders-api"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not shown in %d columns:\n%s", want, columns, out)
			}
		}
		if whole := strings.Contains(out, "of the month"); whole != (columns != 70) {
			t.Errorf("in %d columns:\n%s", columns, out)
		}
		if fields := strings.Contains(out, "RESOURCES warehouse\n"); fields != (columns == 40) {
			t.Errorf("in %d columns:\n%s", columns, out)
		}
	}
}

// Who wants no colours is shown none.
func TestNoColour(t *testing.T) {
	for env, want := range map[string]bool{"": true, "NO_COLOR=1": false, "NO_COLOR=": true, "TERM=dumb": false} {
		name, value, _ := strings.Cut(env, "=")
		if got := strings.Contains(onTerminal(t, 80, map[string]string{name: value}, "sessions", "replay", "s-1"), "\x1b["); got != want {
			t.Errorf("with %q colours are %t", env, got)
		}
	}
}
