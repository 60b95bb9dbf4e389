package ssh

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

type stmt = *engine.Statement

// outcome is what the record is told.
func (o outcome) outcome() engine.Outcome {
	out := engine.Outcome{Tag: o.tag()}
	if o.err != nil {
		r := postern.AsRefusal(o.err)
		out.Code, out.Message = r.Code.String(), r.Reason
	}
	return out
}

// run opens a session at the host, starts what was admitted there, and carries bytes
// until it ends.
func (s *channel) run(ctx context.Context, x *execution, start func(*ssh.Session) error) outcome {
	client, err := s.c.dial(ctx)
	if err != nil {
		return refusedWith(err)
	}
	live, err := client.NewSession()
	if err != nil {
		return refusedWith(&postern.Refusal{Code: postern.CodeUnavailable, Reason: "the host takes no more sessions", Cause: err})
	}
	defer func() { _ = live.Close() }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if t := s.c.terms.StatementTimeout; t > 0 {
		over := time.AfterFunc(t, func() {
			cancel(&postern.Refusal{Code: postern.CodeCancelled, Reason: "it ran for longer than the task allows", Rule: string(s.c.terms.Task) + "/limits"})
		})
		defer over.Stop()
	}
	defer s.begin(live, func() { cancel(errGone) })()
	p, err := s.pipes(x, live)
	if err != nil {
		return refusedWith(err)
	}
	if err := s.prepare(x, live); err != nil {
		return refusedWith(err)
	}
	if err := start(live); err != nil {
		return ended(err)
	}
	// Closing the host's side is what ends the streams when time or the client says so.
	stop := context.AfterFunc(ctx, func() { _ = live.Close() })
	defer stop()
	err = errors.Join(p.carry(ctx, cancel), nil)
	if err == nil {
		err = live.Wait()
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return refusedWith(cause)
	}
	return ended(err)
}

// errGone is the cause where the client has closed the channel.
var errGone = &postern.Refusal{Code: postern.CodeCancelled, Reason: "the client has closed the channel"}

// prepare gives the host's session what the client asked for and the task allows.
func (s *channel) prepare(x *execution, live *ssh.Session) error {
	allowed, _ := x.duties()
	for _, v := range s.env {
		if slices.Contains(allowed, v[0]) || s.c.terms.Own {
			_ = live.Setenv(v[0], v[1]) // the host may refuse it, as it does without us
		}
	}
	if s.pty == nil {
		return nil
	}
	s.auto.Lock()
	t := *s.pty
	s.auto.Unlock()
	modes, err := decodeModes(t.Modes)
	if err == nil {
		err = live.RequestPty(t.Term, int(t.Rows), int(t.Columns), modes)
	}
	if err != nil {
		return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the host gives no terminal", Cause: err}
	}
	return x.output(engine.Resize, sizeOf(t.Columns, t.Rows))
}

// pipe is the three streams of one execution.
type pipe struct {
	s      *channel
	x      *execution
	in     io.WriteCloser
	out    io.Reader
	errout io.Reader
}

func (s *channel) pipes(x *execution, live *ssh.Session) (*pipe, error) {
	p := &pipe{s: s, x: x}
	var err error
	if p.in, err = live.StdinPipe(); err != nil {
		return nil, err
	}
	if p.out, err = live.StdoutPipe(); err != nil {
		return nil, err
	}
	p.errout, err = live.StderrPipe()
	return p, err
}

// carry copies until the host has closed its streams. What the client says is copied for
// as long as it says something; the end of that is no end of the execution.
func (p *pipe) carry(ctx context.Context, cancel context.CancelCauseFunc) error {
	g := run.New(ctx)
	input := run.New(ctx)
	input.Go("stdin", func(context.Context) error {
		defer func() { _ = p.in.Close() }()
		return p.copyIn()
	})
	fail := func(err error) {
		var r *postern.Refusal
		if errors.As(err, &r) {
			cancel(r)
		}
	}
	g.Go("stdout", func(context.Context) error { fail(p.copyOut(engine.Stdout, p.s.ch, p.out)); return nil })
	g.Go("stderr", func(context.Context) error { fail(p.copyOut(engine.Stderr, p.s.ch.Stderr(), p.errout)); return nil })
	err := g.Wait()
	// The input's reader waits for the client, which may never say more: closing our
	// side of the channel, once the outcome is told, ends it.
	p.s.c.group.Go("stdin", func(context.Context) error { return ignore(input.Wait()) })
	return err
}

func ignore(error) error { return nil }

// buffers are what streams are copied through: as large as a packet may be.
var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

func (p *pipe) copyIn() error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := p.s.ch.Read(*b)
		if n > 0 {
			if err := p.x.input((*b)[:n]); err != nil {
				return err
			}
			if _, err := p.in.Write((*b)[:n]); err != nil {
				return nil
			}
		}
		if err != nil {
			return nil
		}
	}
}

// copyOut records what the host says, and then passes it on.
func (p *pipe) copyOut(stream engine.Stream, to io.Writer, from io.Reader) error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		n, err := from.Read(*b)
		if n > 0 {
			room := p.x.room(n)
			if err := p.x.output(stream, (*b)[:room]); err != nil {
				return err
			}
			if _, err := to.Write((*b)[:room]); err != nil {
				return errGone
			}
			if room < n {
				return limitReached(p.s.c)
			}
		}
		if err != nil {
			return nil
		}
	}
}
