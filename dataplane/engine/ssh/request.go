package ssh

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

// analysis is one understood request.
type analysis struct {
	facts *ssh.Facts
	said  string
}

var _ engine.Analysis = (*analysis)(nil)

func (a *analysis) Facts() any { return a.facts }

// Plain is false for commands: shells differ in what they read into a client's words.
func (a *analysis) Plain() bool { return a.facts.Line == nil }

func (a *analysis) Canonical() string {
	if a.facts.Line == nil {
		return a.said
	}
	return a.facts.Line.String()
}

func (a *analysis) Rewrite(obligations []postern.Obligation) (string, error) {
	if a.facts.Line == nil {
		return "", errors.New("there is no command in it")
	}
	for _, o := range obligations {
		if o.Table != nil {
			return "", errors.New("it has no tables")
		}
		if o.Programs != nil {
			if len(o.Programs) != len(a.facts.Line.Commands()) {
				return "", errors.New("not every command is accounted for")
			}
			return a.facts.Line.With(o.Programs), nil
		}
	}
	return a.Canonical(), nil
}

// statement makes the Statement of a request. What it is about is in text; a terminal
// changes what is allowed, and so does where the account is at home: both are part of the context.
func statement(f *ssh.Facts, text string) *engine.Statement {
	where := string(f.Verb)
	if f.Terminal {
		where += " on a terminal"
	}
	where += f.Home
	return &engine.Statement{
		Text: text, Context: where, Meets: meets,
		Analyse: func(context.Context) (engine.Analysis, error) { return &analysis{f, text}, nil },
	}
}

// command makes the Statement of a command line.
func command(line string, terminal bool) *engine.Statement {
	f := &ssh.Facts{Verb: ssh.Exec, Terminal: terminal}
	var err error
	if f.Line, err = shell.Parse(line); err != nil {
		f.Unknown = strings.TrimPrefix(err.Error(), "the command line is not understood: ")
	}
	return statement(f, line)
}

// maxJudged is how often one execution is judged anew because policy changed under it.
const maxJudged = 3

// An execution is one admitted request: its Admission, and the way back. Its flow is
// guarded, since two streams come back at once.
type execution struct {
	c      *conn
	adm    *engine.Admission
	waited bool // for people

	mu    sync.Mutex
	flow  engine.Flow
	bytes int64 // to the client
	sent  int64 // to the host
	aside int64 // of the bytes to the client, set aside and not reported yet
	over  bool  // what still comes is of nobody
}

// admit judges a request and has it admitted, waiting for people where they must say
// yes. progress tells the client how that stands. The error is a *postern.Refusal.
func (c *conn) admit(ctx context.Context, st *engine.Statement, progress func(string)) (*execution, error) {
	c.active.mark()
	if err := c.letIn(ctx, progress); err != nil {
		return nil, c.refused(err)
	}
	x := &execution{c: c}
	var err error
	for range maxJudged {
		pctx, cancel := context.WithTimeout(ctx, c.e.limits.Prepare)
		x.adm, err = c.s.Prepare(pctx, st)
		cancel()
		if err != nil {
			return nil, c.refused(err)
		}
		err = c.s.Admit(x.adm, engine.Args{}, &x.flow)
		if errors.Is(err, engine.ErrHold) {
			x.waited = true
			done := c.active.wait()
			err = c.s.Await(ctx, x.adm, engine.Args{}, progress)
			done()
			if err != nil {
				return nil, c.refused(err)
			}
			err = c.s.Admit(x.adm, engine.Args{}, &x.flow)
		}
		if !errors.Is(err, engine.ErrStale) && !errors.Is(err, engine.ErrHold) {
			break
		}
	}
	switch {
	case errors.Is(err, engine.ErrStale), errors.Is(err, engine.ErrHold):
		return nil, &postern.Refusal{Code: postern.CodeStale, Reason: "policy keeps changing", Hint: "try again"}
	case err != nil:
		return nil, c.refused(err)
	}
	return x, nil
}

// letIn waits, before the first request, for people to let the session in where they
// must. All requests that wait get the one answer, each until its client gives it up.
func (c *conn) letIn(ctx context.Context, progress func(string)) error {
	w, ok := c.s.(engine.Waiter)
	if !c.terms.Hold {
		return nil
	}
	if !ok {
		return errors.New("ssh: a session that nobody can be let into")
	}
	known := c.answers.Load()
	select {
	case c.letting <- struct{}{}:
	case <-ctx.Done():
		return errGone
	}
	defer func() { <-c.letting }()
	if c.let || c.answers.Load() != known {
		return c.notLet
	}
	defer c.active.wait()()
	err := w.AwaitSession(ctx, progress)
	if err == nil || ctx.Err() == nil { // else it is the answer to who gave up alone
		c.let, c.notLet = err == nil, err
		c.answers.Add(1)
	}
	return err
}

// refused is an error as a refusal.
func (c *conn) refused(err error) *postern.Refusal {
	r := postern.AsRefusal(err)
	if r.Cause != nil {
		c.log.Debug("request refused", "error", r.Cause)
	}
	return r
}

// duties are what the admission asks of the engine beside the words that are sent.
func (x *execution) duties() (env []string, guard bool) {
	for _, o := range x.adm.Decision.Obligations {
		env = append(env, o.Env...)
		guard = guard || o.Guard
	}
	return env, guard
}

// room sets aside how many of n bytes may go to the client: fewer once the limit is reached.
// They are then reported, or given back.
func (x *execution) room(n int) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return 0
	}
	_, room := x.flow.Room(0, x.aside+int64(n))
	n = int(min(max(room-x.aside, 0), int64(n)))
	x.aside += int64(n)
	return n
}

// give takes back n bytes that were set aside and did not come.
func (x *execution) give(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.aside -= int64(n)
}

// output reports what the host said.
func (x *execution) output(s engine.Stream, p []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return errGone
	}
	x.c.active.mark()
	if s.Said() {
		x.bytes += int64(len(p))
		x.aside -= int64(len(p))
	}
	for part := range slices.Chunk(p, packet) {
		if err := x.flow.Output(s, part); err != nil {
			return err
		}
	}
	return nil
}

// raw reports what the host said as it was before its masks, where that is kept.
func (x *execution) raw(s engine.Stream, p []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over || !x.flow.KeepsRaw() {
		return nil
	}
	return x.flow.RawOutput(s, p)
}

// input reports what the client sent; it is counted and not kept.
func (x *execution) input(p []byte) error { return x.count(engine.ToTarget, p) }

// count reports bytes that are not kept.
func (x *execution) count(d engine.Direction, p []byte) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return errGone
	}
	x.c.active.mark()
	if d == engine.ToClient {
		x.bytes += int64(len(p))
		x.aside -= int64(len(p))
	} else {
		x.sent += int64(len(p))
	}
	return x.flow.Chunk(d, p)
}

// counted says how much went each way.
func (x *execution) counted() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return fmt.Sprintf("sent %d bytes, received %d", x.sent, x.bytes)
}

// done ends the execution. An error means that the end could not be recorded.
func (x *execution) done(o engine.Outcome) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
	o.Affected = -1
	return x.flow.Done(o)
}
