// Package gate is the one place of the order of enforcement: decide, record, hold,
// forward, mask, record. Engines bring statements and take answers; the policy that
// decides, the people who approve and the log that keeps are reached from here alone.
//
// A statement is judged once (Prepare) and let through at each execution (Admit). What
// was admitted reports back through a Flow until it is done. Nothing is forwarded
// whose intent is not recorded.
package gate

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/dataplane/engine"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// A Recorder keeps one session's story. Record returns once e is as durable as the
// mode asks; e and all it points to may be reused then. It is safe for concurrent use.
type Recorder interface {
	Record(e *record.Event, m policy.RecordMode) error
	Close(why string) error
	// Idle reports whether all that was begun has ended.
	Idle() bool
}

// Snapshots is the policy that is enforced now.
type Snapshots interface {
	Current() *policy.Snapshot
	// Version is the version up to which everything is enforced.
	Version() postern.Version
}

// Opened is what is known of a session when it begins.
type Opened struct {
	Session       postern.SessionID
	Grant         *postern.Grant
	Task          postern.TaskName
	Resource      postern.ResourceName
	Protocol      postern.Protocol
	Database      string
	Node          postern.NodeName
	Region        string
	ClientAddress string
	ClientProgram string
	Version       postern.Version
	Level         postern.Level
	StoreRaw      bool // what masks hide is kept too
}

// Config is what a Gate works with.
type Config struct {
	Session   postern.SessionID
	Grant     *postern.Grant
	Task      postern.TaskName
	Resource  postern.ResourceName
	Node      postern.NodeName
	Request   func() policy.Request // as of now
	Snapshots Snapshots
	Recorder  Recorder
	Raw       Recorder // of what masks hide; nil where that is not kept
	Holds     Holds
	Healthy   func() error // why nothing may be forwarded, or nil
	Cache     *Cache
	Budget    *budget.Budget    // sessions of one grant may share it
	Approval  *postern.Approval // of the session itself; nil where none is asked
	Now       func() time.Time
	Logger    *slog.Logger
}

// A Gate judges and records for one session.
type Gate struct {
	cfg        Config
	instrument *instruments

	flows   sync.Pool                       // of *execution
	cleared atomic.Pointer[policy.Snapshot] // nothing of it stands against the session

	mu      sync.Mutex        // guards what follows
	passes  map[[32]byte]pass // by digest, the executions that people have let through
	open    bool              // whether people have let the session in, or nobody was asked
	letIn   *typesv1.Hold     // the yes by which they did; nil where nobody was asked
	running *execution        // the last one begun of those that have not ended
}

// New makes the gate of one session, whose record has begun.
func New(cfg Config) *Gate {
	g := &Gate{cfg: cfg, instrument: loadInstruments(), passes: map[[32]byte]pass{}, open: cfg.Approval == nil}
	g.flows.New = func() any { return &execution{g: g} }
	return g
}

// admitted is what the gate keeps with an Admission.
type admitted struct {
	snapshot *policy.Snapshot
	terms    policy.Terms
	facts    policy.Facts
	estimate *estimate // nil where no rule asked for one
	// ask estimates the rows of one that people are asked for; nil where nobody can tell.
	ask     func(ctx context.Context) (int64, error)
	touched []record.Touch
	text    string
	hash    [sha256.Size]byte // of the text
	mode    policy.RecordMode
	free    bool // whether no limit bounds it
	all     bool // whether all that it says is kept
}

// Refuse makes the refusal of a decision that denied.
func Refuse(d postern.Decision) *postern.Refusal {
	r := &postern.Refusal{Code: postern.CodeDenied, Reason: d.Reason, Rule: d.Rule, Detail: d.Detail, Hint: d.Hint, Position: d.Position}
	if r.Reason == "" {
		r.Reason = "no rule allows this"
	}
	switch {
	case strings.HasSuffix(d.Rule, policy.LimitsSuffix):
		r.Code = postern.CodeLimit
	case d.Undefined != 0:
		r.Code, r.Undefined = postern.CodeUndefined, d.Undefined
	case strings.HasPrefix(d.Rule, policy.LockPrefix):
		r.Code = postern.CodeKilled
	case strings.HasPrefix(d.Rule, policy.GrantPrefix):
		r.Code = postern.CodeNoGrant
	}
	return r
}

