package ssh

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/posterngate/postern/pkg/postern"
	facts "github.com/posterngate/postern/pkg/ssh"
)

// A channel is one session channel of the client: one command, shell or subsystem.
type channel struct {
	c  *conn
	ch ssh.Channel

	env  [][2]string
	pty  *terminal
	auto sync.Mutex // guards what follows
	live *ssh.Session
	stop func()                           // of what runs, or waits for people
	size func(columns, rows uint32) error // records a size, and tells who shows the terminal; nil while nobody does
	mask *veils                           // of what runs

	within []*postern.Decision // what else says how this is masked: the guarded shell it is in
}

// terminal is what the client said of its terminal (RFC 4254, 6.2).
type terminal struct {
	Term                        string
	Columns, Rows, Width, Pixel uint32
	Modes                       string
}

// serveSession carries one session channel from its opening to its end.
func (c *conn) serveSession(ctx context.Context, nc ssh.NewChannel) {
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	defer func() { _ = ch.Close() }()
	s := &channel{c: c, ch: ch}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var begun bool
	var command sync.WaitGroup
	for r := range requests {
		c.active.mark()
		run, ok := s.request(r, begun)
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
		if run == nil {
			continue
		}
		begun = true
		remove := c.speak.add(ch.Stderr(), s.pty != nil)
		command.Add(1)
		asked, stop := context.WithCancelCause(ctx)
		s.ends(func() { stop(errGone) })
		c.group.Go("command", func(context.Context) error {
			defer command.Done()
			defer stop(nil)
			defer s.ends(nil)
			defer remove()
			defer func() { _ = ch.Close() }()
			run(asked)
			return nil
		})
	}
	// The client has closed the channel: what ran for it ends, what waited gives up.
	// Until it has, the channel counts as open.
	cancel()
	command.Wait()
}

// request deals with one request of the channel. It returns what is to be run where the
// request begins something, and whether the request is taken.
func (s *channel) request(r *ssh.Request, begun bool) (run func(context.Context), ok bool) {
	limit := s.c.e.limits.Text
	if len(r.Payload) > limit {
		if r.Type != "exec" || begun {
			return nil, false
		}
		return func(context.Context) { s.unread(r.Payload[4:]) }, true
	}
	switch r.Type {
	case "env":
		var v struct{ Name, Value string }
		if begun || ssh.Unmarshal(r.Payload, &v) != nil || len(s.env) == s.c.e.limits.Requests {
			return nil, false
		}
		s.env = append(s.env, [2]string{v.Name, v.Value})
		return nil, true // whether it is used, the task says
	case "pty-req":
		var t terminal
		if begun || ssh.Unmarshal(r.Payload, &t) != nil {
			return nil, false
		}
		s.pty = &t
		return nil, true
	case "window-change":
		var w struct{ Columns, Rows, Width, Height uint32 }
		if s.pty == nil || ssh.Unmarshal(r.Payload, &w) != nil {
			return nil, false
		}
		s.resize(w.Columns, w.Rows)
		return nil, true
	case "signal":
		var v struct{ Signal string }
		if ssh.Unmarshal(r.Payload, &v) != nil {
			return nil, false
		}
		return nil, s.signal(ssh.Signal(v.Signal))
	case "exec":
		var v struct{ Command string }
		if begun || ssh.Unmarshal(r.Payload, &v) != nil {
			return nil, false
		}
		if run := s.copying(v.Command); run != nil {
			return run, true
		}
		return func(ctx context.Context) { s.exec(ctx, v.Command) }, true
	case "shell":
		if begun || len(r.Payload) > 0 {
			return nil, false
		}
		return s.shell, true
	case "subsystem":
		var v struct{ Name string }
		if begun || ssh.Unmarshal(r.Payload, &v) != nil || v.Name != "sftp" {
			return nil, false
		}
		return s.files, true
	}
	return nil, false // agents, displays and what nobody knows
}

// ends notes what a signal does to what the channel is for, as long as the host does not run it:
// from when it is asked for, since a signal that comes while it is judged must not be lost.
func (s *channel) ends(stop func()) {
	s.auto.Lock()
	defer s.auto.Unlock()
	s.stop = stop
}

// lives notes the host's session of what runs, so that signals and sizes reach it.
func (s *channel) lives(live *ssh.Session) (end func()) {
	s.auto.Lock()
	defer s.auto.Unlock()
	s.live = live
	return func() {
		s.auto.Lock()
		defer s.auto.Unlock()
		s.live = nil
	}
}

func (s *channel) signal(sig ssh.Signal) bool {
	s.auto.Lock()
	defer s.auto.Unlock()
	if s.live == nil {
		if s.stop != nil && (sig == ssh.SIGINT || sig == ssh.SIGTERM || sig == ssh.SIGHUP) {
			s.stop() // it waits for people, or for the host, and gives up
		}
		return s.stop != nil
	}
	err := s.live.Signal(sig)
	if stop := s.stop; stop != nil && (sig == ssh.SIGINT || sig == ssh.SIGTERM || sig == ssh.SIGKILL || sig == ssh.SIGHUP) {
		// Many servers pass no signals on; what should end does so all the same.
		time.AfterFunc(signalGrace, stop)
	}
	return err == nil
}

