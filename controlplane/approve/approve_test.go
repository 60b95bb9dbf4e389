package approve

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const world = `
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: warehouse, tls: {mode: disable}}, credential: {sealed: rw}, catalog: {sealed: rw}}
---
kind: Task
metadata: {name: purge-order}
spec: {purpose: purge, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [delete], columns: [id], requireWhere: true}], duration: 1h}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}], distinct: true, timeout: 15m, require: [reason]}
---
kind: ApprovalRule
metadata: {name: two}
spec: {all: [{group: leads, atLeast: 2}, {group: security, atLeast: 1}], distinct: true, timeout: 15m, require: [ticket]}
---
kind: Workload
metadata: {name: nightly}
spec: {owner: owen, trust: {issuer: https://ci.example, audience: x, when: claims.a == "b"}, expires: 2099-01-01T00:00:00Z}
`

type fixture struct {
	*Service
	t        *testing.T
	store    *storetest.Memory
	snapshot atomic.Pointer[policy.Snapshot]
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, store: storetest.NewMemory()}
	f.policy(world)
	f.Service = f.replica()
	return f
}

// replica is another Service over the same store.
func (f *fixture) replica() *Service {
	return New(Config{
		Store: f.store, Snapshot: f.snapshot.Load, Audit: audit.New(f.store, time.Now),
		URL: func(id string) string { return "https://control/approvals/" + id }, Logger: slog.New(slog.DiscardHandler),
	})
}

func (f *fixture) policy(yaml string) {
	f.t.Helper()
	s := policytest.Compile(f.t, yaml)
	f.snapshot.Store(s)
}

// start runs the service until the test ends.
func (f *fixture) start() {
	ctx, cancel := context.WithCancel(f.t.Context())
	g := run.New(ctx)
	g.Go("approve", f.Run)
	f.t.Cleanup(func() { cancel(); _ = g.Wait() })
	synctest.Wait()
}

// grant stores a live grant of a subject.
func (f *fixture) grant(id string, sub *typesv1.Subject) {
	f.t.Helper()
	g := &typesv1.Grant{
		Id: id, Subject: sub, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_ACTIVE, Reason: "OPS-7: month end",
		StartTime: timestamppb.Now(), EndTime: timestamppb.New(time.Now().Add(time.Hour)),
	}
	f.save(g)
}

func (f *fixture) save(g *typesv1.Grant) {
	f.t.Helper()
	b, err := proto.Marshal(g)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.store.Commit(f.t.Context(), store.Op{Key: store.Key{Kind: grantKind, Name: g.GetId()}, Value: b, If: store.AnyRevision}); err != nil {
		f.t.Fatal(err)
	}
}

func ask(grant, session, statement string) *nodev1.OpenHoldRequest {
	return &nodev1.OpenHoldRequest{Scope: "statement", Grant: grant, Resource: "warehouse", Session: session, Statement: statement, Rule: "leads"}
}

func (f *fixture) open(req *nodev1.OpenHoldRequest) *typesv1.Hold {
	f.t.Helper()
	h, err := f.OpenHold(f.t.Context(), "n1", req)
	if err != nil {
		f.t.Fatal(err)
	}
	return h
}

func person(name string, groups ...string) Caller {
	return Caller{Subject: postern.Subject{Name: name, Email: name + "@example.com", Groups: groups}}
}

var (
	alice = &typesv1.Subject{Name: "alice", Email: "alice@example.com"}
	bob   = person("bob", "leads")
)

func addressed(name, email string, groups ...string) Caller {
	c := person(name, groups...)
	c.Subject.Email = email
	return c
}

