// Package worker runs the PostgreSQL grammar, which is C, in a disposable child: this
// program executed again with nothing in its environment, little memory and a deadline
// a request. A text that kills the child is denied and harms nobody else. What trees
// mean is package postgres' business.
package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/posterngate/postern/pkg/sql"
)

// ErrFault means that the child died, took too long, or answered nonsense. The
// statement is denied; the next one meets a new child.
var ErrFault = errors.New("worker: the parser failed")

// startTimeout bounds how long a child may take to begin.
const startTimeout = 10 * time.Second

// Config bounds a Pool. Zero values mean the defaults.
type Config struct {
	Processes   int           // children; 2
	Deadline    time.Duration // of one request, in time of the processor; 250 ms, and up to five times that for long ones
	MemoryBytes int64         // of one child; 512 MiB
	Logger      *slog.Logger  // what happens to children; discarded where nil
}

// patience is how much longer than its deadline a request may take on the wall's clock: on
// a busy machine a child that has done nothing wrong waits for its turn.
const patience = 20

// deadline gives a microsecond more for each byte.
func (c *Config) deadline(size int) time.Duration {
	return c.Deadline + min(time.Duration(size)*time.Microsecond, 4*c.Deadline)
}

// Pool is a few children. It is safe for concurrent use; a request waits for a child
// that is free.
type Pool struct {
	config Config
	free   chan *child // as many as there are children; each may be dead or not yet started
	closed chan struct{}
}

