package blast

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
)

const company = `
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: warehouse, tls: {mode: disable}}, credential: {sealed: app}, catalog: {sealed: catalog}, level: {want: source, admin: {sealed: boss}}}
---
kind: Resource
metadata: {name: vaulted}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5433, database: v, tls: {mode: disable}}, credential: {vault: {mount: database, role: app}}, catalog: {vault: {mount: database, role: app}}}
---
kind: Task
metadata: {name: report}
spec: {purpose: figures, resources: {names: [warehouse]}, permit: [{table: public.t, verbs: [select], columns: [id, name]}], duration: 1h}
---
kind: Task
metadata: {name: purge}
spec: {purpose: purge, resources: {names: [warehouse]}, permit: [{table: public.t, verbs: [delete], columns: [id]}], duration: 1h}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}]}
---
kind: Binding
metadata: {name: analysts}
spec: {subjects: [{group: analysts}, {workload: nightly}], tasks: [report]}
---
kind: Binding
metadata: {name: analysts-purge}
spec: {subjects: [{group: analysts}], tasks: [purge], approval: {scope: grant, rule: leads}}
---
kind: Workload
metadata: {name: nightly}
spec: {owner: ada, trust: {issuer: https://ci.example, audience: x, when: claims.a == "b"}, expires: 2099-01-01T00:00:00Z, actsFor: [{group: analysts}]}
`

const out = `---
kind: Lock
metadata: {name: out}
spec: {SPEC, reason: stolen}
`

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// house is a Service with what it asks, all of which a test may change.
type house struct {
	*Service
	t        *testing.T
	snapshot *policy.Snapshot
	data     func(token string) (postern.Subject, error)
	api      func(token string) (postern.Subject, error)
	opens    func(token string) (*typesv1.Grant, string, error)
	grants   []*typesv1.Grant
	node     *typesv1.Node
	loans    []credential.Lent
	broken   error
}

func (h *house) Data(_ context.Context, token string) (postern.Subject, time.Time, error) {
	sub, err := h.data(token)
	return sub, now.Add(time.Hour), err
}

func (h *house) Authenticate(_ context.Context, token string) (postern.Subject, time.Time, error) {
	sub, err := h.api(token)
	return sub, now.Add(time.Hour), err
}

func (h *house) Opens(_ context.Context, token string) (*typesv1.Grant, string, error) {
	return h.opens(token)
}

func (h *house) Standing(_ context.Context, id string) (*typesv1.Grant, string, string, error) {
	for _, g := range h.grants {
		if g.GetId() == id {
			return g, "", "", nil
		}
	}
	return nil, "", "", fault.New(codes.NotFound, "there is no grant %q", id)
}

func (h *house) Held(context.Context, postern.Subject) ([]*typesv1.Grant, error) {
	return h.grants, h.broken
}

func refused(string) (postern.Subject, error) {
	return postern.Subject{}, fault.New(codes.Unauthenticated, "this is no token")
}

func subject(s postern.Subject) func(string) (postern.Subject, error) {
	return func(string) (postern.Subject, error) { return s, nil }
}

func newHouse(t *testing.T, more string) *house {
	t.Helper()
	h := &house{t: t, data: refused, api: refused, node: &typesv1.Node{Spec: &typesv1.NodeSpec{Endpoints: map[string]string{"postgres": "n1:5432"}}}}
	h.opens = func(string) (*typesv1.Grant, string, error) { return nil, "", fault.New(codes.NotFound, "not on file") }
	h.snapshot = policytest.Compile(t, company+more)
	h.Service = New(Config{
		Snapshot: func() *policy.Snapshot { return h.snapshot }, Verifier: h, Grants: h, Now: func() time.Time { return now },
		Methods: func(postern.Subject) []string { return []string{"/a/B", "/a/C"} },
		Nodes: func() []*apiv1.NodeStatus {
			return []*apiv1.NodeStatus{
				{Name: "n1", Connected: true, Endpoints: map[string]string{"postgres": "n1:5432"}, Report: &nodev1.NodeReport{Resources: []string{"warehouse"}}},
				{Name: "gone", Endpoints: map[string]string{"postgres": "gone:5432"}, Report: &nodev1.NodeReport{Resources: []string{"warehouse"}}},
				{Name: "other", Connected: true, Endpoints: map[string]string{"postgres": "other:5432"}, Report: &nodev1.NodeReport{Resources: []string{"vaulted"}}},
			}
		},
		Node: func(_ context.Context, name postern.NodeName) (*typesv1.Node, error) {
			if name != "n1" {
				return nil, h.broken
			}
			return h.node, h.broken
		},
		Serves: func(_ *typesv1.Node, r *typesv1.Resource) bool { return r.GetMetadata().GetName() == "warehouse" },
		Loans: func(_ context.Context, keep func(*credential.Lent) bool) ([]credential.Lent, error) {
			var all []credential.Lent
			for _, l := range h.loans {
				if keep(&l) {
					all = append(all, l)
				}
			}
			return all, h.broken
		},
	})
	return h
}

