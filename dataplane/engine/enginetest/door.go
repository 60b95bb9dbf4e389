// Package enginetest holds every engine to the same promises. A Door stands in for the
// house: it opens sessions on a real target under a scripted policy, writes down what
// it was asked, and watches the way to the target for bytes that no admission covers.
// Run puts an engine through the promises that all protocols share; what is special to
// one protocol is tested beside its engine, with the same Door.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// Token is the only token that a Door believes.
const Token = "pst_test-token"

// A Policy is the script of a Door. It may be changed between statements with Door.Set.
type Policy struct {
	// Decide judges a statement; nil allows everything.
	Decide func(text string, facts any) postern.Decision
	// Rows and Bytes bound each execution; 0 means no bound.
	Rows, Bytes int64
	// Await is what people say to a held execution; nil says yes at once.
	Await func(ctx context.Context, progress func(string)) error
	// SignIn is what becomes of somebody who signs in elsewhere: it may tell where, and
	// wait; nil refuses.
	SignIn func(ctx context.Context, show func(engine.SignIn)) error
	// Version is the policy's version; changing it makes admissions stale.
	Version int64
	// Unrecordable makes every Admit fail.
	Unrecordable bool
	// Certificate is the one client certificate that is believed, where no token is shown.
	Certificate []byte
}

// A Door opens sessions on one target. It is safe for concurrent use.
type Door struct {
	tb    testing.TB
	terms engine.Terms
	cred  func(engine.Purpose) engine.Credential

	mu       sync.Mutex
	policy   Policy
	sessions []*Session
	claims   []engine.Claim
	cancels  map[string]func()
}

// NewDoor makes a Door to the resource in terms. cred makes a credential for a purpose;
// the Door wipes it after each loan.
func NewDoor(tb testing.TB, terms engine.Terms, cred func(engine.Purpose) engine.Credential) *Door {
	return &Door{tb: tb, terms: terms, cred: cred, cancels: map[string]func(){}}
}

// Set changes the policy.
func (d *Door) Set(change func(*Policy)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.policy)
}

// Terms changes the terms of sessions to come.
func (d *Door) Terms(change func(*engine.Terms)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(&d.terms)
}

func (d *Door) script() Policy {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.policy
}

// Last is the session that was opened last.
func (d *Door) Last() *Session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sessions) == 0 {
		d.tb.Fatal("no session was opened")
	}
	return d.sessions[len(d.sessions)-1]
}

// Opened is how many sessions were opened.
func (d *Door) Opened() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.sessions)
}

// Asked is how many claims were made.
func (d *Door) Asked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.claims)
}

// Claim is the last claim.
func (d *Door) Claim() engine.Claim {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.claims[len(d.claims)-1]
}

// Open believes Token and the policy's Certificate.
func (d *Door) Open(ctx context.Context, c engine.Claim) (engine.Session, error) {
	signedIn, err := d.signIn(ctx, c)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	good := c.Token.Equal(secret.FromString(Token)) && c.Certificate == nil ||
		c.Certificate != nil && c.Token.Len() == 0 && bytes.Equal(c.Certificate, d.policy.Certificate)
	good = good || signedIn && c.Token.Len() == 0 && c.Certificate == nil
	c.Token = secret.Bytes{} // the engine wipes it
	d.claims = append(d.claims, c)
	if !good {
		return nil, &postern.Refusal{Code: postern.CodeBadToken, Reason: "the token is not good", Hint: "get a new one: postern token"}
	}
	if c.Permission == "nobody.target" {
		return nil, &postern.Refusal{Code: postern.CodeNoGrant, Reason: `no binding gives you task "nobody"`, Hint: "postern tasks lists yours"}
	}
	sctx, end := context.WithCancelCause(context.Background())
	terms := d.terms
	if c.Database != "" {
		terms.Database = c.Database
	}
	s := &Session{door: d, id: postern.SessionID("s" + strconv.Itoa(len(d.sessions)+1)), terms: terms, ctx: sctx, end: end, closed: make(chan struct{})}
	d.sessions = append(d.sessions, s)
	return s, nil
}

