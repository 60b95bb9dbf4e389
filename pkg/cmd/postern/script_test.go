package main

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"postern": main})
}

// TestScripts runs testdata/*.txtar: each command as people type it. $API is a control
// plane that knows a few answers; see fake_test.go.
func TestScripts(t *testing.T) {
	srv := httptest.NewUnstartedServer(fakeAPI())
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			file := filepath.Join(e.WorkDir, "ca.pem")
			e.Setenv("API", srv.URL)
			e.Setenv("CA", file)
			e.Setenv("POSTERN_HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("TZ", "UTC")
			return os.WriteFile(file, ca, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits CODE ARGS... runs postern and checks its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: exits CODE ARGS...")
	}
	err := ts.Exec("postern", args[1:]...)
	code := "0"
	if err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if code != args[0] {
		ts.Fatalf("postern %s ended with %s, want %s", strings.Join(args[1:], " "), code, args[0])
	}
}

// TestHelp: each command says in a line what it does, and shows how it is used.
func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		name := c.CommandPath()
		if name == "postern completion" || strings.HasPrefix(name, "postern completion ") || c.Name() == "help" {
			return // cobra's own
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short is %q", name, c.Short)
		}
		if c.Runnable() && !c.HasSubCommands() && !strings.Contains(c.Example, "postern ") {
			t.Errorf("%s has no example", name)
		}
		for line := range strings.Lines(c.Example) {
			args := strings.Fields(line)
			i := 0
			for i < len(args) && args[i] != "postern" && !strings.HasSuffix(args[i], "$(postern") {
				i++
			}
			if i+1 >= len(args) {
				t.Errorf("%s: the example %q does not run postern", name, line)
				continue
			}
			path := []string{}
			for _, a := range args[i+1:] {
				path = append(path, strings.TrimSuffix(a, ")"))
			}
			if found, _, err := c.Root().Find(path); err != nil || found == c.Root() {
				t.Errorf("%s: the example %q names no command: %v", name, line, err)
			}
		}
	}
	walk((&app{env: Env{Getenv: func(string) string { return "" }}}).root())
}
