package answerapi

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/recording/index"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

func FuzzToken(f *testing.F) {
	f.Add(spot{Time: 1, Session: "s-1", Number: 7}.token())
	f.Add("e30")
	f.Fuzz(func(t *testing.T, token string) {
		var c check
		s := c.token(token)
		if s != nil && c.err() == nil && s.Number > 1<<63-1 {
			t.Errorf("%q gives %+v", token, s)
		}
	})
}

func TestQuestionsAreChecked(t *testing.T) {
	for name, ask := range map[string]func(c *check){
		"no words":         func(c *check) { c.name("name", "", true) },
		"no schema":        func(c *check) { c.name("name", "customers", true) },
		"an empty part":    func(c *check) { c.name("name", "sales..email", false) },
		"a role of what":   func(c *check) { c.role("out", "") },
		"an odd role":      func(c *check) { c.role("seen", "a.b") },
		"an odd verdict":   func(c *check) { c.verdict("maybe") },
		"a negative page":  func(c *check) { c.page(-1) },
		"a large page":     func(c *check) { c.page(maxPage + 1) },
		"an odd token":     func(c *check) { c.token("!") },
		"a zero byte":      func(c *check) { c.fields("a\x00") },
		"an impossible at": func(c *check) { c.time("since", &timestamppb.Timestamp{Nanos: -1}) },
	} {
		var c check
		ask(&c)
		if c.err() == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// takers is an index of who took the task t, the last first.
type takers struct {
	Index
	list []index.Taker
}

func (t takers) Takers(_ context.Context, task, _ string) ([]index.Taker, error) {
	if task != "t" {
		return nil, nil
	}
	return t.list, nil
}

func TestUnusedBindings(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	used := func(days int, subject, workload string, groups ...string) index.Taker {
		return index.Taker{Subject: subject, Workload: workload, Groups: groups, Last: now.AddDate(0, 0, -days)}
	}
	binding := func(name string, s ...*typesv1.SubjectSelector) *typesv1.Binding {
		return &typesv1.Binding{Metadata: &typesv1.Metadata{Name: name}, Spec: &typesv1.BindingSpec{Subjects: s, Tasks: []string{"t"}}}
	}
	h := New(Config{
		Index: takers{list: []index.Taker{used(1, "alice", "", "analysts"), used(100, "bob", "", "leads"), used(120, "nightly", "nightly")}},
		Bindings: func() ([]*typesv1.Binding, error) {
			return []*typesv1.Binding{
				binding("analysts", &typesv1.SubjectSelector{Group: "analysts"}),
				binding("leads", &typesv1.SubjectSelector{Group: "leads"}),
				binding("nightly", &typesv1.SubjectSelector{Workload: "nightly"}),
				binding("nobody", &typesv1.SubjectSelector{Group: "none"}),
				binding("claimed", &typesv1.SubjectSelector{Claim: map[string]string{"team": "x"}}),
			}, nil
		},
		Now: func() time.Time { return now },
	})
	list, err := h.unused(context.Background(), index.Usage{}, now.AddDate(0, 0, -90))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, u := range list {
		got[u.GetBinding()] = u.GetLastTime() != nil
	}
	if len(got) != 3 || !got["leads"] || !got["nightly"] || got["nobody"] {
		t.Errorf("%v", got)
	}
	if list, err := h.unused(context.Background(), index.Usage{Name: "nightly"}, now); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// places is an index of what was used.
type places struct {
	Index
	list []index.Used
}

func (p places) Usage(_ context.Context, q index.Usage) (out []index.Used, _ error) {
	for _, u := range p.list {
		name := q.Name == "" || q.Name == u.Subject || q.Name == u.Account || q.Name == u.Resource || q.Name == u.Workload
		if name && (q.Task == "" || q.Task == u.Task) && (q.Account == "" || q.Account == u.Account) && (q.Subject == "" || q.Subject == u.Subject) && (q.Workload == "" || q.Workload == u.Workload) && (q.Resource == "" || q.Resource == u.Resource) {
			out = append(out, u)
		}
	}
	return out, nil
}

// Who knows of one use, of sales.orders at the warehouse, one second after 1970 began.
func (places) Who(_ context.Context, q index.Who) ([]index.Use, error) {
	if q.Name == "sales.orders" && (q.Resource == "" || q.Resource == "warehouse") && q.Since.Unix() <= 1 {
		return []index.Use{{Session: &typesv1.Session{Resource: "warehouse"}}}, nil
	}
	return nil, nil
}

func (places) Session(_ context.Context, id postern.SessionID) (*typesv1.Session, error) {
	if id != "s-idle" {
		return nil, index.ErrNotFound
	}
	return &typesv1.Session{Id: "s-idle"}, nil
}

func (places) Search(context.Context, index.Query) ([]index.Found, error) { return nil, nil }

// TestUsageOfAnOwner: what a person's workloads do is among what is told of the person,
// each thing once, with who owns it.
func TestUsageOfAnOwner(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	used := func(days int, subject, workload, resource string) index.Used {
		return index.Used{Subject: subject, Workload: workload, Resource: resource, Account: "app", Last: now.AddDate(0, 0, -days)}
	}
	owned := func(name, owner string) *typesv1.Workload {
		return &typesv1.Workload{Metadata: &typesv1.Metadata{Name: name}, Spec: &typesv1.WorkloadSpec{Owner: owner}}
	}
	h := New(Config{
		Index: places{list: []index.Used{
			used(3, "carol", "", "warehouse"), used(1, "nightly", "nightly", "warehouse"), used(2, "repo:x", "ci", "shop"), used(4, "alice", "", "shop"), used(5, "old", "old", "shop"),
		}},
		Workloads: func() []*typesv1.Workload {
			return []*typesv1.Workload{owned("nightly", "carol"), owned("ci", "carol"), owned("bob", "bob")}
		},
		Exists: func(kind, name string) bool { return kind == "workload" && name == "bob" },
		Now:    func() time.Time { return now },
	})
	for _, c := range []struct {
		q    *apiv1.GetUsageRequest
		want string
	}{
		{&apiv1.GetUsageRequest{Name: "carol"}, "nightly of carol, repo:x of carol, carol of "},
		{&apiv1.GetUsageRequest{Name: "carol", Resource: "shop"}, "repo:x of carol"},
		{&apiv1.GetUsageRequest{Name: "carol", Workload: "ci"}, "repo:x of carol"},
		{&apiv1.GetUsageRequest{Subject: "carol"}, "carol of "},
		{&apiv1.GetUsageRequest{Name: "nightly"}, "nightly of carol"},
		{&apiv1.GetUsageRequest{Name: "old"}, "old of "},
		{&apiv1.GetUsageRequest{Name: "bob"}, ""},
		{&apiv1.GetUsageRequest{Account: "app", Name: "app"}, "nightly of carol, repo:x of carol, carol of , alice of , old of "},
	} {
		ctx := authz.With(t.Context(), &authz.Caller{Roles: []policy.RoleGrant{{Role: authz.Auditor}}})
		resp, err := h.GetUsage(ctx, connect.NewRequest(c.q))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, u := range resp.Msg.GetUsage() {
			got = append(got, u.GetSubject()+" of "+u.GetOwner())
		}
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%v: %v, want %s", c.q, got, c.want)
		}
	}
	for name, c := range map[string]*authz.Caller{"nobody": nil, "a viewer": {Roles: []policy.RoleGrant{{Role: authz.Viewer}}}, "an auditor of something": {Roles: []policy.RoleGrant{{Role: authz.Auditor, Scope: map[string]string{"team": "x"}}}}} {
		ctx := t.Context()
		if c != nil {
			ctx = authz.With(ctx, c)
		}
		if _, err := h.GetUsage(ctx, connect.NewRequest(&apiv1.GetUsageRequest{})); err == nil {
			t.Errorf("%s is told", name)
		}
	}
}

// TestUnknownNames: nothing is the answer of who is known and did nothing, and not of a name
// that is nobody's.
func TestUnknownNames(t *testing.T) {
	h := New(Config{
		Index: places{list: []index.Used{{Subject: "alice", Account: "app", Resource: "gone", Last: time.Unix(1, 0)}}},
		Bindings: func() ([]*typesv1.Binding, error) {
			return []*typesv1.Binding{{Spec: &typesv1.BindingSpec{Subjects: []*typesv1.SubjectSelector{{Subject: "bob"}, {Group: "leads"}}}}}, nil
		},
		Workloads: func() []*typesv1.Workload {
			return []*typesv1.Workload{{Metadata: &typesv1.Metadata{Name: "nightly"}, Spec: &typesv1.WorkloadSpec{Owner: "carol"}}}
		},
		Exists: func(kind, name string) bool {
			return slices.Contains([]string{"resource/warehouse", "task/report", "node/n-here"}, kind+"/"+name)
		},
		Told: func(_ context.Context, action, object string) (bool, error) {
			return action+" "+object == "recording.begin session/s-old" || action+" "+object == "node.register node/n-left", nil
		},
		Now: time.Now,
	})
	ctx := authz.With(t.Context(), &authz.Caller{Roles: []policy.RoleGrant{{Role: authz.Auditor}}})
	for ask, want := range map[*apiv1.GetUsageRequest]string{
		{}:                  "",
		{Name: "alice"}:     "",
		{Name: "bob"}:       "",
		{Name: "carol"}:     "",
		{Name: "warehouse"}: "",
		{Subject: "alice", Resource: "warehouse"}:                          "",
		{Task: "report", Account: "app", Resource: "gone", Subject: "bob"}: "",
		{Name: "alcie"}:         `no subject, resource, account or workload is known as "alcie"`,
		{Name: "leads"}:         "is known",
		{Subject: "warehouse"}:  "no subject is known",
		{Task: "reprot"}:        "no task is known",
		{Resource: "warehuose"}: "no resource is known",
		{Account: "appp"}:       "no account is known",
		{Workload: "report"}:    "no workload is known",
	} {
		_, err := h.GetUsage(ctx, connect.NewRequest(ask))
		if err == nil && want != "" || err != nil && (want == "" || fault.CodeOf(err) != codes.NotFound || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v: %v, want %q", ask, err, want)
		}
	}
	for resource, want := range map[string]codes.Code{"warehouse": codes.OK, "gone": codes.OK, "warehuose": codes.NotFound} {
		if _, err := h.WhoUsed(ctx, connect.NewRequest(&apiv1.WhoUsedRequest{Resource: resource})); fault.CodeOf(err) != want {
			t.Errorf("who used %s: %v", resource, err)
		}
		if _, err := h.SearchStatements(ctx, connect.NewRequest(&apiv1.SearchStatementsRequest{Resource: resource})); fault.CodeOf(err) != want {
			t.Errorf("statements on %s: %v", resource, err)
		}
	}
	for ask, want := range map[*apiv1.SearchStatementsRequest]string{
		{Session: "s-idle", Node: "n-here"}:     "",
		{Session: "s-idle", Node: "n-left"}:     "",
		{Session: "s-idel"}:                     `no session is known as "s-idel"`,
		{Session: "s-old"}:                      `session "s-old" was recorded, and its recording is gone`,
		{Node: "n-nowhere"}:                     `no node is known as "n-nowhere"`,
		{Session: "s-idle", Node: "n-nowhere"}:  "no node is known",
		{Session: "s-idle", Subject: "alcie"}:   "no subject is known",
		{Session: "s-idle", Column: "sales.no"}: "nothing on record has ever used",
	} {
		_, err := h.SearchStatements(ctx, connect.NewRequest(ask))
		if err == nil && want != "" || err != nil && (want == "" || fault.CodeOf(err) != codes.NotFound || !strings.Contains(err.Error(), want)) {
			t.Errorf("%v: %v, want %q", ask, err, want)
		}
	}
	for _, c := range []struct{ name, resource, want string }{
		{name: "sales.orders"},
		{name: "sales.orders", resource: "warehouse"},
		{name: "sales.order", want: `nothing on record has ever used "sales.order":`},
		{name: "sales.orders", resource: "gone", want: `nothing on record has ever used "sales.orders" of gone:`},
		{name: "sales.order", resource: "warehuose", want: "no resource is known"},
	} {
		late := timestamppb.New(time.Unix(5, 0)) // when nobody used anything any more
		_, who := h.WhoUsed(ctx, connect.NewRequest(&apiv1.WhoUsedRequest{Name: c.name, Resource: c.resource, Since: late}))
		_, search := h.SearchStatements(ctx, connect.NewRequest(&apiv1.SearchStatementsRequest{Column: c.name, Resource: c.resource}))
		for _, err := range []error{who, search} {
			if err == nil && c.want != "" || err != nil && (c.want == "" || fault.CodeOf(err) != codes.NotFound || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v: %v", c, err)
			}
		}
	}
}
