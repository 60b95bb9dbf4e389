package ssh

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
)

// guard is a prompt of the gateway for tasks that allow commands and no shell: each line
// is judged, held or refused as a command is, and run as one. A refused line costs
// nothing but itself.
func (s *channel) guard(ctx context.Context, in *execution) outcome {
	if s.pty == nil {
		return refusedWith(&postern.Refusal{Reason: "a guarded shell needs a terminal", Hint: "ssh -t, or name the command"})
	}
	k := typing(s.ch)
	defer k.leave()
	prompt := string(s.c.terms.Resource) + "> "
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{k, s.ch}, prompt)
	if err := s.shownBy(t, in); err != nil {
		return refusedWith(err)
	}
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
		if err := s.guarded(ctx, t, k, line, &in.adm.Decision); err != nil {
			return refusedWith(err)
		}
	}
}

// shownBy has the line editor told of the terminal's size, now and whenever it changes.
func (s *channel) shownBy(t *term.Terminal, x *execution) error {
	s.auto.Lock()
	defer s.auto.Unlock()
	s.size = func(columns, rows uint32) error {
		if columns > 0 && rows > 0 { // a client without a terminal of its own says 0
			_ = t.SetSize(int(columns), int(rows))
		}
		return x.output(engine.Resize, sizeOf(columns, rows))
	}
	return s.size(s.pty.Columns, s.pty.Rows)
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

// typedAhead bounds, in bytes, what is kept of what a person types before it is read, as
// a terminal's line discipline does (N_TTY_BUF_SIZE of Linux).
const typedAhead = 4 << 10

// keys are what a person types, for the line editor. What comes while a line runs is kept
// for the next one, as at any terminal; Ctrl-C ends the line that runs and drops it, or drops
// the one that is typed.
type keys struct {
	ch ssh.Channel

	mu        sync.Mutex
	changed   sync.Cond // over mu: typed, ended or left did
	typed     []byte    // at most typedAhead bytes
	ended     bool      // the client types no more
	left      bool      // nobody reads any more
	interrupt func()    // of the line that runs; nil while none does
}

func typing(ch ssh.Channel) *keys {
	k := &keys{ch: ch}
	k.changed.L = &k.mu
	return k
}

// Read gives the editor what was typed, and waits for it.
func (k *keys) Read(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.typed) == 0 && !k.ended {
		k.changed.Wait()
	}
	if len(k.typed) == 0 {
		return 0, io.EOF
	}
	n := copy(p, k.typed)
	for i := range p[:n] {
		if p[i] == ctrlC {
			p[i] = ctrlU // the line goes, and not the shell
		}
	}
	k.typed = append(k.typed[:0], k.typed[n:]...)
	k.changed.Broadcast()
	return n, nil
}

// during says what Ctrl-C ends while a line runs; nil when it has ended.
func (k *keys) during(interrupt func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.interrupt = interrupt
	k.changed.Broadcast() // what waits for room may hold a Ctrl-C
}

// leave lets pump end: the editor reads no more.
func (k *keys) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left = true
	k.changed.Broadcast()
}

const (
	ctrlC = 3
	ctrlU = 21 // the editor drops what stands before the cursor
)

// pump reads the channel until the client has typed its last or the editor is gone.
func (k *keys) pump() {
	b := make([]byte, 1<<10)
	for {
		n, err := k.ch.Read(b)
		if !k.keep(b[:n], err != nil) {
			return
		}
	}
}

// keep takes what was typed, and says whether there is more to wait for. While a line
// runs it takes what there is room for, since a Ctrl-C may follow; otherwise it waits for
// the editor.
func (k *keys) keep(p []byte, last bool) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(p) > 0 && !k.left {
		if k.interrupt != nil {
			if i := bytes.LastIndexByte(p, ctrlC); i >= 0 {
				k.interrupt()
				k.typed, p = k.typed[:0], p[i+1:]
			}
		}
		n := min(len(p), typedAhead-len(k.typed))
		k.typed, p = append(k.typed, p[:n]...), p[n:]
		k.changed.Broadcast()
		if len(p) > 0 {
			if k.interrupt != nil {
				break
			}
			k.changed.Wait()
		}
	}
	k.ended = k.ended || last
	k.changed.Broadcast()
	return !k.ended && !k.left
}