func (h *house) of(req *apiv1.GetBlastRequest) *apiv1.GetBlastResponse {
	h.t.Helper()
	resp, err := h.Of(h.t.Context(), req)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp
}

// acts are what is listed: the act, and of which task, resource or method.
func acts(r *apiv1.GetBlastResponse) []string {
	var out []string
	for _, one := range r.GetReaches() {
		out = append(out, strings.TrimSpace(one.GetAct()+" "+one.GetTask()+" "+one.GetResource()))
	}
	return out
}

func live(task string) *typesv1.Grant {
	return &typesv1.Grant{Id: "g-1", Task: task, Subject: &typesv1.Subject{Name: "alice"}, State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(now.Add(time.Minute))}
}

func TestWhatIsAsked(t *testing.T) {
	h := newHouse(t, "")
	for name, c := range map[string]struct {
		req  *apiv1.GetBlastRequest
		want codes.Code
	}{
		"nothing":    {&apiv1.GetBlastRequest{}, codes.InvalidArgument},
		"two things": {&apiv1.GetBlastRequest{Node: "n1", Lease: "l-1"}, codes.InvalidArgument},
		"no node":    {&apiv1.GetBlastRequest{Node: "n9"}, codes.NotFound},
		"no lease":   {&apiv1.GetBlastRequest{Lease: "l-9"}, codes.NotFound},
		"no grant":   {&apiv1.GetBlastRequest{Grant: "g-9"}, codes.NotFound},
	} {
		if _, err := h.Of(t.Context(), c.req); fault.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.snapshot = &policy.Snapshot{}
	if _, err := h.Of(t.Context(), &apiv1.GetBlastRequest{Node: "n1"}); fault.CodeOf(err) != codes.Unavailable {
		t.Errorf("before any policy: %v", err)
	}
}

// TestWhatCannotBeRuledOut: what the store or the issuer does not tell is an error, and
// never "dead", which would be believed.
func TestWhatCannotBeRuledOut(t *testing.T) {
	h := newHouse(t, "")
	lost := fault.New(codes.Unavailable, "away")
	unavailable := func(string) (postern.Subject, error) { return postern.Subject{}, lost }
	for name, set := range map[string]func(){
		"the grants":                func() { h.opens = func(string) (*typesv1.Grant, string, error) { return nil, "", lost } },
		"the issuer, for listeners": func() { h.data = unavailable },
		"the issuer, for the API":   func() { h.data, h.api = refused, unavailable },
		"what is held":              func() { h.data, h.broken = subject(postern.Subject{Name: "alice", Groups: []string{"analysts"}}), lost },
	} {
		set()
		for _, token := range []string{"pst_x", "ey.x.y"} {
			if strings.HasPrefix(token, "pst_") != (name == "the grants") {
				continue
			}
			if resp, err := h.Of(t.Context(), &apiv1.GetBlastRequest{Token: token}); fault.CodeOf(err) != codes.Unavailable {
				t.Errorf("%s: %v, %v", name, resp, err)
			}
		}
		h = newHouse(t, "")
	}
	h.broken = lost
	for _, req := range []*apiv1.GetBlastRequest{{Node: "n1"}, {Lease: "l-1"}} {
		if _, err := h.Of(t.Context(), req); !errors.Is(err, lost) {
			t.Errorf("%v: %v", req, err)
		}
	}
}

func TestTokens(t *testing.T) {
	alice := postern.Subject{Name: "alice", Groups: []string{"analysts"}}
	h := newHouse(t, "")
	if r := h.of(&apiv1.GetBlastRequest{Token: "pst_x"}); r.GetDead() != "not on file" || len(r.GetReaches()) != 0 {
		t.Errorf("a grant token that is not on file: %v", r)
	}
	if r := h.of(&apiv1.GetBlastRequest{Token: "x"}); r.GetDead() == "" || len(r.GetReaches()) != 0 {
		t.Errorf("no token: %v", r)
	}

	h.opens = func(string) (*typesv1.Grant, string, error) { return live("report"), "", nil }
	r := h.of(&apiv1.GetBlastRequest{Token: "pst_x"})
	if got := acts(r); !slices.Equal(got, []string{"connect report warehouse"}) || !r.GetEndTime().AsTime().Equal(now.Add(time.Minute)) {
		t.Errorf("a grant token: %v until %v", got, r.GetEndTime().AsTime())
	}
	if one := r.GetReaches()[0]; !slices.Equal(one.GetAddresses(), []string{"n1:5432"}) || one.GetRights()[0].GetVerb() != "select" || !slices.Equal(one.GetRights()[0].GetColumns(), []string{"id", "name"}) {
		t.Errorf("%v", one)
	}
	if !slices.Equal(r.GetStops(), []string{"postern revoke g-1 --reason stolen", "postern lock --grant g-1 --reason stolen"}) {
		t.Errorf("%v", r.GetStops())
	}
	h.opens = func(string) (*typesv1.Grant, string, error) { return live("report"), "its time is over", nil }
	if r := h.of(&apiv1.GetBlastRequest{Token: "pst_x"}); r.GetDead() != "its time is over" || len(r.GetReaches()) != 0 {
		t.Errorf("over: %v", r)
	}

	// A login opens what needs no yes before, to the end of a grant that begins in its last moment.
	h.data = subject(alice)
	if r := h.of(&apiv1.GetBlastRequest{Token: "x"}); !slices.Equal(acts(r), []string{"connect report warehouse"}) || !r.GetEndTime().AsTime().Equal(now.Add(2*time.Hour)) {
		t.Errorf("a login: %v until %v", acts(r), r.GetEndTime().AsTime())
	}
	// A task that was said yes to is open while its grant lives.
	h.grants = []*typesv1.Grant{live("purge")}
	if r := h.of(&apiv1.GetBlastRequest{Token: "x"}); !slices.Equal(acts(r), []string{"connect purge warehouse", "connect report warehouse"}) {
		t.Errorf("with a grant: %v", acts(r))
	}
	h.grants = []*typesv1.Grant{live("report")}
	if r := h.of(&apiv1.GetBlastRequest{Token: "x"}); len(r.GetReaches()) != 2 || !slices.Contains(r.GetReaches()[1].GetTerms(), "once the grant that is live now is over") {
		t.Errorf("twice: %v", r)
	}
	h.grants = nil

	// A workload takes grants besides, and acts for others.
	h.data = subject(postern.Subject{Name: "nightly", Workload: "nightly"})
	r = h.of(&apiv1.GetBlastRequest{Token: "x"})
	if got := acts(r); !slices.Equal(got, []string{"connect report warehouse", "take report warehouse"}) || !strings.Contains(strings.Join(r.GetNotes(), " "), "it acts for") || r.GetStops()[0] != "postern lock --workload nightly --reason stolen" {
		t.Errorf("a workload: %v", r)
	}

	// At the API it calls, and takes or asks.
	h.data, h.api = refused, subject(alice)
	r = h.of(&apiv1.GetBlastRequest{Token: "x"})
	if got := acts(r); got[0] != "call" || len(r.GetReaches()[0].GetRights()) != 2 || !slices.Contains(got, "take report warehouse") || slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "connect") }) {
		t.Errorf("for the API: %v", got)
	}

	locked := newHouse(t, strings.Replace(out, "SPEC", "subject: alice", 1))
	for name, set := range map[string]func(){"listeners": func() { locked.data = subject(alice) }, "the API": func() { locked.data, locked.api = refused, subject(alice) }} {
		set()
		if r := locked.of(&apiv1.GetBlastRequest{Token: "x"}); !strings.Contains(r.GetDead(), "lock out") || len(r.GetReaches()) != 0 {
			t.Errorf("a locked subject at %s: %v", name, r)
		}
	}
}