func (g *Gate) query(facts policy.Facts) policy.Query {
	req, b := g.cfg.Request(), g.cfg.Budget
	return policy.Query{
		Grant: g.cfg.Grant, Resource: g.cfg.Resource, Node: g.cfg.Node, Facts: facts, Request: req, Covered: g.cfg.Snapshots.Version(),
		Usage: policy.Usage{
			Rows: b.Rows.Used(), Bytes: b.Bytes.Used(), Statements: b.Statements.Used(),
			Age: req.Time.Sub(g.cfg.Grant.Start),
		},
	}
}

// Prepare judges a statement once. A denial is recorded, and is a *postern.Refusal.
func (g *Gate) Prepare(ctx context.Context, st *engine.Statement) (*engine.Admission, error) {
	snap := g.cfg.Snapshots.Current()
	key := cacheKey{grant: g.cfg.Grant.ID, resource: g.cfg.Resource, context: st.Context, text: st.Text}
	if !st.Private {
		if a := g.cfg.Cache.get(snap, key); a != nil {
			return a, nil
		}
	}
	a, facts, err := g.judge(ctx, snap, st)
	if errors.Is(err, engine.ErrOutdated) {
		return nil, err
	}
	if err != nil {
		r := postern.AsRefusal(err)
		if rerr := g.denied(st.Text, facts, r, nil); rerr != nil {
			return nil, rerr
		}
		return nil, r
	}
	// One that is held keeps what it asks its own session's resource.
	if !st.Private && a.Decision.Deps.Cacheable() && a.Decision.Verdict != postern.VerdictHold {
		g.cfg.Cache.put(snap, key, a)
	}
	return a, nil
}

// judge asks the analyser, then policy, and makes what may be sent. The facts are there with
// a denial too, where the statement was understood.
func (g *Gate) judge(ctx context.Context, snap *policy.Snapshot, st *engine.Statement) (*engine.Admission, policy.Facts, error) {
	ctx, span := otel.Tracer("postern/gate").Start(ctx, "judge statement")
	defer span.End()
	an, facts, err := analyse(ctx, st)
	if err != nil {
		return nil, nil, err
	}
	d, rows, err := g.decide(ctx, snap, st, an, facts)
	if err != nil {
		return nil, facts, err
	}
	if d.Verdict == postern.VerdictDeny {
		return nil, facts, Refuse(g.advised(snap, facts, d))
	}
	a, err := g.admission(snap, st, an, facts, d, rows)
	return a, facts, err
}

func analyse(ctx context.Context, st *engine.Statement) (engine.Analysis, policy.Facts, error) {
	an, err := st.Analyse(ctx)
	if err != nil {
		return nil, nil, err
	}
	facts, ok := an.Facts().(policy.Facts)
	if !ok {
		return nil, nil, fmt.Errorf("gate: facts of type %T have no policy", an.Facts())
	}
	return an, facts, nil
}

// admission makes what may be sent of a statement that was not denied.
func (g *Gate) admission(snap *policy.Snapshot, st *engine.Statement, an engine.Analysis, facts policy.Facts, d postern.Decision, rows *estimate) (*engine.Admission, error) {
	terms, ok := snap.Terms(g.cfg.Task)
	if !ok {
		return nil, &postern.Refusal{Reason: fmt.Sprintf("task %q is no longer served here", g.cfg.Task)}
	}
	a := &engine.Admission{Text: st.Text, Decision: d, Analysis: an}
	rewrite := needsRewrite(&d)
	if err := onTheWayBack(st, an, &d); err != nil {
		return nil, err
	}
	switch {
	case terms.Unrestricted:
		a.Forward, a.Own = st.Text, true
	case rewrite:
		text, err := an.Rewrite(d.Obligations)
		if err != nil {
			return nil, unmasked(d, err)
		}
		a.Forward = text
	case an.Plain():
		a.Forward, a.Own = st.Text, true
	default:
		a.Forward = an.Canonical()
	}
	ad := &admitted{snapshot: snap, terms: terms, facts: facts, estimate: rows, touched: touches(facts, d.Obligations), text: st.Text, hash: sha256.Sum256([]byte(st.Text)), mode: terms.RecordWrite}
	if d.Effect == postern.EffectRead || d.Effect == postern.EffectNone {
		ad.mode = terms.RecordRead
	}
	ad.free, ad.all = d.Effect == postern.EffectNone, keepsAll(facts)
	a.Waits = ad.mode == policy.Disk || ad.mode == policy.Remote || g.cfg.Budget.Shared() && (terms.Rows >= 0 || terms.Bytes >= 0 || terms.Statements >= 0)
	if d.Verdict == postern.VerdictHold && st.Estimate != nil {
		count := st.Estimate // and not st, which keeps what it was analysed by
		ad.ask = func(ctx context.Context) (int64, error) { return count(ctx, a.Forward) }
	}
	a.Gate = ad
	if s, ok := an.(engine.Shedder); ok {
		if d.Verdict == postern.VerdictHold {
			an.Canonical() // which people are shown
		}
		s.Shed()
	}
	return a, nil
}

