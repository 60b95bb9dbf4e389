package ssh

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"github.com/posterngate/postern/pkg/postern"
)

// guard is a prompt of the gateway for tasks that allow commands and no shell: each line
// is judged, held or refused as a command is, and run as one. A refused line costs
// nothing but itself.
func (s *channel) guard(ctx context.Context, in *postern.Decision) outcome {
	if s.pty == nil {
		return refusedWith(&postern.Refusal{Reason: "a guarded shell needs a terminal", Hint: "ssh -t, or name the command"})
	}
	k := &keys{ch: s.ch}
	prompt := string(s.c.terms.Resource) + "> "
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{k.reader(), s.ch}, prompt)
	s.auto.Lock()
	s.size = func(width, height int) {
		if width > 0 && height > 0 { // a client without a terminal of its own says 0
			_ = t.SetSize(width, height)
		}
	}
	s.size(int(s.pty.Columns), int(s.pty.Rows))
	s.auto.Unlock()
	s.c.group.Go("keys", func(context.Context) error { k.pump(); return nil })
	if _, err := t.Write([]byte("postern: each line is judged by task " + string(s.c.terms.Task) + "; exit leaves\n")); err != nil {
		return outcome{}
	}
	for {
		line, err := t.ReadLine()
		switch line = strings.TrimSpace(line); {
		case err != nil:
			return outcome{} // the client has left
		case line == "":
			continue
		case line == "exit" || line == "logout":
			return outcome{}
		}
		if err := s.guarded(ctx, t, k, line, in); err != nil {
			return refusedWith(err)
		}
	}
}

// guarded runs one line. An error ends the shell.
func (s *channel) guarded(ctx context.Context, t *term.Terminal, k *keys, line string, in *postern.Decision) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k.during(cancel)
	defer k.during(nil)
	x, err := s.c.admit(ctx, command(line, false), func(text string) {
		_, _ = t.Write([]byte("postern: " + printable(text) + "\n"))
	})
	if err != nil {
		r := s.c.refused(err)
		if fatal(r) {
			return r
		}
		_, err := t.Write([]byte(say(r)))
		return err
	}
	o := s.output(ctx, x, t, in)
	if err := x.done(o.outcome()); err != nil {
		return err
	}
	if o.err != nil {
		if r := s.c.refused(o.err); !errors.Is(o.err, errGone) {
			_, err = t.Write([]byte(say(r)))
		}
	} else if o.status != 0 || o.signal != nil {
		_, err = t.Write([]byte("(" + o.tag() + ")\n"))
	}
	return err
}

// output runs an admitted line without a terminal at the host and shows what it says.
func (s *channel) output(ctx context.Context, x *execution, t *term.Terminal, in *postern.Decision) outcome {
	shown := &channel{c: s.c, ch: &shown{Channel: s.ch, t: t}, env: s.env, within: []*postern.Decision{in}}
	return shown.run(ctx, x, func(live *ssh.Session) error { return live.Start(x.adm.Forward) })
}

// shown is a channel whose output goes through the line editor and whose input is
// closed: a command of a guarded shell reads nothing.
type shown struct {
	ssh.Channel
	t *term.Terminal
}

func (v *shown) Read([]byte) (int, error)    { return 0, io.EOF }
func (v *shown) Write(p []byte) (int, error) { return v.t.Write(p) }
func (v *shown) Stderr() io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{strings.NewReader(""), v.t}
}

// keys are what a person types: for the line editor, or, while a line runs, Ctrl-C.
type keys struct {
	ch  ssh.Channel
	in  *io.PipeReader
	out *io.PipeWriter

	mu        sync.Mutex
	interrupt func() // of the line that runs; nil while none does
}

func (k *keys) reader() io.Reader {
	k.in, k.out = io.Pipe()
	return k.in
}

// during sends keys to the line that runs; nil sends them to the editor again.
func (k *keys) during(interrupt func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.interrupt = interrupt
}

const ctrlC = 3

func (k *keys) pump() {
	defer func() { _ = k.out.Close() }()
	b := make([]byte, 1<<10)
	for {
		n, err := k.ch.Read(b)
		if n > 0 {
			k.mu.Lock()
			interrupt := k.interrupt
			k.mu.Unlock()
			if interrupt == nil {
				if _, err := k.out.Write(b[:n]); err != nil {
					return
				}
			} else if strings.IndexByte(string(b[:n]), ctrlC) >= 0 {
				interrupt()
			}
		}
		if err != nil {
			return
		}
	}
}