func TestNodes(t *testing.T) {
	h := newHouse(t, "")
	h.loans = []credential.Lent{
		{ID: "l-1", Node: "n1", Session: "s-1", Grant: "g-1", Task: "report", Resource: "warehouse", Purpose: credential.PurposeSession, Source: "sealed", Where: "app", Account: "app", Live: true},
		{ID: "l-2", Node: "n2", Session: "s-2", Grant: "g-2", Task: "report", Resource: "warehouse", Purpose: credential.PurposeSession, Live: true},
		{ID: "l-3", Node: "n1", Session: "s-3", Grant: "g-3", Task: "report", Resource: "warehouse", Purpose: credential.PurposeSession},
	}
	r := h.of(&apiv1.GetBlastRequest{Node: "n1"})
	if got := acts(r); !slices.Equal(got, []string{"renew", "policy", "pose", "record", "borrow  warehouse", "borrow report warehouse"}) || r.GetEndTime() != nil {
		t.Errorf("%v until %v", got, r.GetEndTime())
	}
	last := r.GetReaches()[len(r.GetReaches())-1]
	if last.GetLease() != "l-1" || !strings.Contains(strings.Join(last.GetTerms(), " "), "knowing grant g-1") || last.GetRights()[0].GetVerb() != policy.Anything {
		t.Errorf("%v", last)
	}
	if !slices.Equal(r.GetStops(), []string{"postern lock --node n1 --reason stolen", "postern rotate app", "postern rotate catalog"}) {
		t.Errorf("%v", r.GetStops())
	}
	if notes := strings.Join(r.GetNotes(), " "); !strings.Contains(notes, "opened at this node") || !strings.Contains(notes, "sealed to the recording key") {
		t.Errorf("%v", notes)
	}

	h.node = &typesv1.Node{Spec: &typesv1.NodeSpec{Role: postern.RoleWall}}
	r = h.of(&apiv1.GetBlastRequest{Node: "n1"})
	if got := acts(r); slices.Contains(got, "pose") || slices.Contains(got, "record") || !slices.Contains(r.GetReaches()[2].GetTerms(), "the credential for purpose admin") || !slices.Contains(r.GetStops(), "postern rotate boss") {
		t.Errorf("a wall: %v, %v", got, r.GetStops())
	}

	locked := newHouse(t, strings.Replace(out, "SPEC", "node: n1", 1))
	if r := locked.of(&apiv1.GetBlastRequest{Node: "n1"}); !strings.Contains(r.GetDead(), "lock out") || len(r.GetReaches()) != 0 {
		t.Errorf("a locked node: %v", r)
	}
}