// needsRewrite reports whether an obligation is met in what is sent.
func needsRewrite(d *postern.Decision) bool {
	return slices.ContainsFunc(d.Obligations, func(o postern.Obligation) bool {
		return o.Programs != nil || o.Blank != "" || o.Table != nil && d.Level >= postern.LevelSource
	})
}

// onTheWayBack refuses obligations that no rewriting meets and that the engine does not
// meet either: masks at level result, and at any masks of content and messages that are judged by themselves.
func onTheWayBack(st *engine.Statement, an engine.Analysis, d *postern.Decision) error {
	tables, content := false, false
	for _, o := range d.Obligations {
		tables = tables || o.Table != nil && d.Level < postern.LevelSource
		content = content || o.Content != nil || o.MCP != nil
	}
	if !tables && !content {
		return nil
	}
	err := errors.New("this protocol cannot change values on their way back")
	switch {
	case tables && d.Level != postern.LevelResult:
		err = errors.New("no level of guarantee holds here")
	case st.Meets != nil:
		if err = st.Meets(an, d); err == nil {
			return nil
		}
	}
	return &postern.Refusal{
		Reason: "the masks of this task cannot be kept in what this statement returns: " + err.Error(), Rule: d.Rule,
		Hint: "ask for the masked values as they are, or leave them out", Cause: err,
	}
}

// denied records a refusal. An error means that it could not be recorded, and is what
// the client must be told instead.
func (g *Gate) denied(text string, facts policy.Facts, r *postern.Refusal, params []record.Param) error {
	hash := sha256.Sum256([]byte(text))
	return g.deny(&record.Event{Text: text, Hash: hash[:], Params: params, Tag: shape(facts)}, r)
}

// Unread records the denial of a statement that is too long to be kept: its hash stays.
func (g *Gate) Unread(size int64, hash []byte, r *postern.Refusal) error {
	return g.deny(&record.Event{Hash: hash, Bytes: size}, r)
}

func (g *Gate) deny(e *record.Event, r *postern.Refusal) error {
	g.instrument.decision(postern.VerdictDeny)
	e.Time, e.Kind, e.Statement = g.cfg.Now(), record.KindDenied, record.Next
	e.Verdict, e.Rule, e.Reason = postern.VerdictDeny, r.Rule, r.Reason
	if err := g.cfg.Recorder.Record(e, policy.Local); err != nil {
		return unrecorded(err)
	}
	return nil
}

func unrecorded(err error) *postern.Refusal {
	return &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the statement could not be recorded, so it was not forwarded", Hint: "tell the operators", Cause: err}
}

// Stale reports whether an admission was judged under another policy than now.
func (g *Gate) Stale(a *engine.Admission) bool {
	ad, ok := a.Gate.(*admitted)
	return !ok || !ad.snapshot.SameRules(g.cfg.Snapshots.Current())
}

