package gate

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/sql"
)

const world = `
kind: Mask
metadata: {name: email}
spec: {method: redact, value: "***"}
---
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: warehouse}, credential: {sealed: warehouse}, catalog: {sealed: warehouse}}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}]}
---
kind: Task
metadata: {name: report}
spec:
  purpose: a test
  duration: 1h
  resources: {names: [warehouse]}
  permit:
    - {table: sales.orders, verbs: [select], columns: [id, email], mask: {email: email}}
    - {table: sales.regions, verbs: [select], columns: [code]}
    - {table: sales.orders, verbs: [delete], columns: [id], requireWhere: true, approval: {scope: statement, rule: leads}}
  limits: {rows: 10, per: session}
  record: {read: local, write: disk, resultRows: 2}
`

// holder is a snapshot that can be swapped.
type holder struct {
	p atomic.Pointer[policy.Snapshot]
}

func (h *holder) Current() *policy.Snapshot { return h.p.Load() }
func (h *holder) Version() postern.Version  { return h.p.Load().Version() }

func (h *holder) load(t testing.TB, text string, revision int64) {
	t.Helper()
	s := policytest.CompileAt(t, postern.Version{Epoch: "e", Revision: revision}, text)
	h.p.Store(s)
}

// memo is a Recorder that remembers, and can be made to fail.
type memo struct {
	mu     sync.Mutex
	events []record.Event
	modes  []policy.RecordMode
	fail   error
	silent bool

	statement uint64
}

func (m *memo) Record(e *record.Event, mode policy.RecordMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil || m.silent {
		return m.fail
	}
	if e.Statement == record.Next {
		m.statement++
		e.Statement = m.statement
	}
	c := *e
	c.Params = append([]record.Param(nil), e.Params...)
	for i := range c.Params {
		c.Params[i].Value = strings.Clone(c.Params[i].Value)
	}
	c.Data = append([]byte(nil), e.Data...)
	m.events, m.modes = append(m.events, c), append(m.modes, mode)
	return nil
}

func (m *memo) Close(string) error { return nil }
func (m *memo) Idle() bool         { return true }

func (m *memo) kinds() string {
	var out []string
	for _, e := range m.events {
		out = append(out, e.Kind.String())
	}
	return strings.Join(out, " ")
}

// people answers holds.
type people struct {
	answer   typesv1.HoldState
	consumed int
	digest   func(req *nodev1.OpenHoldRequest) [32]byte
}

func (p *people) OpenHold(ctx context.Context, req *nodev1.OpenHoldRequest, on func(*nodev1.OpenHoldResponse)) (*typesv1.Hold, error) {
	d := p.digest(req)
	h := &typesv1.Hold{Id: "h-1", Digest: d[:], State: typesv1.HoldState_HOLD_STATE_PENDING, ApproverGroups: []string{"leads"}, Statement: req.GetStatement(), Rule: req.GetRule()}
	on(&nodev1.OpenHoldResponse{Hold: h, Url: "https://postern/approvals/h-1"})
	if p.answer == typesv1.HoldState_HOLD_STATE_PENDING {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	h.State = p.answer
	h.Approvals = []*typesv1.Approval{{Subject: "bob", Groups: []string{"leads", "security"}, Approved: p.answer == typesv1.HoldState_HOLD_STATE_APPROVED, Reason: "because"}}
	return h, nil
}

func (p *people) ConsumeHold(_ context.Context, req *nodev1.ConsumeHoldRequest) (*typesv1.Hold, error) {
	if p.consumed++; p.consumed > 1 {
		return nil, &postern.Refusal{Code: postern.CodeCancelled, Reason: "used already"}
	}
	return &typesv1.Hold{Id: req.GetHold(), State: typesv1.HoldState_HOLD_STATE_CONSUMED}, nil
}

// understood is an Analysis of facts that a test made.
type understood struct {
	facts     sql.Facts
	plain     bool
	canonical string
	rewritten string
	err       error
}

func (u *understood) Facts() any        { return &u.facts }
func (u *understood) Plain() bool       { return u.plain }
func (u *understood) Canonical() string { return u.canonical }
func (u *understood) Rewrite([]postern.Obligation) (string, error) {
	return u.rewritten, u.err
}

func reading(table string, columns ...string) sql.Facts {
	roles := map[string]sql.ColumnRole{}
	for _, c := range columns {
		roles[c] = sql.RoleOutput
	}
	return sql.Facts{Complete: true, Statements: []sql.Statement{{Verb: sql.Select, Command: "SELECT", Effect: postern.EffectRead, Returns: true,
		Tables: []sql.Table{{Schema: "sales", Name: table, Kind: sql.KindTable, Verbs: []sql.Verb{sql.Select}, Read: columns, Roles: roles}}}}}
}

func deleting() sql.Facts {
	return sql.Facts{Complete: true, Statements: []sql.Statement{{Verb: sql.Delete, Command: "DELETE", Effect: postern.EffectWrite,
		Tables: []sql.Table{{Schema: "sales", Name: "orders", Kind: sql.KindTable, Verbs: []sql.Verb{sql.Delete}, Read: []string{"id"}, Roles: map[string]sql.ColumnRole{"id": sql.RolePredicate}, Target: true, TargetReads: []string{"id"}}}}}}
}

type rig struct {
	*Gate
	snapshots *holder
	records   *memo
	people    *people
	healthy   error
	analysed  int
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{snapshots: &holder{}, records: &memo{}}
	r.snapshots.load(t, world, 1)
	grant := &postern.Grant{ID: "g-1", Subject: postern.Subject{Name: "alice"}, Task: "report", Start: time.Now(), End: time.Now().Add(time.Hour)}
	r.people = &people{answer: typesv1.HoldState_HOLD_STATE_APPROVED, digest: func(req *nodev1.OpenHoldRequest) [32]byte {
		var ps []postern.Param
		for _, p := range req.GetParameters() {
			ps = append(ps, postern.Param{Value: p.GetValue(), Null: p.Value == nil})
		}
		return postern.HoldDigest("alice", "g-1", "report", "warehouse", postern.Scope(req.GetScope()), req.GetStatement(), ps)
	}}
	r.Gate = New(Config{
		Session: "s-1", Grant: grant, Task: "report", Resource: "warehouse", Node: "n-1",
		Request:   func() policy.Request { return policy.Request{Time: time.Now(), Address: "127.0.0.1"} },
		Snapshots: r.snapshots, Recorder: r.records, Holds: r.people, Healthy: func() error { return r.healthy },
		Cache: NewCache(), Budget: &budget.Budget{}, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	return r
}

func (r *rig) prepare(t testing.TB, text string, u *understood) (*engine.Admission, error) {
	t.Helper()
	return r.Prepare(t.Context(), &engine.Statement{Text: text, Context: "c", Analyse: func(context.Context) (engine.Analysis, error) {
		r.analysed++
		return u, nil
	}})
}

func (r *rig) must(t testing.TB, text string, u *understood) *engine.Admission {
	t.Helper()
	a, err := r.prepare(t, text, u)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func refusal(t testing.TB, err error) *postern.Refusal {
	t.Helper()
	var r *postern.Refusal
	if !errors.As(err, &r) {
		t.Fatalf("error = %v, want a refusal", err)
	}
	return r
}
