// Package door lets the node's own engine be measured without parts of the node: a Door
// opens sessions on one target whose statements go through unjudged (Scan), or are judged
// by the real gate and policy and recorded nowhere (Judge). Neither is a way to run a node.
package door

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/gate"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
	"github.com/posterngate/postern/pkg/sql"
)

// Config says what the sessions of a Door are.
type Config struct {
	Host, Account, Password, Database string
	Port                              int
	// Judge is the policy that the gate asks; nil lets everything through unseen.
	Judge    *policy.Snapshot
	Resource postern.ResourceName
	Logger   *slog.Logger
}

// A Door opens sessions to whoever asks. It is safe for concurrent use.
type Door struct {
	cfg   Config
	cache *gate.Cache

	sessions, judged, admitted atomic.Int64
}

// New makes a Door.
func New(c Config) *Door { return &Door{cfg: c, cache: gate.NewCache()} }

// Counts is what a Door has seen.
type Counts struct {
	Judged   int64 `json:"judged"`   // texts that were analysed
	Admitted int64 `json:"admitted"` // executions
}

// Counts so far.
func (d *Door) Counts() Counts { return Counts{d.judged.Load(), d.admitted.Load()} }

// Open believes everybody. The user name is TASK.RESOURCE.
func (d *Door) Open(_ context.Context, c engine.Claim) (engine.Session, error) {
	ctx, end := context.WithCancelCause(context.Background())
	s := &session{
		door: d, id: postern.SessionID("s-" + strconv.FormatInt(d.sessions.Add(1), 10)), ctx: ctx, end: end,
		terms: &engine.Terms{
			Task: "measured", Resource: d.cfg.Resource, Host: d.cfg.Host, Port: d.cfg.Port, Database: d.cfg.Database,
			TLS: engine.TLSTerms{Mode: "disable"}, Level: postern.LevelSource, Pins: []engine.Setting{{Name: "search_path", Value: "public"}},
		},
	}
	if d.cfg.Judge == nil {
		s.terms.Own = true
		s.judge = unseen{d}
		return s, nil
	}
	task := postern.TaskName(c.Permission)
	for i := range c.Permission {
		if c.Permission[i] == '.' {
			task = postern.TaskName(c.Permission[:i])
			break
		}
	}
	terms, ok := d.cfg.Judge.Terms(task)
	if !ok {
		return nil, &postern.Refusal{Code: postern.CodeNoGrant, Reason: fmt.Sprintf("there is no task %q", task)}
	}
	s.terms.Task, s.terms.ReadOnly = task, terms.ReadOnly
	grant := &postern.Grant{ID: "g-" + postern.GrantID(task), Subject: postern.Subject{Name: "bench"}, Task: task, Start: time.Now(), End: time.Now().Add(24 * time.Hour)}
	s.judge = judged{d, gate.New(gate.Config{
		Session: s.id, Grant: grant, Task: task, Resource: d.cfg.Resource, Node: "bench",
		Request:   func() policy.Request { return policy.Request{Time: time.Now(), Address: "127.0.0.1"} },
		Snapshots: fixed{d.cfg.Judge}, Recorder: nowhere{}, Healthy: func() error { return nil },
		Cache: d.cache, Budget: &budget.Budget{}, Now: time.Now, Logger: d.cfg.Logger,
	})}
	return s, nil
}

// Gate is the gate of a session, where it is judged; nil else.
func Gate(s engine.Session) *gate.Gate {
	if j, ok := s.(*session).judge.(judged); ok {
		return j.Gate
	}
	return nil
}

// Cancel knows no session.
func (d *Door) Cancel(context.Context, []byte) error { return nil }

// judge is the part of a session that differs.
type judge interface {
	Prepare(ctx context.Context, st *engine.Statement) (*engine.Admission, error)
	Stale(a *engine.Admission) bool
	Admit(a *engine.Admission, args engine.Args, f *engine.Flow) error
}

type session struct {
	judge
	door  *Door
	id    postern.SessionID
	terms *engine.Terms
	ctx   context.Context
	end   context.CancelCauseFunc

	mu    sync.Mutex
	conns []net.Conn
}