// Admit lets one execution through.
func (g *Gate) Admit(a *engine.Admission, args engine.Args, f *engine.Flow) error {
	ad, ok := a.Gate.(*admitted)
	if !ok {
		return errors.New("gate: an admission that the gate did not make")
	}
	now := g.cfg.Snapshots.Current()
	if !ad.snapshot.SameRules(now) {
		return engine.ErrStale
	}
	if g.cleared.Load() != now {
		if r := g.barred(now, g.cfg.Now()); r != nil {
			return g.refuseExecution(a, args, r)
		}
	}
	if err := g.cfg.Healthy(); err != nil {
		return err
	}
	if !a.Decision.Deps.Cacheable() {
		if err := g.decideAgain(now, a, ad, args); err != nil {
			return err
		}
	}
	statement, yes, err := g.letThrough(a, args)
	if err != nil {
		return err
	}
	if err := g.spend(&ad.terms, &a.Decision); err != nil {
		return g.refuseExecution(a, args, postern.AsRefusal(err))
	}
	x := g.flows.Get().(*execution)
	x.begin(ad, yes, g.cfg.Now())
	x.hash = ad.hash
	if a.Text != ad.text { // another one of its shape
		x.text = append(x.text[:0], a.Text...)
		x.hash = sha256.Sum256(x.text)
	}
	forward := a.Forward
	if a.Own {
		forward = "" // it is the text
	}
	e := &x.event
	*e = record.Event{ // reused, so that nothing is allocated
		Time: x.start, Kind: record.KindIntent, Statement: statement, Text: a.Text, Hash: x.hash[:], Params: x.params(args),
		Verdict: postern.VerdictAllow, Rule: a.Decision.Rule, Forward: forward, Touched: ad.touched,
		Effect: a.Decision.Effect, Level: a.Decision.Level, Shape: ad,
	}
	if err := g.cfg.Recorder.Record(e, ad.mode); err != nil {
		g.cfg.Budget.Statements.Give(1)
		g.flows.Put(x)
		return unrecorded(err)
	}
	x.statement = e.Statement
	g.instrument.decision(postern.VerdictAllow)
	x.allot(a.Decision.Obligations)
	f.Start(x, x.ofRows.start(), x.ofBytes.start())
	f.LetBy(yes.GetId())
	g.track(x)
	return nil
}

// decideAgain asks policy anew where its answer may be another with each execution.
func (g *Gate) decideAgain(now *policy.Snapshot, a *engine.Admission, ad *admitted, args engine.Args) error {
	q := g.query(ad.facts)
	if ad.estimate != nil {
		if q.Request.Time.Sub(ad.estimate.at) > estimateTTL {
			return engine.ErrStale
		}
		q.EstimatedRows = &ad.estimate.rows
	}
	switch d := now.Decide(q); {
	case d.Verdict == postern.VerdictDeny:
		return g.refuseExecution(a, args, Refuse(d))
	case !sameDuties(d, a.Decision):
		return engine.ErrStale // it may still go, but not like this
	}
	return nil
}

// letThrough uses up the yes to an execution that people are asked for, and returns it with
// the number under which they were asked. An execution that nobody is asked for has no yes,
// and the next number.
func (g *Gate) letThrough(a *engine.Admission, args engine.Args) (statement uint64, yes *typesv1.Hold, err error) {
	statement = record.Next
	held := a.Decision.Verdict == postern.VerdictHold
	var digest [32]byte
	if held {
		digest = g.digest(a, args)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if held {
		pass, let := g.passes[digest]
		if !let || a.Decision.Approval == nil || pass.rule != a.Decision.Approval.Rule {
			return 0, nil, engine.ErrHold
		}
		statement, yes = pass.statement, pass.hold
		delete(g.passes, digest) // once
	}
	if !g.open {
		return 0, nil, &postern.Refusal{Reason: "nobody has let this session in yet"}
	}
	return statement, yes, nil
}

// sameDuties reports whether a decision that was made anew asks for just what the one
// before asked for.
func sameDuties(now, then postern.Decision) bool {
	return now.Verdict == then.Verdict && now.Level == then.Level &&
		reflect.DeepEqual(now.Approval, then.Approval) && reflect.DeepEqual(now.Obligations, then.Obligations)
}

func (g *Gate) refuseExecution(a *engine.Admission, args engine.Args, r *postern.Refusal) error {
	var facts policy.Facts
	if ad, ok := a.Gate.(*admitted); ok {
		facts = ad.facts
	}
	if err := g.denied(a.Text, facts, r, paramsOf(args)); err != nil {
		return err
	}
	return r
}

// Note records a fact that is no statement.
func (g *Gate) Note(kind, text string) error {
	return g.cfg.Recorder.Record(&record.Event{Time: g.cfg.Now(), Kind: record.KindNote, Tag: kind, Text: text}, policy.Local)
}

// Idle reports whether no statement of the session runs.
func (g *Gate) Idle() bool { return g.cfg.Recorder.Idle() }

// End records why the session ended.
func (g *Gate) End(why string) error {
	err := g.cfg.Recorder.Close(why)
	if g.cfg.Raw != nil {
		err = errors.Join(err, g.cfg.Raw.Close(why))
	}
	return err
}
