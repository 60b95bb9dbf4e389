package enginetest

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/mcp"
	"github.com/posterngate/postern/pkg/postern"
)

// A Session writes down what an engine asks. It implements engine.Session and
// engine.Waiter.
type Session struct {
	door  *Door
	id    postern.SessionID
	terms engine.Terms
	ctx   context.Context
	end   context.CancelCauseFunc

	mu       sync.Mutex
	prepared []string
	admitted []Execution
	notes    []string
	reached  []error
	conns    []*tap
	approved bool
	why      error
	closed   chan struct{}
}

var (
	_ engine.Session = (*Session)(nil)
	_ engine.Waiter  = (*Session)(nil)
	_ engine.Reuser  = (*Session)(nil)
)

// An Execution is one admission and what became of it.
type Execution struct {
	Text    string
	Params  []string
	Beside  []string // what is recorded with them
	Rows    int64    // as told
	Data    []byte   // of the rows, as told, up to 64 KiB
	Raw     []byte   // of what was masked, as it was before that, up to 64 KiB
	Asked   []byte   // of what the client said, as told, up to 64 KiB
	Chunks  int64    // bytes, both ways
	Sizes   []string // of the terminal, as told
	Columns []engine.ResultColumn
	Outcome engine.Outcome
	Done    int // how often Done was called
}

// ID names the session.
func (s *Session) ID() postern.SessionID { return s.id }

// Terms are those of the Door when the session was opened.
func (s *Session) Terms() *engine.Terms { return &s.terms }

// Context ends with Kill.
func (s *Session) Context() context.Context { return s.ctx }

// Kill ends the session for a cause.
func (s *Session) Kill(r *postern.Refusal) { s.end(r) }

// Executions are the admissions so far.
func (s *Session) Executions() []Execution {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Execution(nil), s.admitted...)
}

// Prepared are the texts that were judged.
func (s *Session) Prepared() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.prepared...)
}

// Sent reports whether the way to the target carried p.
func (s *Session) Sent(p string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.conns {
		if t.carried(p) {
			return true
		}
	}
	return false
}

