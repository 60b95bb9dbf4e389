// Package session opens sessions, keeps them while their right lasts, and ends them
// with a cause. It is the door that engines knock at. What a session may do is the
// gate's business; who lends credentials and keeps records is told by small interfaces.
package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/crypto/ssh"
	"golang.org/x/time/rate"

	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/gate"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Control is what sessions ask of the control plane.
type Control interface {
	gate.Holds
	// OpenGrant finds or makes a grant; its signature has been verified.
	OpenGrant(ctx context.Context, req *nodev1.OpenGrantRequest) (*postern.Grant, error)
	// SignIn lets somebody sign in elsewhere, and is then as OpenGrant; show is told where.
	SignIn(ctx context.Context, req *nodev1.SignInRequest, show func(*nodev1.SignInPrompt)) (*postern.Grant, error)
	// Vouch asks for a token that tells a resource who asks.
	Vouch(ctx context.Context, req *nodev1.VouchRequest) (*nodev1.VouchResponse, error)
	// PinServer notes what a server of MCP says of itself, and tells what is known of it.
	PinServer(ctx context.Context, req *nodev1.PinServerRequest) (*nodev1.PinServerResponse, error)
	// BeginBrowser, FinishBrowser and EndBrowser are the sign-in of a browser, and its end.
	BeginBrowser(ctx context.Context, req *nodev1.BeginBrowserRequest) (*nodev1.BeginBrowserResponse, error)
	FinishBrowser(ctx context.Context, req *nodev1.FinishBrowserRequest) (*nodev1.FinishBrowserResponse, error)
	EndBrowser(ctx context.Context, req *nodev1.EndBrowserRequest) error
	// RouteCancel asks the other nodes to cancel what the session with this key runs.
	RouteCancel(ctx context.Context, key []byte) error
	// Staleness is how old the node's policy may be.
	Staleness() time.Duration
}

// Snapshots is the policy that is enforced now.
type Snapshots interface {
	gate.Snapshots
	// Ended tells whether a grant ended before its time, and why.
	Ended(g postern.GrantID) (reason string, ended bool)
	// Subscribe signals every change.
	Subscribe() (<-chan struct{}, func())
	// WaitFor returns once v is enforced here.
	WaitFor(ctx context.Context, v postern.Version) error
	// ClientCAs are the CAs of grant certificates; nil where none is known.
	ClientCAs() *x509.CertPool
	// UserCAs are the CAs of SSH grant certificates.
	UserCAs() []ssh.PublicKey
}

// A Loan is a credential on loan to one session.
type Loan interface {
	Use(fn func(*engine.Credential) error) error
	Done() <-chan struct{}
	Err() error
	Release(ctx context.Context) error
}

// Leases lends credentials.
type Leases interface {
	Take(ctx context.Context, session postern.SessionID, grant postern.GrantID, resource postern.ResourceName, purpose engine.Purpose) (Loan, error)
}

// Records begins the record of a session.
type Records interface {
	// Begin returns the session's record, and that of what its masks hide where m.StoreRaw
	// asks for it; else nil.
	Begin(m gate.Opened) (rec, raw gate.Recorder, err error)
	// Healthy says why nothing may be forwarded, or nil.
	Healthy() error
}

// Budgets counts sessions and what they use; *budget.Book is one.
type Budgets interface {
	// Open counts a session against its grant, or refuses it. The function ends it.
	Open(ctx context.Context, g *postern.Grant, t policy.Terms) (*budget.Budget, func(), error)
}

// Config is what a Keeper works with.
type Config struct {
	Node      postern.NodeName
	Region    string
	Control   Control
	Snapshots Snapshots
	Leases    Leases
	Records   Records
	Budgets   Budgets
	Logger    *slog.Logger
	Now       func() time.Time
}

// Named limits of the door.
const (
	openTimeout       = 15 * time.Second // all of Open, so that a lost control plane is told in time
	minVersionTimeout = 3 * time.Second
	releaseTimeout    = 10 * time.Second
	killGrace         = 100 * time.Millisecond // for the engine to say why before sockets are closed
	killTime          = 15 * time.Second       // for the engine to cancel what runs at a resource that answers slowly
	sweepEvery        = 250 * time.Millisecond // how often ends and staleness are looked at

	// Strangers can send cancel requests with keys that nobody has, each of which asks all
	// nodes: so many a second, and so many at once.
	routeRate  = 20
	routeBurst = 100
)

