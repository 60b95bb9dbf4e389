package house

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Result is what a program left behind.
type Result struct {
	Out, Err string
	Code     int
}

// All is both outputs.
func (r Result) All() string { return r.Out + r.Err }

// Finish runs a program to its end, bounded by Patience.
func Finish(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	late := time.AfterFunc(3*Patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
	return Result{Out: out.String(), Err: errs.String(), Code: cmd.ProcessState.ExitCode()}
}

// Conninfo is a connection string without a password, for TASK or TASK.RESOURCE at a node;
// the resource is the warehouse where none is named.
func (h *House) Conninfo(n *Node, task string) string {
	host, port, _ := net.SplitHostPort(n.PG)
	if !strings.Contains(task, ".") {
		task += ".warehouse"
	}
	return fmt.Sprintf("host=%s port=%s user=%s dbname=warehouse sslmode=verify-full sslrootcert=%s connect_timeout=10", host, port, task, h.CAFile)
}

// psqlCmd is the stock psql as a person, with our token as the password.
func (h *House) psqlCmd(t testing.TB, token, task string, args ...string) *exec.Cmd {
	t.Helper()
	if h.PG.Psql == "" {
		t.Fatal("there is no psql: install postgresql-client")
	}
	cmd := exec.Command(h.PG.Psql, append([]string{h.Conninfo(h.Nodes[0], task), "-X", "-v", "VERBOSITY=verbose", "-P", "pager=off"}, args...)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+token, "PGSERVICEFILE=/dev/null", "LC_ALL=C")
	return cmd
}

// Psql runs a script in the stock psql as a person, unaligned and without heads.
// Errors come in psql's verbose form, with SQLSTATE, DETAIL and HINT.
func (h *House) Psql(t testing.TB, who, task, script string, args ...string) Result {
	t.Helper()
	return h.PsqlWith(t, h.DataToken(t, who), task, script, args...)
}

// PsqlWith is Psql with a token as it is given.
func (h *House) PsqlWith(t testing.TB, token, task, script string, args ...string) Result {
	t.Helper()
	cmd := h.psqlCmd(t, token, task, append([]string{"-A", "-t"}, args...)...)
	cmd.Stdin = strings.NewReader(script)
	return Finish(t, cmd)
}

// A Session is a program that is spoken to while it runs.
type Session struct {
	t    testing.TB
	in   io.WriteCloser
	cmd  *exec.Cmd
	mu   sync.Mutex
	out  strings.Builder // both outputs as they came
	more chan struct{}   // signalled by each output
	done chan struct{}
}

// Write implements io.Writer for the program's outputs.
func (s *Session) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.more <- struct{}{}:
	default:
	}
	return s.out.Write(p)
}

func (s *Session) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// Begin starts a program whose end is waited for at the test's.
func Begin(t testing.TB, cmd *exec.Cmd) *Session {
	t.Helper()
	s := &Session{t: t, cmd: cmd, more: make(chan struct{}, 1), done: make(chan struct{})}
	s.in = Must(cmd.StdinPipe())(t)
	cmd.Stdout, cmd.Stderr = s, s
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait(); close(s.done) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-s.done })
	return s
}

// StartPsql starts the stock psql as a person, to be spoken to.
func (h *House) StartPsql(t testing.TB, who, task string) *Session {
	t.Helper()
	return Begin(t, h.psqlCmd(t, h.DataToken(t, who), task, "-A", "-t"))
}

// Say sends a line.
func (s *Session) Say(line string) {
	s.t.Helper()
	if _, err := io.WriteString(s.in, line+"\n"); err != nil {
		s.t.Logf("psql: %v", err) // it may have been cut off, which the test looks at
	}
}

// Expect waits until the outputs contain a text, and returns all of them.
func (s *Session) Expect(text string) string {
	s.t.Helper()
	late := time.NewTimer(Patience)
	defer late.Stop()
	for {
		have := s.text()
		if strings.Contains(have, text) {
			return have
		}
		select {
		case <-s.more:
		case <-s.done:
			if have = s.text(); strings.Contains(have, text) {
				return have
			}
			s.t.Fatalf("the program ended and did not say %q:\n%s", text, have)
		case <-late.C:
			s.t.Fatalf("the program did not say %q:\n%s", text, have)
		}
	}
}

// Signal sends a signal to the program.
func (s *Session) Signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// End closes the program's input and waits for its end.
func (s *Session) End() Result {
	s.t.Helper()
	_ = s.in.Close()
	return s.Wait()
}

// Wait waits for the program's end.
func (s *Session) Wait() Result {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(Patience):
		s.t.Fatalf("the program does not end:\n%s", s.text())
	}
	return Result{Out: s.text(), Code: s.cmd.ProcessState.ExitCode()}
}

// Config is pgx's configuration for a person and a task at the first node.
func (h *House) Config(t testing.TB, token, task string) *pgx.ConnConfig {
	t.Helper()
	c := Must(pgx.ParseConfig(h.Conninfo(h.Nodes[0], task)))(t)
	c.Password = token
	return c
}

// Connect is a pgx connection as a person; change alters the configuration.
func (h *House) Connect(t testing.TB, who, task string, change ...func(*pgx.ConnConfig)) *pgx.Conn {
	t.Helper()
	cfg := h.Config(t, h.DataToken(t, who), task)
	for _, f := range change {
		f(cfg)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		t.Fatalf("%s connects for %s: %v", who, task, err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// State is the SQLSTATE of an error, "" of none, or the error's text.
func State(err error) string {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &pg):
		return pg.Code
	}
	return err.Error()
}

// PgError is the server's error in err; the test ends where there is none.
func PgError(t testing.TB, err error) *pgconn.PgError {
	t.Helper()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		t.Fatalf("no error of the server: %v", err)
	}
	return pg
}

// Run runs a program with these variables beside the usual ones.
func (h *House) Run(t testing.TB, env []string, program string, args ...string) Result {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.Dir, "LC_ALL=C"}, env...)
	return Finish(t, cmd)
}