// signalGrace is how long something may take to end after a signal.
const signalGrace = time.Second

// resize notes the terminal's new size, and tells who shows it.
func (s *channel) resize(columns, rows uint32) {
	if err := s.resized(columns, rows); err != nil && !errors.Is(err, errGone) {
		s.c.end(err)
	}
}

func (s *channel) resized(columns, rows uint32) error {
	s.auto.Lock()
	defer s.auto.Unlock()
	if s.pty.Columns == columns && s.pty.Rows == rows {
		return nil
	}
	s.pty.Columns, s.pty.Rows = columns, rows
	if s.mask != nil {
		s.mask.resize(columns)
	}
	if s.size == nil {
		return nil
	}
	return s.size(columns, rows)
}

// veil notes what masks that which runs, so that sizes reach it.
func (s *channel) veil(v *veils) (end func()) {
	s.auto.Lock()
	defer s.auto.Unlock()
	if s.mask = v; s.pty != nil {
		v.resize(s.pty.Columns)
	}
	return func() {
		s.auto.Lock()
		defer s.auto.Unlock()
		s.mask = nil
	}
}

// notice tells the client something while it waits.
func (s *channel) notice(text string) {
	_, _ = s.ch.Stderr().Write(lines("postern: "+printable(text)+"\n", s.pty != nil))
}

// refuse says why something did not run, and ends the channel.
func (s *channel) refuse(err error) {
	r := s.c.refused(err)
	if fatal(r) {
		s.c.end(r)
		return
	}
	_, _ = s.ch.Stderr().Write(lines(say(r), s.pty != nil))
	s.exit(exitRefused)
}

func (s *channel) exit(status uint32) {
	_, _ = s.ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

// exec judges and runs a command line.
func (s *channel) exec(ctx context.Context, line string) {
	x, err := s.admit(ctx, command(line, s.pty != nil))
	if err != nil {
		s.refuse(err)
		return
	}
	s.report(x, s.run(ctx, x, func(live *ssh.Session) error { return live.Start(x.adm.Forward) }))
}

// unread refuses a command line that is too long to be judged.
func (s *channel) unread(line []byte) {
	why := &postern.Refusal{
		Reason: fmt.Sprintf("the command line has %d bytes, and not more than %d are judged", len(line), s.c.e.limits.Text-4),
		Hint:   "send what is long as a file, or to the command's input",
	}
	sum := sha256.Sum256(line)
	if err := s.c.s.Unread(int64(len(line)), sum[:], why); err != nil {
		s.refuse(err)
		return
	}
	s.refuse(why)
}

// shell judges the wish to work interactively, and gives the host's shell or the guarded
// one.
func (s *channel) shell(ctx context.Context) {
	x, err := s.admit(ctx, statement(&facts.Facts{Verb: facts.Shell, Terminal: s.pty != nil}, "shell"))
	if err != nil {
		s.refuse(err)
		return
	}
	if _, guard := x.duties(); guard {
		s.ends(nil) // it has keys for that
		s.report(x, s.guard(ctx, x))
		return
	}
	s.report(x, s.run(ctx, x, func(live *ssh.Session) error { return live.Shell() }))
}

// admit has a request of the channel admitted. A client that goes away gives up.
func (s *channel) admit(ctx context.Context, st stmt) (*execution, error) {
	return s.c.admit(ctx, st, s.notice)
}

// outcome is how something ended, as the client is told.
type outcome struct {
	status uint32
	signal *ssh.ExitError // set where a signal ended it
	said   string         // how it ended, where that is neither
	err    error          // a refusal of ours, or a lost connection
}

// report tells the client and the record how an execution ended.
func (s *channel) report(x *execution, o outcome) {
	end := o.outcome()
	if err := x.done(end); err != nil {
		s.c.end(err)
		return
	}
	s.told(o)
}

func (s *channel) told(o outcome) {
	switch {
	case o.err != nil:
		s.refuse(o.err)
	case o.signal != nil:
		_, _ = s.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Signal  string
			Core    bool
			Message string
			Lang    string
		}{o.signal.Signal(), false, printable(o.signal.Msg()), ""}))
	default:
		s.exit(o.status)
	}
}

// refusedWith makes the outcome of something that was ended by us.
func refusedWith(err error) outcome { return outcome{err: err} }

// ended reads how the host says that it ended.
func ended(err error) outcome {
	var exit *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case err == nil:
		return outcome{}
	case errors.As(err, &exit) && exit.Signal() != "":
		return outcome{signal: exit}
	case errors.As(err, &exit):
		return outcome{status: uint32(exit.ExitStatus())} //nolint:gosec // it came as one
	case errors.As(err, &missing):
		return outcome{err: &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the host ended it without saying how"}}
	}
	return outcome{err: &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the host could not run it", Cause: err}}
}

// tag is the outcome for the record.
func (o outcome) tag() string {
	switch {
	case o.err != nil:
		return ""
	case o.said != "":
		return o.said
	case o.signal != nil:
		return "signal " + strings.TrimPrefix(o.signal.Signal(), "SIG")
	}
	return fmt.Sprintf("exit %d", o.status)
}