// A Keeper holds the live sessions of one node. It is safe for concurrent use.
type Keeper struct {
	cfg   Config
	cache *gate.Cache

	draining atomic.Bool
	unkept   time.Time    // since when no record could be kept; Run's alone
	idle     atomic.Int64 // connections that wait in pools
	routes   *rate.Limiter
	troubles troubles

	mu       sync.Mutex
	sessions map[postern.SessionID]*Session
	cancels  map[string]func()
	pools    map[poolKey]*pool
	ending   []*pool // that may have a loan to give back
}

var _ engine.Door = (*Keeper)(nil)

// New makes a Keeper without sessions.
func New(cfg Config) *Keeper {
	return &Keeper{
		cfg:      cfg,
		cache:    gate.NewCache(),
		sessions: map[postern.SessionID]*Session{},
		cancels:  map[string]func(){},
		pools:    map[poolKey]*pool{},
		routes:   rate.NewLimiter(routeRate, routeBurst),
		troubles: troubles{log: cfg.Logger, now: cfg.Now},
	}
}

// newID makes a session id: 96 random bits.
func newID() postern.SessionID {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return postern.SessionID("s-" + hex.EncodeToString(b[:]))
}

// Open verifies a claim, asks policy and begins the record.
func (k *Keeper) Open(ctx context.Context, c engine.Claim) (_ engine.Session, err error) {
	ctx, span := otel.Tracer("postern/session").Start(ctx, "open session")
	defer func() { endSpan(span, err) }()
	if k.draining.Load() {
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "this node takes no new sessions", Hint: "connect again: another node will answer"}
	}
	if err := k.cfg.Records.Healthy(); err != nil {
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "this session could not be recorded, so it was refused", Hint: "try another node; tell the operators", Cause: err}
	}
	task, resource, err := parsePermission(c.Permission)
	if err != nil {
		return nil, err
	}
	// What the control plane is asked with is text; clients may say anything.
	if !utf8.Valid(c.Token.Reveal()) {
		return nil, &postern.Refusal{Code: postern.CodeBadToken, Reason: "what was given as a token is none", Hint: "`postern token` prints one"}
	}
	c.ClientProgram = strings.ToValidUTF8(c.ClientProgram, "\ufffd")
	id, shown := newID(), sha256.Sum256(c.Token.Reveal())
	var person *postern.Grant
	if c.SignIn != nil {
		if person, err = k.signIn(ctx, c, task, resource); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	grant, err := k.grant(ctx, c, task, resource, person)
	if err != nil {
		return nil, err
	}
	snap := k.cfg.Snapshots.Current()
	res, terms, err := k.resolve(snap, c, task, resource)
	if err != nil {
		return nil, err
	}
	if err := k.fresh(terms, false); err != nil {
		return nil, err
	}
	q := k.query(grant, res.name, k.request(c, grant))
	d := snap.DecideConnect(q)
	if r := k.over(grant, q.Request.Time); r != nil {
		return nil, r
	}
	if d.Verdict == postern.VerdictDeny {
		return nil, gate.Refuse(d)
	}
	if terms.Pool && d.Level == postern.LevelNative {
		return nil, &postern.Refusal{
			Reason: fmt.Sprintf("task %q shares its connections, and at level native each session has a login of its own", task),
			Hint:   "the owner of the task must leave credential.reuse out",
		}
	}
	s := &Session{k: k, id: id, grant: grant, client: q.Request, shown: shown}
	// What happens later belongs to the same trace, though not to this call.
	s.ctx, s.end = context.WithCancelCause(trace.ContextWithSpanContext(context.Background(), span.SpanContext()))
	s.terms = engineTerms(k, grant, task, res, terms, d)
	s.each = c.Protocol == postern.HTTP && s.terms.HTTP.Auth != "certificate"
	use, leave, err := k.cfg.Budgets.Open(ctx, grant, terms)
	if err != nil {
		return nil, err
	}
	s.leave = leave
	if terms.Pool && c.Protocol == postern.Postgres {
		s.pool, s.round = k.join(s, snap)
		s.terms.Pool = s.pool.id
	}
	k.remember(s)
	rec, raw, err := k.cfg.Records.Begin(gate.Opened{
		Session: id, Grant: grant, Task: task, Resource: res.name, Protocol: c.Protocol, Database: s.terms.Database,
		Node: k.cfg.Node, Region: k.cfg.Region, ClientAddress: c.ClientAddress, ClientProgram: c.ClientProgram,
		Version: snap.Version(), Level: s.terms.Level, StoreRaw: terms.StoreRaw,
	})
	if err != nil {
		k.forget(s)
		if s.pool != nil {
			s.pool.leave()
		}
		return nil, &postern.Refusal{Code: postern.CodeUnavailable, Reason: "this session could not be recorded, so it was refused", Hint: "try another node; tell the operators", Cause: err}
	}
	s.Gate = gate.New(gate.Config{
		Session: id, Grant: grant, Task: task, Resource: res.name, Node: k.cfg.Node,
		Request: s.request, Snapshots: k.cfg.Snapshots, Recorder: rec, Raw: raw, Holds: k.cfg.Control,
		Healthy: k.healthy(terms), Cache: k.cache, Budget: use, Now: k.cfg.Now,
		Approval: d.Approval, Logger: k.cfg.Logger,
	})
	s.mu.Lock()
	s.judged = true
	s.mu.Unlock()
	// A lock or an ended grant that came while the session was opening has found no
	// session to end: look once more now that it can be found.
	if r := k.judge(s); r != nil {
		s.Close(r)
		return nil, r
	}
	span.SetAttributes(attribute.String("postern.session", string(id)), attribute.String("postern.task", string(task)), attribute.String("postern.resource", string(res.name)))
	k.cfg.Logger.Info("session opened", "session", id, "subject", grant.Subject.Name, "grant", grant.ID, "task", task, "resource", res.name, "client", c.ClientAddress)
	return s, nil
}

