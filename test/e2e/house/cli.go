package house

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/posterngate/postern/pkg/sql/worker"
)

// browserAs names the person as whom this binary acts as a browser.
const browserAs = "POSTERN_E2E_BROWSER_AS"

// Main is what a suite's TestMain calls and nothing else. The test binary also serves
// as the SQL parser's child, and as the browser of somebody who signs in.
func Main(m *testing.M) {
	worker.Main()
	if who := os.Getenv(browserAs); who != "" && len(os.Args) == 2 {
		if err := browse(os.Args[1], who); err != nil {
			fmt.Fprintln(os.Stderr, "browser:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// browse does what a person does in a browser: follow the link, sign in, and go where
// the provider says.
func browse(link, who string) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req) // follows redirects to the login page
	if err != nil {
		return err
	}
	resp.Body.Close()
	form := url.Values{"request": {resp.Request.URL.Query().Get("request")}, "name": {who}, "password": {who}}
	resp, err = http.PostForm(resp.Request.URL.String(), form)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	return nil
}

var cli struct {
	once sync.Once
	path string
	err  error
}

// binary builds the CLI once a process, into a cache folder of the suite, where the Go
// tool sees whether it is new already.
func binary(t testing.TB) string {
	t.Helper()
	cli.once.Do(func() {
		var cache string
		if cache, cli.err = os.UserCacheDir(); cli.err != nil {
			return
		}
		suite := filepath.Base(filepath.Dir(Must(filepath.Abs("x"))(t)))
		cli.path = filepath.Join(cache, "postern", "e2e", suite, "postern")
		cmd := exec.Command("go", "build", "-o", cli.path, "./pkg/cmd/postern")
		cmd.Dir = root(t)
		if out, err := cmd.CombinedOutput(); err != nil {
			cli.err = errors.Join(err, errors.New(string(out)))
		}
	})
	if cli.err != nil {
		t.Fatalf("build the CLI: %v", cli.err)
	}
	return cli.path
}

// A Person runs the CLI with a home of their own and nothing else in common.
type Person struct {
	h    *House
	Home string
	Env  []string // further variables
}

// Person is somebody at a shell who has not signed in.
func (h *House) Person(t testing.TB) *Person {
	t.Helper()
	return &Person{h: h, Home: t.TempDir()}
}

// CLI runs the CLI as a person who gives a token for the API in POSTERN_TOKEN.
func (h *House) CLI(t testing.TB, who string, args ...string) Result {
	t.Helper()
	p := h.Person(t)
	p.Env = []string{"POSTERN_TOKEN=" + h.APIToken(t, who)}
	return p.Run(t, "", args...)
}

// Cmd is the CLI, ready to start.
func (p *Person) Cmd(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(binary(t), args...)
	cmd.Dir = p.Home
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + p.Home, "POSTERN_HOME=" + filepath.Join(p.Home, "postern"),
		"POSTERN_ADDR=" + p.h.Addr, "POSTERN_CA=" + p.h.CAFile, "LC_ALL=C", "TZ=UTC", "PGSERVICEFILE=/dev/null",
	}, p.Env...)
	return cmd
}

// Run runs the CLI to its end.
func (p *Person) Run(t testing.TB, stdin string, args ...string) Result {
	t.Helper()
	cmd := p.Cmd(t, args...)
	cmd.Stdin = bytes.NewReader([]byte(stdin))
	return Finish(t, cmd)
}

// Start starts the CLI, to be spoken to.
func (p *Person) Start(t testing.TB, args ...string) *Session {
	t.Helper()
	return Begin(t, p.Cmd(t, args...))
}

// Browser makes the CLI's browser sign in as a person.
func (p *Person) Browser(t testing.TB, who string) {
	t.Helper()
	p.Env = append(p.Env, "BROWSER="+Must(os.Executable())(t), browserAs+"="+who)
}

// Poll waits for a value to come about, checking now and then.
func Poll[T any](t testing.TB, what string, get func() (T, bool)) T {
	t.Helper()
	var v T
	Eventually(t, func() string { return what }, func() bool {
		var ok bool
		v, ok = get()
		return ok
	})
	return v
}