func (f *fixture) state(id string) string {
	f.t.Helper()
	h, _, err := f.load(f.t.Context(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	return stateWord(h)
}

func code(t *testing.T, err error, want codes.Code, text string) {
	t.Helper()
	if err == nil || fault.CodeOf(err) != want || !strings.Contains(err.Error(), text) {
		t.Errorf("error %v (%s), want %s that says %q", err, fault.CodeOf(err), want, text)
	}
}

func TestYesIsUsedOnceByWhoAsksTheSame(t *testing.T) {
	f := newFixture(t)
	f.grant("g-1", alice)
	h := f.open(ask("g-1", "s-1", "DELETE 1"))
	if h.GetReason() != "OPS-7: month end" || !slices.Equal(h.GetApproverGroups(), []string{"leads"}) || h.GetSubject() != "alice" {
		t.Errorf("hold %v", h)
	}
	if other := f.open(ask("g-1", "s-2", "DELETE 1")); other.GetId() != h.GetId() {
		t.Error("the same question is asked twice at once")
	}
	if other := f.open(ask("g-1", "s-1", "DELETE 2")); other.GetId() == h.GetId() {
		t.Error("another question joined")
	}
	null := ask("g-1", "s-1", "DELETE 1")
	null.Parameters = []*typesv1.Parameter{{}}
	if other := f.open(null); other.GetId() == h.GetId() {
		t.Error("other parameters joined")
	}
	_, err := f.Consume(t.Context(), "n1", h.GetId(), h.GetDigest(), "s-1")
	code(t, err, codes.FailedPrecondition, "is pending")
	if _, err := f.Review(t.Context(), bob, h.GetId(), true, "", h.GetDigest()); err != nil {
		t.Fatal(err)
	}
	again := f.open(ask("g-1", "s-3", "DELETE 1"))
	if again.GetId() != h.GetId() || again.GetState() != typesv1.HoldState_HOLD_STATE_APPROVED {
		t.Errorf("a retry after the yes got %v", again)
	}
	_, err = f.Consume(t.Context(), "n1", h.GetId(), make([]byte, 32), "s-3")
	code(t, err, codes.FailedPrecondition, "something else")
	_, err = f.Consume(t.Context(), "n1", h.GetId(), nil, "s-3")
	code(t, err, codes.FailedPrecondition, "something else")
	used, err := f.Consume(t.Context(), "n1", h.GetId(), h.GetDigest(), "s-3")
	if err != nil || used.GetSession() != "s-3" {
		t.Fatal(used, err)
	}
	_, err = f.Consume(t.Context(), "n1", h.GetId(), h.GetDigest(), "s-1")
	code(t, err, codes.FailedPrecondition, "used already")
	if next := f.open(ask("g-1", "s-1", "DELETE 1")); next.GetId() == h.GetId() {
		t.Error("a used yes answers again")
	}
}

func TestConsumeRaces(t *testing.T) {
	f := newFixture(t)
	f.grant("g-1", alice)
	h := f.open(ask("g-1", "s-1", "DELETE 1"))
	if _, err := f.Review(t.Context(), bob, h.GetId(), true, "", nil); err != nil {
		t.Fatal(err)
	}
	replicas := []*Service{f.Service, f.replica()}
	var won atomic.Int32
	g := run.New(t.Context())
	for i := range 8 {
		g.Go("consume", func(ctx context.Context) error {
			if _, err := replicas[i%2].Consume(ctx, "n1", h.GetId(), h.GetDigest(), "s"); err == nil {
				won.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if won.Load() != 1 {
		t.Errorf("one yes was used %d times", won.Load())
	}
}

func TestWhoMayAnswer(t *testing.T) {
	f := newFixture(t)
	f.grant("g-1", &typesv1.Subject{Name: "alice", Email: "alice@example.com", Actor: "bot"})
	f.grant("g-2", &typesv1.Subject{Name: "nightly", Workload: "nightly"})
	f.grant("g-3", &typesv1.Subject{Name: "alice", Actor: "bot", Via: []string{"nightly", "vera"}})
	h, w, e := f.open(ask("g-1", "s-1", "DELETE 1")), f.open(ask("g-2", "s-1", "DELETE 1")), f.open(ask("g-3", "s-1", "DELETE 1"))
	for name, c := range map[string]struct {
		by   Caller
		id   string
		want codes.Code
	}{
		"requester":          {person("alice", "leads"), h.GetId(), codes.PermissionDenied},
		"in capitals":        {person("Alice", "leads"), h.GetId(), codes.PermissionDenied},
		"same address":       {Caller{Subject: postern.Subject{Name: "alice2", Email: "ALICE@example.com", Groups: []string{"leads"}}}, h.GetId(), codes.PermissionDenied},
		"who acts for them":  {person("bot", "leads"), h.GetId(), codes.PermissionDenied},
		"acting for another": {Caller{Subject: postern.Subject{Name: "bob", Actor: "bot", Groups: []string{"leads"}}}, h.GetId(), codes.PermissionDenied},
		"a workload":         {Caller{Subject: postern.Subject{Name: "ci", Workload: "ci", Groups: []string{"leads"}}}, h.GetId(), codes.NotFound},
		"outsider":           {person("carol", "analysts"), h.GetId(), codes.NotFound},
		"nobody":             {Caller{}, h.GetId(), codes.NotFound},
		"owner of workload":  {person("owen", "leads"), w.GetId(), codes.PermissionDenied},
		"acting further off": {person("Vera", "leads"), e.GetId(), codes.PermissionDenied},
		"owner of an actor":  {person("owen", "leads"), e.GetId(), codes.PermissionDenied},
		"a lead":             {bob, w.GetId(), codes.OK},
		"a lead once more":   {bob, e.GetId(), codes.OK},
	} {
		_, err := f.Review(t.Context(), c.by, c.id, true, "", nil)
		if fault.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if s := f.state(h.GetId()); s != "pending" {
		t.Errorf("hold is %s", s)
	}
	_, err := f.Review(t.Context(), bob, h.GetId(), true, "", []byte("what I saw"))
	code(t, err, codes.FailedPrecondition, "something else")
	_, err = f.Review(t.Context(), bob, h.GetId(), false, " ", nil)
	code(t, err, codes.InvalidArgument, "reason")
	no, err := f.Review(t.Context(), bob, h.GetId(), false, "not on a Friday", nil)
	if err != nil || no.GetState() != typesv1.HoldState_HOLD_STATE_REFUSED {
		t.Fatal(no, err)
	}
	_, err = f.Review(t.Context(), person("dora", "leads"), h.GetId(), true, "", nil)
	code(t, err, codes.FailedPrecondition, "is refused already")
}

func TestQuorum(t *testing.T) {
	f := newFixture(t)
	f.grant("g-1", alice)
	req := ask("g-1", "s-1", "DELETE 1")
	req.Rule = "two"
	h := f.open(req)
	for i, c := range []struct {
		by   Caller
		code codes.Code
		want string
	}{
		{addressed("bob", "bob@example.com", "leads", "security"), codes.OK, "pending"},
		{person("bob", "leads", "security"), codes.AlreadyExists, "pending"}, // one person is one person
		{addressed("partner/bob", "Bob@example.com", "leads"), codes.AlreadyExists, "pending"},
		{person("carol", "leads"), codes.OK, "pending"}, // bob cannot stand for both groups
		{person("dave", "security"), codes.OK, "approved"},
	} {
		_, err := f.Review(t.Context(), c.by, h.GetId(), true, "", nil)
		if fault.CodeOf(err) != c.code || f.state(h.GetId()) != c.want {
			t.Errorf("answer %d: %v, hold is %s", i, err, f.state(h.GetId()))
		}
	}
}

func TestGrantMustLive(t *testing.T) {
	f := newFixture(t)
	f.grant("g-1", alice)
	h := f.open(ask("g-1", "s-1", "DELETE 1"))
	if _, err := f.Review(t.Context(), bob, h.GetId(), true, "", nil); err != nil {
		t.Fatal(err)
	}
	p := f.open(ask("g-1", "s-1", "DELETE 2"))
	f.save(&typesv1.Grant{Id: "g-1", Subject: alice, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_OVER, EndTime: timestamppb.New(time.Now().Add(time.Hour))})
	_, err := f.Consume(t.Context(), "n1", h.GetId(), h.GetDigest(), "s-1")
	code(t, err, codes.PermissionDenied, "over")
	_, err = f.Review(t.Context(), bob, p.GetId(), true, "", nil)
	code(t, err, codes.PermissionDenied, "over")
	_, err = f.OpenHold(t.Context(), "n1", ask("g-1", "s-1", "DELETE 3"))
	code(t, err, codes.PermissionDenied, "over")
	_, err = f.OpenHold(t.Context(), "n1", ask("g-none", "s-1", "DELETE 3"))
	code(t, err, codes.NotFound, "gone")
}

// TestALockStopsAYes: whatever a lock stands on, an approval that rests on it is of no use:
// it is not given, not asked for, and not used.
func TestALockStopsAYes(t *testing.T) {
	for _, spec := range []string{
		"subject: alice", "grant: g-1", "resource: warehouse", "node: n1",
		"workload: helper", "subject: helper", "workload: nightly", "subject: nightly", // who act for her
	} {
		f := newFixture(t)
		f.grant("g-1", &typesv1.Subject{Name: "alice", Groups: []string{"analysts"}, Actor: "helper", Via: []string{"nightly"}})
		h := f.open(ask("g-1", "s-1", "DELETE 1"))
		if _, err := f.Review(t.Context(), bob, h.GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		f.policy(world + "\n---\nkind: Lock\nmetadata: {name: out}\nspec: {" + spec + ", reason: it was stolen}\n")
		_, err := f.Consume(t.Context(), "n1", h.GetId(), h.GetDigest(), "s-1")
		code(t, err, codes.PermissionDenied, "it was stolen")
		_, err = f.OpenHold(t.Context(), "n1", ask("g-1", "s-1", "DELETE 2"))
		code(t, err, codes.PermissionDenied, "it was stolen")
		f.policy(world)
		if _, err := f.Consume(t.Context(), "n1", h.GetId(), h.GetDigest(), "s-1"); err != nil {
			t.Errorf("%s: once the lock is gone: %v", spec, err)
		}
	}
}

func TestLockedAndUnknown(t *testing.T) {
	f := newFixture(t)
	f.grant("g-1", alice)
	h := f.open(ask("g-1", "s-1", "DELETE 1"))
	if _, err := f.Review(t.Context(), bob, h.GetId(), true, "", nil); err != nil {
		t.Fatal(err)
	}
	for name, req := range map[string]*nodev1.OpenHoldRequest{
		"no rule":         {Scope: "statement", Grant: "g-1", Resource: "warehouse", Session: "s", Statement: "x", Rule: "none"},
		"scope grant":     {Scope: "grant", Grant: "g-1", Resource: "warehouse", Session: "s", Rule: "leads"},
		"no statement":    {Scope: "statement", Grant: "g-1", Resource: "warehouse", Session: "s", Rule: "leads"},
		"other resource":  {Scope: "session", Grant: "g-1", Resource: "shop", Session: "s", Rule: "leads"},
		"long statement":  {Scope: "statement", Grant: "g-1", Resource: "warehouse", Session: "s", Statement: strings.Repeat("x", 33<<10), Rule: "leads"},
		"many parameters": {Scope: "statement", Grant: "g-1", Resource: "warehouse", Session: "s", Statement: "x", Rule: "leads", Parameters: make([]*typesv1.Parameter, 1001)},
	} {
		if _, err := f.OpenHold(t.Context(), "n1", req); err == nil {
			t.Errorf("%s: parked", name)
		}
	}
	f.policy(world + `
---
kind: Lock
metadata: {name: out}
spec: {subject: alice, reason: she left}
`)
	_, err := f.Consume(t.Context(), "n1", h.GetId(), h.GetDigest(), "s-1")
	code(t, err, codes.PermissionDenied, "she left")
	f.snapshot.Store(nil)
	_, err = f.Consume(t.Context(), "n1", h.GetId(), h.GetDigest(), "s-1")
	code(t, err, codes.Unavailable, "not read its policy")
}