// endSpan says in a trace that something was refused, and not why: reasons may name
// what only the subject should read.
func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, postern.AsRefusal(err).Code.String())
	}
	span.End()
}

// request is how a client asks under a grant: why, its grant says.
func (k *Keeper) request(c engine.Claim, g *postern.Grant) policy.Request {
	host, _, found := strings.Cut(c.ClientAddress, "]:")
	if !found {
		if i := strings.LastIndexByte(c.ClientAddress, ':'); i >= 0 {
			host = c.ClientAddress[:i]
		}
	}
	return policy.Request{
		Time: k.cfg.Now(), Address: strings.TrimPrefix(host, "["), Region: k.cfg.Region, Client: c.ClientProgram,
		Reason: g.Reason, Ticket: policy.Ticket(g.Reason),
	}
}

func (k *Keeper) query(g *postern.Grant, r postern.ResourceName, req policy.Request) policy.Query {
	return policy.Query{Grant: g, Resource: r, Node: k.cfg.Node, Request: req, Covered: k.cfg.Snapshots.Version()}
}

// over tells whether a grant's right has ended, by time, by a person or by a lock.
func (k *Keeper) over(g *postern.Grant, now time.Time) *postern.Refusal {
	if !now.Before(g.End) {
		return &postern.Refusal{Code: postern.CodeKilled, Reason: "the grant ended at " + g.End.UTC().Format(time.RFC3339), Hint: "connect again for a new grant, if your binding still allows the task"}
	}
	if reason, ended := k.cfg.Snapshots.Ended(g.ID); ended {
		return &postern.Refusal{Code: postern.CodeKilled, Reason: "the grant has ended: " + reason}
	}
	return nil
}