// signIn asks the script about somebody who would sign in elsewhere.
func (d *Door) signIn(ctx context.Context, c engine.Claim) (bool, error) {
	fn := d.script().SignIn
	switch {
	case c.SignIn == nil:
		return false, nil
	case fn == nil:
		return false, &postern.Refusal{Code: postern.CodeBadToken, Reason: "nobody can sign in elsewhere"}
	}
	return true, fn(ctx, c.SignIn)
}

// Cancel runs what OnCancel registered.
func (d *Door) Cancel(_ context.Context, key []byte) error {
	d.mu.Lock()
	fn := d.cancels[string(key)]
	d.mu.Unlock()
	if fn != nil {
		fn()
	}
	return nil
}

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
	conns    []*tap
	approved bool
	why      error
	closed   chan struct{}
}

var (
	_ engine.Session = (*Session)(nil)
	_ engine.Waiter  = (*Session)(nil)
)

// An Execution is one admission and what became of it.
type Execution struct {
	Text    string
	Params  []string
	Rows    int64  // as told
	Data    []byte // of the rows, as told, up to 64 KiB
	Chunks  int64  // bytes, both ways
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
	case <-time.After(10 * time.Second):
		s.door.tb.Fatal("the session was not closed within 10 s")
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
		return nil, &postern.Refusal{Reason: d.Reason, Rule: d.Rule, Detail: d.Detail, Hint: d.Hint}
	}
	a := &engine.Admission{Text: st.Text, Decision: d, Analysis: an, Gate: admission{p.Version}}
	rewrite, back := false, false
	for _, o := range d.Obligations {
		result := o.Table != nil && d.Level == postern.LevelResult
		rewrite = rewrite || o.Programs != nil || o.Table != nil && !result
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

// sink is the way back of one execution.
type sink struct {
	s *Session
	i int
}

// Room has nothing beyond what Start gave.
func (k *sink) Room(int64, int64) (int64, int64) { return 0, 0 }

func (k *sink) with(fn func(*Execution)) error {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	e := &k.s.admitted[k.i]
	if e.Done > 0 {
		k.s.door.tb.Errorf("the flow of %q was used after its end", e.Text)
		return errors.New("enginetest: ended")
	}
	fn(e)
	return nil
}

func (k *sink) Columns(cols []engine.ResultColumn) error {
	return k.with(func(e *Execution) { e.Columns = append([]engine.ResultColumn(nil), cols...) })
}

func (k *sink) Rows(n int, span []byte) error {
	return k.with(func(e *Execution) {
		e.Rows += int64(n)
		e.Data = append(e.Data, span[:min(len(span), 64<<10-len(e.Data))]...)
	})
}

func (k *sink) Chunk(_ engine.Direction, p []byte) error {
	return k.with(func(e *Execution) { e.Chunks += int64(len(p)) })
}

func (k *sink) Output(s engine.Stream, p []byte) error {
	return k.with(func(e *Execution) {
		e.Chunks += int64(len(p))
		if s == engine.Stdout || s == engine.Body {
			e.Rows += int64(bytes.Count(p, []byte("\n")))
		}
		if s.Said() && len(e.Data)+len(p) <= 64<<10 {
			e.Data = append(e.Data, p...)
		}
	})
}

func (k *sink) Done(o engine.Outcome) error {
	return k.with(func(e *Execution) { e.Outcome, e.Done = o, 1 })
}

// tap remembers what was written to the target; it is still a bare socket.
type tap struct {
	*net.TCPConn

	mu   sync.Mutex
	sent bytes.Buffer
}

// maxTapped bounds what a tap remembers.
const maxTapped = 4 << 20

func (t *tap) Write(p []byte) (int, error) {
	t.mu.Lock()
	if t.sent.Len() < maxTapped {
		t.sent.Write(p)
	}
	t.mu.Unlock()
	return t.TCPConn.Write(p)
}

func (t *tap) carried(p string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Contains(t.sent.Bytes(), []byte(p))
}

// Serve runs an engine on a loopback port and returns its address; both end with the test.
func Serve(tb testing.TB, e engine.Engine, d engine.Door) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer func() {
					if v := recover(); v != nil {
						panic(fmt.Sprintf("the engine panicked: %v", v))
					}
				}()
				_ = e.Serve(ctx, c, d)
			})
		}
	})
	tb.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}