func TestLeases(t *testing.T) {
	until := now.Add(time.Minute)
	for name, c := range map[string]struct {
		lent  credential.Lent
		dead  bool
		end   time.Time
		stops []string
	}{
		"made, alive": {
			credential.Lent{Made: true, Live: true, Until: until, Session: "s-1", Grant: "g-1", Purpose: credential.PurposeSession, Source: "vault", Where: "database/creds/app"}, false, until,
			[]string{"postern sessions kill s-1 --reason stolen", "postern lock --grant g-1 --reason stolen"},
		},
		"made, over": {credential.Lent{Made: true, Until: until, State: "revoked", Source: "vault", Where: "database/creds/app"}, true, time.Time{}, nil},
		"made, for the catalogue": {
			credential.Lent{Made: true, Live: true, Until: until, Session: "s-1", Purpose: credential.PurposeCatalog, Source: "vault", Where: "database/creds/app"}, false, until, nil,
		},
		"sealed, alive": {credential.Lent{Live: true, Grant: "g-1", Source: "sealed", Where: "app", Purpose: credential.PurposeSession}, false, time.Time{}, []string{"postern rotate app"}},
		"sealed, over":  {credential.Lent{Source: "sealed", Where: "my app", Purpose: credential.PurposeSession}, false, time.Time{}, []string{"postern rotate 'my app'"}},
		"static":        {credential.Lent{Source: "vault", Where: "database/static-creds/app"}, false, time.Time{}, []string{"postern rotate database/app"}},
		"KV":            {credential.Lent{Source: "vault", Where: "kv/data/app"}, false, time.Time{}, []string{"postern rotate kv/app"}},
	} {
		h := newHouse(t, "")
		c.lent.ID, c.lent.Node, c.lent.Task, c.lent.Resource, c.lent.Account = "l-1", "n1", "report", "warehouse", "app"
		h.loans = []credential.Lent{c.lent}
		r := h.of(&apiv1.GetBlastRequest{Lease: "l-1"})
		if (r.GetDead() != "") != c.dead || c.dead == (len(r.GetReaches()) > 0) || !slices.Equal(r.GetStops(), c.stops) {
			t.Errorf("%s: %v", name, r)
			continue
		}
		if c.dead {
			continue
		}
		if one := r.GetReaches()[0]; one.GetAct() != Login || one.GetAccount() != "app" || !slices.Equal(one.GetAddresses(), []string{"127.0.0.1:5432"}) || one.GetRights()[0].GetVerb() != policy.Anything {
			t.Errorf("%s: %v", name, one)
		}
		if end := r.GetEndTime(); (end == nil) != c.end.IsZero() || end != nil && !end.AsTime().Equal(c.end) {
			t.Errorf("%s: ends at %v", name, end)
		}
	}
}

func TestQuoted(t *testing.T) {
	for word, want := range map[string]string{"alice@example.com": "alice@example.com", "corp/bob": "corp/bob", "a b": "'a b'", "x;rm": "'x;rm'", "it's": `'it'\''s'`, "$(id)": "'$(id)'"} {
		if got := quoted(word); got != want {
			t.Errorf("%q: %s", word, got)
		}
	}
}