// restored tells whether the control plane's store was put back to a backup since the
// grant was opened here: then nothing says that the grant stands still.
func (k *Keeper) restored(g *postern.Grant) *postern.Refusal {
	if g.MinVersion.Epoch == "" || g.MinVersion.Epoch == k.cfg.Snapshots.Version().Epoch {
		return nil
	}
	return &postern.Refusal{
		Code: postern.CodeKilled, Reason: "the control plane was put back to a backup since this session was opened, so its grant must be looked at anew",
		Hint: "connect again: a grant that the backup knows goes on",
	}
}

// fresh refuses what a stale policy may not let in. Live sessions may go on for the
// task's grace.
func (k *Keeper) fresh(t policy.Terms, live bool) error {
	limit := t.MaxStaleness
	if live {
		limit += t.SessionGrace
	}
	age := k.cfg.Control.Staleness()
	if age <= max(limit, minStaleness) || hole.Is("session-stale") {
		return nil
	}
	reason := fmt.Sprintf("this node has not heard from the control plane for %s; the task allows %s", age.Round(time.Second), limit)
	if age == math.MaxInt64 {
		reason = "this node may not go by what it knows before it has heard from the control plane again"
	}
	return &postern.Refusal{Code: postern.CodeUnavailable, Reason: reason, Hint: "try another node"}
}

// minStaleness is what a healthy stream shows between two pings. A task that asks for
// less is checked live: OpenGrant has just spoken to the control plane.
const minStaleness = 5 * time.Second

func (k *Keeper) healthy(t policy.Terms) func() error {
	return func() error {
		if err := k.cfg.Records.Healthy(); err != nil {
			return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the statement could not be recorded, so it was not forwarded", Hint: "tell the operators", Cause: err}
		}
		return k.fresh(t, true)
	}
}

// remember makes a session findable.
func (k *Keeper) remember(s *Session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sessions[s.id] = s
}

func (k *Keeper) forget(s *Session) {
	if s.leave != nil {
		s.leave()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.sessions[s.id]; !ok {
		return
	}
	delete(k.sessions, s.id)
	for _, key := range s.cancelKeys {
		delete(k.cancels, key)
	}
}

// Cancel cancels here or, where the key is not known, on the other nodes.
func (k *Keeper) Cancel(ctx context.Context, key []byte) error {
	if k.CancelLocal(key) {
		return nil
	}
	if !k.routes.AllowN(k.cfg.Now(), 1) {
		return &postern.Refusal{Code: postern.CodeLimit, Reason: "too many cancel requests are for sessions of other nodes", Hint: "try again"}
	}
	return k.cfg.Control.RouteCancel(ctx, key)
}

// CancelLocal cancels what a session of this node runs, and reports whether it had it.
func (k *Keeper) CancelLocal(key []byte) bool {
	k.mu.Lock()
	cancel := k.cancels[string(key)]
	k.mu.Unlock()
	if cancel == nil {
		return false
	}
	cancel()
	return true
}

// Kill ends one session, and reports whether this node had it.
func (k *Keeper) Kill(id postern.SessionID, reason string) bool {
	k.mu.Lock()
	s := k.sessions[id]
	k.mu.Unlock()
	r := &postern.Refusal{Code: postern.CodeKilled, Reason: "the session was ended: " + reason}
	if s == nil {
		return k.killPool(id, r) // the ledger has its name where that of a session stands
	}
	s.Kill(r)
	return true
}

// KillAll ends every live session.
func (k *Keeper) KillAll(reason string) {
	for _, s := range k.live() {
		s.Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: reason, Hint: "connect again: another node will answer"})
	}
}

// Live lists the ids of the live sessions.
func (k *Keeper) Live() []postern.SessionID {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.AppendSeq(make([]postern.SessionID, 0, len(k.sessions)), maps.Keys(k.sessions))
}

// Drain refuses new sessions from now on. Connections that wait for one are closed.
func (k *Keeper) Drain() {
	k.draining.Store(true)
	for _, p := range k.allPools() {
		p.drop(everything)
	}
}

// Draining reports whether new sessions are refused.
func (k *Keeper) Draining() bool { return k.draining.Load() }

func (k *Keeper) live() []*Session {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.AppendSeq(make([]*Session, 0, len(k.sessions)), maps.Values(k.sessions))
}