// New makes a Pool. Children start with the first request, or with Run.
func New(c Config) *Pool {
	if c.Processes <= 0 {
		c.Processes = 2
	}
	if c.Deadline <= 0 {
		c.Deadline = 250 * time.Millisecond
	}
	if c.MemoryBytes <= 0 {
		c.MemoryBytes = 512 << 20
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	p := &Pool{config: c, free: make(chan *child, c.Processes), closed: make(chan struct{})}
	for range c.Processes {
		p.free <- &child{}
	}
	return p
}

// Run starts the children and ends them when ctx is done. It may be called once.
func (p *Pool) Run(ctx context.Context) error {
	for range p.config.Processes {
		c, err := p.take(ctx)
		if err != nil {
			break
		}
		if err := c.start(p.config); err != nil {
			p.config.Logger.Error("cannot start parser", "error", err)
		}
		p.free <- c
	}
	<-ctx.Done()
	close(p.closed)
	for range p.config.Processes {
		(<-p.free).stop()
	}
	return ctx.Err()
}

// Parse reads a text and returns its tree, a serialised pg_query ParseResult. A text
// that is not in the grammar gives a *sql.SyntaxError, a broken child an error that is
// ErrFault.
func (p *Pool) Parse(ctx context.Context, text string) ([]byte, error) {
	if err := guard(text); err != nil {
		return nil, err
	}
	return ask(ctx, p, opParse, text)
}

// Deparse writes a tree as text, having made sure that the text reads as that very tree.
func (p *Pool) Deparse(ctx context.Context, tree []byte) (string, error) {
	b, err := ask(ctx, p, opDeparse, tree)
	return string(b), err
}

func (p *Pool) take(ctx context.Context) (*child, error) {
	select {
	case <-p.closed:
		return nil, fmt.Errorf("%w: it has been stopped", ErrFault)
	default:
	}
	select {
	case c := <-p.free:
		return c, nil
	case <-p.closed:
		return nil, fmt.Errorf("%w: it has been stopped", ErrFault)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func ask[T []byte | string](ctx context.Context, p *Pool, op byte, body T) ([]byte, error) {
	if len(body) > maxFrame {
		return nil, &sql.SyntaxError{Message: "statement is too large"}
	}
	c, err := p.take(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { p.free <- c }()
	if err := c.start(p.config); err != nil {
		p.config.Logger.Error("cannot start parser", "error", err)
		return nil, fmt.Errorf("%w: start: %w", ErrFault, err)
	}
	kind, answer, err := exchange(c, op, body, p.config.deadline(len(body)))
	if err == nil {
		switch kind {
		case opOK:
			return append([]byte(nil), answer...), nil
		case opSyntax:
			if len(answer) >= 4 {
				return nil, &sql.SyntaxError{Message: string(answer[4:]), Position: int(binary.BigEndian.Uint32(answer))}
			}
			err = errors.New("short answer")
		case opFailed:
			return nil, fmt.Errorf("%w: %s", ErrFault, answer)
		default:
			err = fmt.Errorf("unknown answer %q", kind)
		}
	}
	state := c.stop()
	p.config.Logger.Warn("parser failed and was ended", "error", err, "state", state, "bytes", len(body))
	return nil, fmt.Errorf("%w: %w", ErrFault, err)
}

// child is one process and its pipes. It is used by one goroutine at a time. The zero
// child has not been started.
type child struct {
	cmd     *exec.Cmd
	in, out *os.File
	buf     []byte // for requests, then for answers
}

func exchange[T []byte | string](c *child, op byte, body T, deadline time.Duration) (byte, []byte, error) {
	w, err := watch(c, deadline)
	if err != nil {
		return 0, nil, err
	}
	if cap(c.buf) > 4<<20 {
		c.buf = nil
	}
	if err := writeFrame(w, &c.buf, op, body); err != nil {
		return 0, nil, err
	}
	return readFrame(w, &c.buf)
}

// A watched child is written to and read from until it has used up its time.
type watched struct {
	*child
	until time.Duration // of the child's processor time
	last  time.Time     // on the wall's clock
}

func watch(c *child, deadline time.Duration) (*watched, error) {
	used, err := processorTime(c.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	w := &watched{child: c, until: used + deadline, last: time.Now().Add(patience * deadline)}
	return w, w.wait(deadline)
}

// wait lets the pipes wait a while longer.
func (w *watched) wait(d time.Duration) error {
	t := time.Now().Add(max(d, time.Millisecond))
	if t.After(w.last) {
		t = w.last
	}
	if err := w.in.SetWriteDeadline(t); err != nil {
		return err
	}
	return w.out.SetReadDeadline(t)
}

// more waits again, if a pipe's deadline has passed and the child's own has not.
func (w *watched) more(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) || !time.Now().Before(w.last) {
		return false
	}
	used, err := processorTime(w.cmd.Process.Pid)
	return err == nil && used < w.until && w.wait(w.until-used) == nil
}

func (w *watched) Write(b []byte) (n int, err error) {
	for {
		m, err := w.in.Write(b[n:])
		if n += m; err == nil || !w.more(err) {
			return n, err
		}
	}
}

func (w *watched) Read(b []byte) (int, error) {
	for {
		if n, err := w.out.Read(b); n > 0 || !w.more(err) {
			return n, err
		}
	}
}

// start makes the child run, unless it does.
func (c *child) start(config Config) (err error) {
	if c.cmd != nil {
		return nil
	}
	program, err := self()
	if err != nil {
		return err
	}
	childIn, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer childIn.Close()
	out, childOut, err := os.Pipe()
	if err != nil {
		in.Close()
		return err
	}
	defer childOut.Close()
	cmd := exec.Command(program)
	cmd.Args = []string{"postern-parser"}
	cmd.Env = []string{marker + "=" + strconv.FormatInt(config.MemoryBytes, 10)}
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout = childIn, childOut
	attend(cmd)
	if err := cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return err
	}
	c.cmd, c.in, c.out = cmd, in, out
	if err := out.SetReadDeadline(time.Now().Add(startTimeout)); err == nil {
		var op byte
		if op, _, err = readFrame(out, &c.buf); err == nil && op == opReady {
			return nil
		}
	}
	return fmt.Errorf("the child did not begin: %s", c.stop())
}

// stop ends the child and says how it ended.
func (c *child) stop() string {
	if c.cmd == nil {
		return ""
	}
	cmd := c.cmd
	c.in.Close()
	c.out.Close()
	*c = child{}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err.Error()
	}
	if err := cmd.Wait(); err != nil {
		return err.Error()
	}
	return "exit status 0"
}