func (s *session) ID() postern.SessionID                        { return s.id }
func (s *session) Terms() *engine.Terms                         { return s.terms }
func (s *session) Context() context.Context                     { return s.ctx }
func (s *session) OnCancel([]byte, func())                      {}
func (s *session) Note(string, string) error                    { return nil }
func (s *session) Reached(context.Context, error)               {}
func (s *session) Unread(int64, []byte, *postern.Refusal) error { return nil }
func (s *session) Await(context.Context, *engine.Admission, engine.Args, func(string)) error {
	return errors.New("door: nobody waits here")
}

func (s *session) Lend(_ context.Context, _ engine.Purpose, fn func(*engine.Credential) error) error {
	c := engine.Credential{Account: s.door.cfg.Account, Password: secret.FromString(s.door.cfg.Password)}
	defer c.Password.Wipe()
	return fn(&c)
}

func (s *session) PinServer(context.Context, *nodev1.PinServerRequest) (*nodev1.ServerPins, error) {
	return nil, errors.New("door: no server of MCP is reached here")
}

func (s *session) Vouch(context.Context) (string, error) {
	return "", errors.New("door: nobody vouches here")
}

func (s *session) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(s.terms.Host, strconv.Itoa(s.terms.Port)))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, c)
	return c, nil
}

func (s *session) Close(why error) {
	s.end(why)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns = nil
}

// unseen lets everything through: what is left is the engine's reading and forwarding.
type unseen struct{ d *Door }

func (u unseen) Prepare(_ context.Context, st *engine.Statement) (*engine.Admission, error) {
	return &engine.Admission{Text: st.Text, Forward: st.Text, Own: true, Analysis: read{}, Decision: postern.Decision{Verdict: postern.VerdictAllow}}, nil
}

// read says of every text that it reads something.
type read struct{}

var reads = &sql.Facts{Complete: true, Statements: []sql.Statement{{Verb: sql.Select, Command: "SELECT", Effect: postern.EffectRead, Returns: true}}}

func (read) Facts() any        { return reads }
func (read) Plain() bool       { return true }
func (read) Canonical() string { return "" }
func (read) Rewrite([]postern.Obligation) (string, error) {
	return "", errors.New("door: nothing is masked here")
}

func (unseen) Stale(*engine.Admission) bool { return false }

func (u unseen) Admit(_ *engine.Admission, _ engine.Args, f *engine.Flow) error {
	u.d.admitted.Add(1)
	f.Start(sink{}, -1, -1)
	return nil
}

type sink struct{}

func (sink) Room(int64, int64) (int64, int64)      { return 0, 0 }
func (sink) Columns([]engine.ResultColumn) error   { return nil }
func (sink) Rows(int, []byte) error                { return nil }
func (sink) Chunk(engine.Direction, []byte) error  { return nil }
func (sink) Output(engine.Stream, []byte) error    { return nil }
func (sink) KeepsRaw() bool                        { return false }
func (sink) RawRows(int, []byte) error             { return nil }
func (sink) RawOutput(engine.Stream, []byte) error { return nil }
func (sink) Done(engine.Outcome) error             { return nil }

// judged counts what the real gate is asked.
type judged struct {
	d *Door
	*gate.Gate
}

func (j judged) Prepare(ctx context.Context, st *engine.Statement) (*engine.Admission, error) {
	analyse := st.Analyse
	st.Analyse = func(ctx context.Context) (engine.Analysis, error) {
		j.d.judged.Add(1)
		return analyse(ctx)
	}
	return j.Gate.Prepare(ctx, st)
}

func (j judged) Admit(a *engine.Admission, args engine.Args, f *engine.Flow) error {
	j.d.admitted.Add(1)
	return j.Gate.Admit(a, args, f)
}

type fixed struct{ *policy.Snapshot }

func (f fixed) Current() *policy.Snapshot { return f.Snapshot }

type nowhere struct{}

func (nowhere) Record(*record.Event, policy.RecordMode) error { return nil }
func (nowhere) Close(string) error                            { return nil }
func (nowhere) Idle() bool                                    { return true }