// Closed waits until the engine has closed the session, and says why it did.
func (s *Session) Closed() error {
	select {
	case <-s.closed:
	case <-time.After(wait):
		s.door.tb.Fatalf("the session was not closed within %s", wait)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

type admission struct{ version int64 }

// Prepare asks the script.
func (s *Session) Prepare(ctx context.Context, st *engine.Statement) (*engine.Admission, error) {
	p := s.door.script()
	s.mu.Lock()
	s.prepared = append(s.prepared, st.Text)
	s.mu.Unlock()
	an, err := st.Analyse(ctx)
	if err != nil {
		return nil, err
	}
	d := postern.Decision{Verdict: postern.VerdictAllow, Level: postern.LevelSource}
	if p.Decide != nil {
		d = p.Decide(st.Text, an.Facts())
	}
	d.Version = postern.Version{Epoch: "test", Revision: p.Version}
	if d.Verdict == postern.VerdictDeny {
		r := &postern.Refusal{Reason: d.Reason, Rule: d.Rule, Detail: d.Detail, Hint: d.Hint}
		if d.Undefined != 0 {
			r.Code, r.Undefined = postern.CodeUndefined, d.Undefined
		}
		return nil, r
	}
	a := &engine.Admission{Text: st.Text, Decision: d, Analysis: an, Gate: admission{p.Version}}
	rewrite, back := false, false
	for _, o := range d.Obligations {
		result := o.Table != nil && d.Level == postern.LevelResult
		rewrite = rewrite || o.Programs != nil || o.Blank != "" || o.Table != nil && !result
		back = back || o.Content != nil || o.MCP != nil || result
	}
	if back {
		if st.Meets == nil {
			return nil, &postern.Refusal{Reason: "the masks cannot be kept"}
		}
		if err := st.Meets(an, &d); err != nil {
			return nil, &postern.Refusal{Reason: "the masks cannot be kept: " + err.Error()}
		}
	}
	switch {
	case rewrite:
		if a.Forward, err = an.Rewrite(d.Obligations); err != nil {
			return nil, &postern.Refusal{Reason: "the masks cannot be kept: " + err.Error()}
		}
	case an.Plain() || s.terms.Own:
		a.Forward, a.Own = st.Text, true
	default:
		a.Forward = an.Canonical()
	}
	return a, nil
}

// Stale compares the admission's version with the script's.
func (s *Session) Stale(a *engine.Admission) bool {
	return a.Gate.(admission).version != s.door.script().Version
}

// Admit writes the execution down and sets the flow up.
func (s *Session) Admit(a *engine.Admission, args engine.Args, f *engine.Flow) error {
	p := s.door.script()
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.Gate.(admission).version != p.Version {
		return engine.ErrStale
	}
	if p.Unrecordable {
		return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the statement could not be recorded, so it was not forwarded"}
	}
	if a.Decision.Verdict == postern.VerdictHold {
		if !s.approved {
			return engine.ErrHold
		}
		s.approved = false
	}
	e := Execution{Text: a.Text}
	for i, v := range args.Values {
		if args.Null(i) {
			e.Params = append(e.Params, "NULL")
			continue
		}
		e.Params = append(e.Params, string(v))
	}
	e.Beside = args.Beside
	s.admitted = append(s.admitted, e)
	rows, limit := p.Rows, p.Bytes
	if rows == 0 {
		rows = -1
	}
	if limit == 0 {
		limit = -1
	}
	f.Start(&sink{s, len(s.admitted) - 1}, rows, limit)
	return nil
}

// Await asks the script's people.
func (s *Session) Await(ctx context.Context, _ *engine.Admission, _ engine.Args, progress func(string)) error {
	if err := s.await(ctx, progress); err != nil {
		return err
	}
	s.mu.Lock()
	s.approved = true
	s.mu.Unlock()
	return nil
}

// AwaitSession asks the script's people.
func (s *Session) AwaitSession(ctx context.Context, progress func(string)) error {
	return s.await(ctx, progress)
}

func (s *Session) await(ctx context.Context, progress func(string)) error {
	if p := s.door.script(); p.Await != nil {
		return p.Await(ctx, progress)
	}
	return nil
}

// OnCancel registers with the Door.
func (s *Session) OnCancel(key []byte, cancel func()) {
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	s.door.cancels[string(key)] = cancel
}

// Lend lends a credential and wipes it.
func (s *Session) Lend(_ context.Context, p engine.Purpose, fn func(*engine.Credential) error) error {
	c := s.door.cred(p)
	defer c.Password.Wipe()
	defer c.PrivateKey.Wipe()
	return fn(&c)
}

// Vouch says who asks in words that no resource would believe.
func (s *Session) Vouch(context.Context) (string, error) {
	return "vouched-for-" + s.terms.Subject, nil
}

// PinServer remembers for as long as the Door is there.
func (s *Session) PinServer(_ context.Context, told *nodev1.PinServerRequest) (*nodev1.ServerPins, error) {
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	pins := s.door.pins[told.GetPath()]
	if pins == nil {
		pins = &nodev1.ServerPins{}
	}
	pins = proto.CloneOf(pins)
	if _, err := mcp.Note(pins, told, time.Now()); err != nil {
		return nil, err
	}
	s.door.pins[told.GetPath()] = pins
	return pins, nil
}

// Dial connects to the target through a tap.
func (s *Session) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(s.terms.Host, strconv.Itoa(s.terms.Port)))
	if err != nil {
		return nil, err
	}
	t := &tap{TCPConn: c.(*net.TCPConn)}
	s.mu.Lock()
	s.conns = append(s.conns, t)
	s.mu.Unlock()
	return t, nil
}

// Reached notes how the way to the target went.
func (s *Session) Reached(_ context.Context, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached = append(s.reached, err)
}

// Ways tells how each way to the target went.
func (s *Session) Ways() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.reached)
}

// Reuse gives what was left last under the key.
func (s *Session) Reuse(key string) engine.Kept {
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	kept := s.door.kept[key]
	if len(kept) == 0 {
		return nil
	}
	k := kept[len(kept)-1]
	s.door.kept[key] = kept[:len(kept)-1]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, k.Dialled().(*tap))
	return k
}

// Leave keeps k for the Door's next session.
func (s *Session) Leave(key string, k engine.Kept) {
	s.mu.Lock()
	s.conns = slices.DeleteFunc(s.conns, func(t *tap) bool { return t == k.Dialled() })
	s.mu.Unlock()
	s.door.mu.Lock()
	defer s.door.mu.Unlock()
	s.door.kept[key] = append(s.door.kept[key], k)
}

// Unread writes the denial down as a note.
func (s *Session) Unread(size int64, hash []byte, why *postern.Refusal) error {
	return s.Note("unread", fmt.Sprintf("%d %x %s", size, hash, why.Reason))
}

// Note writes the fact down.
func (s *Session) Note(kind, text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, kind+" "+text)
	return nil
}

// Notes are the facts that were written down.
func (s *Session) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes)
}

// Close closes what Dial opened, and checks that every admitted flow has ended once.
func (s *Session) Close(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return
	default:
	}
	s.why = why
	for _, t := range s.conns {
		_ = t.Close()
	}
	for i := range s.admitted {
		if n := s.admitted[i].Done; n != 1 {
			s.door.tb.Errorf("the flow of %q ended %d times", s.admitted[i].Text, n)
		}
	}
	close(s.closed)
}
