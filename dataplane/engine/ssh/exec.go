package ssh

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
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
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if t := s.c.terms.StatementTimeout; t > 0 {
		over := time.AfterFunc(t, func() {
			cancel(s.c.terms.RanTooLong())
		})
		defer over.Stop()
	}
	client, err := s.c.dial(ctx)
	if err != nil {
		return refusedWith(err)
	}
	live, err := client.NewSession()
	if err != nil {
		return refusedWith(noSession(err))
	}
	defer func() { _ = live.Close() }()
	defer s.lives(live)()
	if ctx.Err() != nil { // what comes from here on, the host is told
		return refusedWith(context.Cause(ctx))
	}
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
	p.carry(ctx, cancel)
	status := make(chan error, 1)
	s.c.group.Go("status", func(context.Context) error {
		status <- live.Wait()
		return nil
	})
	select {
	case err := <-status:
		if context.Cause(ctx) == nil {
			return ended(err)
		}
	case <-ctx.Done():
	}
	return refusedWith(context.Cause(ctx))
}

// errGone is the cause where the client has closed the channel, or sent a signal.
var errGone = &postern.Refusal{Code: postern.CodeCancelled, Reason: "ended by the client"}

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
	if err := x.output(engine.Resize, sizeOf(t.Columns, t.Rows)); err != nil {
		return err
	}
	s.auto.Lock()
	defer s.auto.Unlock()
	s.size = func(columns, rows uint32) error {
		_ = live.WindowChange(int(rows), int(columns))
		return x.output(engine.Resize, sizeOf(columns, rows))
	}
	if s.pty.Columns == t.Columns && s.pty.Rows == t.Rows {
		return nil
	}
	return s.size(s.pty.Columns, s.pty.Rows) // it was resized meanwhile
}

// pipe is the three streams of one execution.
type pipe struct {
	s      *channel
	x      *execution
	veils  veils
	told   *told // what the client says; nil where that is not kept
	in     io.WriteCloser
	out    io.Reader
	errout io.Reader
}

func (s *channel) pipes(x *execution, live *ssh.Session) (*pipe, error) {
	p := &pipe{s: s, x: x}
	var err error
	if p.veils.set, err = masks(append([]*postern.Decision{&x.adm.Decision}, s.within...)...); err != nil {
		return nil, err
	}
	if f, ok := x.adm.Analysis.Facts().(*facts.Facts); ok && f.Told() {
		p.told = newTold(x, p.veils.set)
	}
	if p.in, err = live.StdinPipe(); err != nil {
		return nil, err
	}
	if p.out, err = live.StdoutPipe(); err != nil {
		return nil, err
	}
	p.errout, err = live.StderrPipe()
	return p, err
}

// carry copies until the host has closed its streams, or the execution must end: a host
// may keep them open for as long as something of it lives. What the client says is copied
// for as long as it says something; the end of that is no end of the execution.
func (p *pipe) carry(ctx context.Context, cancel context.CancelCauseFunc) {
	stdout, stderr := p.shows(engine.Stdout, p.s.ch), p.shows(engine.Stderr, p.s.ch.Stderr())
	defer p.s.veil(&p.veils)()
	fail := func(err error) {
		if err != nil {
			cancel(err)
		}
	}
	p.s.c.group.Go("stdin", func(context.Context) error {
		defer func() { _ = p.in.Close() }()
		fail(p.copyIn())
		return nil
	})
	var both sync.WaitGroup
	out := func(stream engine.Stream, to *shows, from io.Reader) {
		both.Add(1)
		p.s.c.group.Go(stream.String(), func(context.Context) error {
			defer both.Done()
			fail(to.copy(from))
			return nil
		})
	}
	out(engine.Stdout, stdout, p.out)
	out(engine.Stderr, stderr, p.errout)
	ended := make(chan struct{})
	p.s.c.group.Go("streams", func(context.Context) error {
		both.Wait()
		close(ended)
		return nil
	})
	select {
	case <-ended:
	case <-ctx.Done():
	}
	fail(p.told.end())
}

func (p *pipe) copyIn() error {
	return each(p.s.ch, func(b []byte) error {
		if err := p.x.input(b); err != nil {
			return err
		}
		if err := p.told.write(b); err != nil {
			return err
		}
		if p.s.pty != nil {
			p.veils.typed(b)
		}
		if _, err := p.in.Write(b); err != nil {
			return errOver
		}
		return nil
	})
}

// shows is where one stream of a host is shown.
type shows struct {
	p      *pipe
	stream engine.Stream
	to     io.Writer
	veil   *veil // nil where nothing is masked
}

func (p *pipe) shows(stream engine.Stream, to io.Writer) *shows {
	o := &shows{p: p, stream: stream, to: to}
	o.veil = p.veils.of(o.show)
	return o
}

// copy shows what the host says until it has said all.
func (o *shows) copy(from io.Reader) error {
	if o.veil == nil {
		return each(from, o.show)
	}
	if err := each(from, o.mask); err != nil {
		return err
	}
	return o.veil.end()
}

// mask shows what of it the masks let, and keeps the rest where the task wants that.
func (o *shows) mask(p []byte) error {
	if err := o.p.x.raw(o.stream, p); err != nil {
		return err
	}
	return o.veil.write(p)
}

// show records what the client gets, and then passes it on.
func (o *shows) show(p []byte) error {
	room := o.p.x.room(len(p))
	if err := o.p.x.output(o.stream, p[:room]); err != nil {
		return err
	}
	if _, err := o.to.Write(p[:room]); err != nil {
		return errGone
	}
	if room < len(p) {
		return o.p.s.c.terms.NoMoreBytes()
	}
	return nil
}
