package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/deploy/dev/idp"
	"github.com/posterngate/postern/pkg/run"
)

// Result is how a command ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// commandWait bounds one command.
const commandWait = 3 * time.Minute

// person is somebody with a home of their own.
type person struct {
	home   string
	signed chan struct{} // closed once signed in
}

// people are those who have been at a replica.
type people struct {
	at    string // stands in the names of their homes
	mu    sync.Mutex
	homes map[string]*person
}

// Home is where a person's "postern" keeps its tokens.
func (f *Fleet) Home(t testing.TB, who string) string {
	t.Helper()
	f.people.mu.Lock()
	p := f.people.homes[who]
	if p != nil {
		f.people.mu.Unlock()
		<-p.signed
		return p.home
	}
	p = &person{home: filepath.Join(f.Dir, "home-"+who+f.people.at), signed: make(chan struct{})}
	f.people.homes[who] = p
	f.people.mu.Unlock()
	defer close(p.signed)
	f.Folder(t, filepath.Base(p.home))
	return p.home
}

// login signs a person in, the test standing in for the browser.
func (f *Fleet) login(t testing.TB, who string) {
	t.Helper()
	home := f.Home(t, who)
	if _, err := os.Stat(filepath.Join(home, "tokens.json")); err == nil {
		return
	}
	cmd, cancel := f.command(home, "postern", "login")
	defer cancel()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	g := run.New(context.Background())
	g.Go("browser", func(context.Context) error {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			said.WriteString(lines.Text() + "\n")
			if link := strings.TrimSpace(lines.Text()); strings.HasPrefix(link, f.Issuer) {
				if err := browse(&http.Client{Timeout: patience}, link, who); err != nil {
					_ = cmd.Process.Kill()
					return err
				}
			}
		}
		return lines.Err()
	})
	if err := errors.Join(g.Wait(), cmd.Wait()); err != nil {
		t.Fatalf("postern login as %s: %v\n%s", who, err, said.String())
	}
}

// SignIn signs a person in on the pages, the test standing in for the browser.
func (f *Fleet) SignIn(t testing.TB, who string) {
	t.Helper()
	hc := f.HTTPClient(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	hc.Jar, hc.Timeout = jar, patience
	if err := browse(hc, f.Addr+"/web/login?to=/approvals", who); err != nil {
		t.Fatal(err)
	}
}

// browse does what a person does in a browser: follow the link, give name and password,
// and be sent back to who has asked.
func browse(hc *http.Client, link, name string) error {
	page, err := hc.Get(link)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, page.Body)
	page.Body.Close()
	at := page.Request.URL
	done, err := hc.PostForm(at.String(), url.Values{"request": {at.Query().Get("request")}, "name": {name}, "password": {name}})
	if err != nil {
		return err
	}
	defer done.Body.Close()
	if b, err := io.ReadAll(done.Body); err != nil || done.StatusCode != http.StatusOK {
		return fmt.Errorf("sign in %s: %s %s %w", name, done.Status, b, err)
	}
	return nil
}

// command is a binary in a person's environment, as the ordinary user.
func (f *Fleet) command(home, program string, args ...string) (*exec.Cmd, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), commandWait)
	if !strings.Contains(program, "/") && strings.HasPrefix(program, "postern") {
		program = f.Binary(program)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = f.Dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "PGCONNECT_TIMEOUT=5",
		"POSTERN_ADDR=" + f.Addr, "POSTERN_CA=" + f.CA, "POSTERN_HOME=" + home,
	}
	ordinary(cmd)
	return cmd, cancel
}

// Run runs "postern ARGS" as a person, who is signed in first where they are not yet.
func (f *Fleet) Run(t testing.TB, who string, args ...string) Result {
	t.Helper()
	return f.RunWith(t, who, "", nil, args...)
}

// RunWith is Run with standard input and further environment.
func (f *Fleet) RunWith(t testing.TB, who, stdin string, env []string, args ...string) Result {
	t.Helper()
	f.login(t, who)
	return f.Exec(t, f.Home(t, who), stdin, env, "postern", args...)
}

// Must is Run that must succeed; it returns standard output without the last newline.
func (f *Fleet) Must(t testing.TB, who string, args ...string) string {
	t.Helper()
	r := f.Run(t, who, args...)
	if r.Code != 0 {
		t.Fatalf("%s: postern %s: code %d\n%s%s", who, strings.Join(args, " "), r.Code, r.Stdout, r.Stderr)
	}
	return strings.TrimSuffix(r.Stdout, "\n")
}

// Exec runs a program, one of the binaries by its name, as the ordinary user.
func (f *Fleet) Exec(t testing.TB, home, stdin string, env []string, program string, args ...string) Result {
	t.Helper()
	cmd, cancel := f.command(home, program, args...)
	defer cancel()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.Env = append(cmd.Env, env...)
	err := cmd.Run()
	r := Result{Stdout: out.String(), Stderr: errs.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%s: %v", program, err)
	}
	return r
}

// Apply applies YAML as ada, expanded like the sample company, and returns the revision
// that has it.
func (f *Fleet) Apply(t testing.TB, yaml string) int64 {
	t.Helper()
	r := f.RunWith(t, "ada", f.Expand(yaml), nil, "apply", "-f", "-", "--format", "json")
	var answer struct{ Version struct{ Revision string } }
	if err := json.Unmarshal([]byte(r.Stdout), &answer); r.Code != 0 || err != nil {
		t.Fatalf("apply: code %d: %s%s", r.Code, r.Stdout, r.Stderr)
	}
	revision, err := strconv.ParseInt(answer.Version.Revision, 10, 64)
	if err != nil {
		t.Fatalf("apply: %v in %s", err, r.Stdout)
	}
	return revision
}

// Token is what "postern token" prints: a token for listeners.
func (f *Fleet) Token(t testing.TB, who string) string {
	t.Helper()
	return f.Must(t, who, "token")
}

// Workload is the token of the workload nightly, as its platform gives it, in a file.
func (f *Fleet) Workload(t testing.TB) (file string) {
	t.Helper()
	token, err := idp.SignIn(t.Context(), f.Issuer, idp.SharedClient, "nightly")
	if err != nil {
		t.Fatal(err)
	}
	return f.File(t, "nightly-token", token)
}

// Hold finds the id of the one hold that waits, as a person who may approve it.
func (f *Fleet) Hold(t testing.TB, who, task string) string {
	t.Helper()
	id := ""
	Eventually(t, 15*time.Second, "something waits for "+who, func() error {
		r := f.Run(t, who, "approvals", "--format", "json")
		m := holdID.FindStringSubmatch(r.Stdout)
		if m == nil || !strings.Contains(r.Stdout, task) {
			return fmt.Errorf("%s%s", r.Stdout, r.Stderr)
		}
		id = m[1]
		return nil
	})
	return id
}

var holdID = regexp.MustCompile(`"id":\s*"([^"]+)"`)

// RunEnv runs another program in a person's environment.
func (f *Fleet) RunEnv(t testing.TB, who string, env []string, program string, args ...string) Result {
	t.Helper()
	f.login(t, who)
	return f.Exec(t, f.Home(t, who), "", env, program, args...)
}

// Command is a program in a person's environment that the caller starts.
func (f *Fleet) Command(t testing.TB, who, program string, args ...string) *exec.Cmd {
	t.Helper()
	f.login(t, who)
	cmd, cancel := f.command(f.Home(t, who), program, args...)
	t.Cleanup(cancel)
	return cmd
}
