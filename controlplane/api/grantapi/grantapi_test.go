package grantapi_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

func TestCreate(t *testing.T) {
	h := newHouse(t)
	r, err := h.create("alice", &apiv1.CreateGrantRequest{Task: "sales-report", Ttl: durationpb.New(10 * time.Minute), Reason: "figures"})
	if err != nil {
		t.Fatal(err)
	}
	g := r.GetGrant()
	switch {
	case !strings.HasPrefix(r.GetToken(), "pst_") || len(r.GetCertificate()) > 0 || !slices.Equal(r.GetResources(), []string{"warehouse"}):
		t.Errorf("answer %v", r)
	case g.GetSubject().GetName() != "alice" || g.GetTask() != "sales-report" || g.GetReason() != "figures" || g.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE:
		t.Errorf("grant %v", g)
	case g.GetEndTime().AsTime().Sub(g.GetStartTime().AsTime()) != 10*time.Minute:
		t.Errorf("it lasts from %s to %s", g.GetStartTime().AsTime(), g.GetEndTime().AsTime())
	case len(g.GetTokenHash()) > 0:
		t.Error("the token's hash is shown")
	}
	if long := h.mustCreate("alice", "sales-report").GetGrant(); long.GetEndTime().AsTime().Sub(long.GetStartTime().AsTime()) != time.Hour {
		t.Errorf("without a time it lasts from %s to %s", long.GetStartTime().AsTime(), long.GetEndTime().AsTime())
	}
	r, err = h.create("alice", &apiv1.CreateGrantRequest{Task: "sales-report", Csr: csr(t)})
	if err != nil || r.GetToken() != "" || !strings.HasPrefix(string(r.GetCertificate()), "-----BEGIN CERTIFICATE-----") || len(r.GetGrant().GetCertificateHash()) > 0 {
		t.Errorf("for a request: %v, %v", r, err)
	}
}

func TestCreateRefuses(t *testing.T) {
	h := newHouse(t)
	const invalid, denied, unauthenticated = connect.CodeInvalidArgument, connect.CodePermissionDenied, connect.CodeUnauthenticated
	for what, c := range map[string]struct {
		who  string
		req  *apiv1.CreateGrantRequest
		code connect.Code
		says string
	}{
		"nobody":                  {"", &apiv1.CreateGrantRequest{Task: "sales-report"}, unauthenticated, "token"},
		"a bad token":             {"nobody", &apiv1.CreateGrantRequest{Task: "sales-report"}, unauthenticated, "wrong audience"},
		"a bad token, and a good": {"nobody", &apiv1.CreateGrantRequest{Task: "nightly-load", WorkloadToken: "nightly"}, unauthenticated, "wrong audience"},
		"who is locked":           {"eve", &apiv1.CreateGrantRequest{Task: "sales-report"}, denied, "has left"},
		"no task":                 {"alice", &apiv1.CreateGrantRequest{}, invalid, "task"},
		"no task's name":          {"alice", &apiv1.CreateGrantRequest{Task: "Sales Report"}, invalid, "task"},
		"no such task":            {"alice", &apiv1.CreateGrantRequest{Task: "nothing"}, denied, "nothing"},
		"another's task":          {"bob", &apiv1.CreateGrantRequest{Task: "sales-report"}, denied, "sales-report"},
		"an admin has no task":    {"root", &apiv1.CreateGrantRequest{Task: "sales-report"}, denied, "sales-report"},
		"less than no time":       {"alice", &apiv1.CreateGrantRequest{Task: "sales-report", Ttl: durationpb.New(-1)}, invalid, "ttl"},
		"a long reason":           {"alice", &apiv1.CreateGrantRequest{Task: "sales-report", Reason: strings.Repeat("x", 2000)}, invalid, "reason"},
		"no certificate request":  {"alice", &apiv1.CreateGrantRequest{Task: "sales-report", Csr: []byte{1}}, invalid, "csr"},
		"people must say yes":     {"alice", &apiv1.CreateGrantRequest{Task: "schema-change"}, connect.CodeFailedPrecondition, "schema-change"},
		"no workload's token":     {"", &apiv1.CreateGrantRequest{Task: "nightly-load", WorkloadToken: "alice"}, unauthenticated, "no workload's"},
		"not the workload's task": {"", &apiv1.CreateGrantRequest{Task: "sales-report", WorkloadToken: "nightly"}, denied, "sales-report"},
		"a workload's at the API": {"nightly", &apiv1.CreateGrantRequest{Task: "nightly-load"}, unauthenticated, "wrong audience"},
	} {
		r, err := h.create(c.who, c.req)
		want(t, what, err, c.code, c.says)
		if r.GetToken() != "" {
			t.Errorf("%s: got a token", what)
		}
	}
	if n := len(h.store.Keys("grant")); n != 0 {
		t.Errorf("%d grants were made", n)
	}
}

// TestWorkload: automation shows its token in the request, and whoever sends it along
// gets the workload's grant, not their own.
func TestWorkload(t *testing.T) {
	h := newHouse(t)
	for _, who := range []string{"", "alice"} {
		r, err := h.create(who, &apiv1.CreateGrantRequest{Task: "nightly-load", WorkloadToken: "nightly"})
		if err != nil || r.GetGrant().GetSubject().GetWorkload() != "nightly" || r.GetToken() == "" {
			t.Errorf("sent by %q: %v, %v", who, r, err)
		}
	}
	want(t, "a workload as nobody asks people", func() error {
		_, err := h.as("").RequestGrant(t.Context(), connect.NewRequest(&apiv1.RequestGrantRequest{Task: "schema-change", Reason: "x"}))
		return err
	}(), connect.CodeUnauthenticated, "")
}

// TestWhoSeesAndEnds: a grant is its subject's, its workload's owner's, and that of roles
// that reach its task; for all others there is none, and nobody is told its token
// (CVE-2025-62712).
func TestWhoSeesAndEnds(t *testing.T) {
	const no, sees, ends = 0, 1, 2
	for _, c := range []struct {
		who   string
		alice int // her grant for sales-report
		night int // the workload's, whose task no scope reaches
	}{
		{"alice", ends, no}, {"anna", no, no}, {"bob", no, no}, {"olga", no, ends},
		{"otto", ends, ends}, {"sara", ends, no}, {"audra", sees, sees}, {"root", ends, ends},
	} {
		h := newHouse(t)
		night, err := h.create("", &apiv1.CreateGrantRequest{Task: "nightly-load", WorkloadToken: "nightly"})
		if err != nil {
			t.Fatal(err)
		}
		listed, err := h.as(c.who).ListGrants(t.Context(), connect.NewRequest(&apiv1.ListGrantsRequest{}))
		if err != nil || c.alice == no && c.night == no && len(listed.Msg.GetGrants()) > 0 {
			t.Errorf("%s lists %v, %v", c.who, listed, err)
		}
		for id, may := range map[string]int{h.mustCreate("alice", "sales-report").GetGrant().GetId(): c.alice, night.GetGrant().GetId(): c.night} {
			got, err := h.as(c.who).GetGrant(t.Context(), connect.NewRequest(&apiv1.GetGrantRequest{Id: id}))
			if may == no {
				want(t, c.who+" reads", err, connect.CodeNotFound, "no grant")
			} else if err != nil || got.Msg.GetGrant().GetId() != id || len(got.Msg.GetGrant().GetTokenHash()) > 0 {
				t.Errorf("%s reads %v, %v", c.who, got, err)
			}
			listed, err := h.as(c.who).ListGrants(t.Context(), connect.NewRequest(&apiv1.ListGrantsRequest{}))
			if err != nil {
				t.Fatal(err)
			}
			if has := slices.ContainsFunc(listed.Msg.GetGrants(), func(g *typesv1.Grant) bool { return g.GetId() == id }); has != (may != no) {
				t.Errorf("%s: listed %v", c.who, has)
			}
			over, err := h.as(c.who).RevokeGrant(t.Context(), connect.NewRequest(&apiv1.RevokeGrantRequest{Id: id, Reason: "done"}))
			switch may {
			case no:
				want(t, c.who+" ends", err, connect.CodeNotFound, "no grant")
			case sees:
				want(t, c.who+" ends", err, connect.CodePermissionDenied, "you are no operator")
			case ends:
				if err != nil || over.Msg.GetGrant().GetState() != typesv1.GrantState_GRANT_STATE_OVER || over.Msg.GetGrant().GetEndReason() != "revoked by "+c.who+": done" {
					t.Errorf("%s ends %v, %v", c.who, over, err)
				}
				_, err = h.as(c.who).RevokeGrant(t.Context(), connect.NewRequest(&apiv1.RevokeGrantRequest{Id: id}))
				want(t, c.who+" ends again", err, connect.CodeFailedPrecondition, "over already")
			}
		}
	}
}

func TestSignedInAlone(t *testing.T) {
	h := newHouse(t)
	id := h.mustCreate("alice", "sales-report").GetGrant().GetId()
	for _, who := range []string{"", "nobody", "eve"} {
		code := connect.CodeUnauthenticated
		if who == "eve" {
			code = connect.CodePermissionDenied
		}
		_, err := h.as(who).GetGrant(t.Context(), connect.NewRequest(&apiv1.GetGrantRequest{Id: id}))
		want(t, who+" reads", err, code, "")
		_, err = h.as(who).ListGrants(t.Context(), connect.NewRequest(&apiv1.ListGrantsRequest{}))
		want(t, who+" lists", err, code, "")
		_, err = h.as(who).RevokeGrant(t.Context(), connect.NewRequest(&apiv1.RevokeGrantRequest{Id: id}))
		want(t, who+" ends", err, code, "")
		_, err = h.as(who).RequestGrant(t.Context(), connect.NewRequest(&apiv1.RequestGrantRequest{Task: "schema-change", Reason: "x"}))
		want(t, who+" asks", err, code, "")
	}
}

func TestList(t *testing.T) {
	h := newHouse(t)
	first := h.mustCreate("alice", "sales-report").GetGrant().GetId()
	second := h.mustCreate("alice", "sales-report").GetGrant().GetId()
	annas := h.mustCreate("anna", "sales-report").GetGrant().GetId()
	if _, err := h.as("alice").RevokeGrant(t.Context(), connect.NewRequest(&apiv1.RevokeGrantRequest{Id: first})); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		who  string
		req  *apiv1.ListGrantsRequest
		want []string
	}{
		"mine, newest first": {"alice", &apiv1.ListGrantsRequest{}, []string{second, first}},
		"that live":          {"alice", &apiv1.ListGrantsRequest{Active: true}, []string{second}},
		"another's":          {"alice", &apiv1.ListGrantsRequest{Subject: "anna"}, nil},
		"all":                {"otto", &apiv1.ListGrantsRequest{}, []string{annas, second, first}},
		"one's":              {"otto", &apiv1.ListGrantsRequest{Subject: "anna", Active: true}, []string{annas}},
		"nobody's":           {"otto", &apiv1.ListGrantsRequest{Subject: "zoe"}, nil},
	} {
		resp, err := h.as(c.who).ListGrants(t.Context(), connect.NewRequest(c.req))
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, g := range resp.Msg.GetGrants() {
			ids = append(ids, g.GetId())
		}
		if !slices.Equal(ids, c.want) {
			t.Errorf("%s: %v, want %v", what, ids, c.want)
		}
	}
}

func TestOddIDs(t *testing.T) {
	h := newHouse(t)
	for _, id := range []string{"", "g-none", "../key/ca", strings.Repeat("x", 1000), "g-\x00", "task/sales-report"} {
		for _, who := range []string{"alice", "root"} {
			_, err := h.as(who).GetGrant(t.Context(), connect.NewRequest(&apiv1.GetGrantRequest{Id: id}))
			want(t, id, err, connect.CodeNotFound, "no grant")
			_, err = h.as(who).RevokeGrant(t.Context(), connect.NewRequest(&apiv1.RevokeGrantRequest{Id: id}))
			want(t, id, err, connect.CodeNotFound, "no grant")
		}
	}
	_, err := h.as("alice").RevokeGrant(t.Context(), connect.NewRequest(&apiv1.RevokeGrantRequest{Id: h.mustCreate("alice", "sales-report").GetGrant().GetId(), Reason: strings.Repeat("x", 2000)}))
	want(t, "a long reason", err, connect.CodeInvalidArgument, "reason")
}

// TestRequest: people are asked, once, and after their yes the task can be taken.
func TestRequest(t *testing.T) {
	h := newHouse(t)
	ask := func(reason string) (*apiv1.RequestGrantResponse, error) {
		resp, err := h.as("alice").RequestGrant(t.Context(), connect.NewRequest(&apiv1.RequestGrantRequest{Task: "schema-change", Reason: reason}))
		if err != nil {
			return nil, err
		}
		return resp.Msg, nil
	}
	_, err := ask("")
	want(t, "without a reason", err, connect.CodeInvalidArgument, "reason")
	first, err := ask("new column")
	if err != nil || first.GetHold().GetId() == "" || first.GetGrant().GetState() != typesv1.GrantState_GRANT_STATE_ASKED {
		t.Fatalf("%v, %v", first, err)
	}
	if again, err := ask("new column"); err != nil || again.GetHold().GetId() != first.GetHold().GetId() {
		t.Errorf("asked twice: %v, %v", again, err)
	}
	_, err = h.create("alice", &apiv1.CreateGrantRequest{Task: "schema-change"})
	want(t, "before the yes", err, connect.CodeFailedPrecondition, "still waits")
	if _, err := h.approve.Review(t.Context(), approve.Caller{Subject: postern.Subject{Name: "bob", Groups: groups["bob"]}}, first.GetHold().GetId(), true, "", nil); err != nil {
		t.Fatal(err)
	}
	after, err := ask("new column")
	if err != nil || after.GetHold() != nil || after.GetGrant().GetId() != first.GetGrant().GetId() || after.GetGrant().GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE {
		t.Errorf("after the yes: %v, %v", after, err)
	}
	r, err := h.create("alice", &apiv1.CreateGrantRequest{Task: "schema-change"})
	if err != nil || r.GetGrant().GetId() != first.GetGrant().GetId() || r.GetToken() == "" {
		t.Errorf("taken: %v, %v", r, err)
	}
	// Where nobody must be asked, asking is taking.
	free, err := h.as("alice").RequestGrant(t.Context(), connect.NewRequest(&apiv1.RequestGrantRequest{Task: "sales-report"}))
	if err != nil || free.Msg.GetHold() != nil || free.Msg.GetGrant().GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE {
		t.Errorf("%v, %v", free, err)
	}
}

// TestAudited: what people did is in the log, with who and from where, and no token.
func TestAudited(t *testing.T) {
	h := newHouse(t)
	r := h.mustCreate("alice", "sales-report")
	if _, err := h.as("otto").RevokeGrant(t.Context(), connect.NewRequest(&apiv1.RevokeGrantRequest{Id: r.GetGrant().GetId(), Reason: "incident"})); err != nil {
		t.Fatal(err)
	}
	entries, _, err := h.log.List(t.Context(), audit.Query{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, e := range entries {
		if strings.Contains(e.String(), r.GetToken()) {
			t.Errorf("the token is in %v", e)
		}
		if e.GetObject() == "grant/"+r.GetGrant().GetId() && strings.HasPrefix(e.GetAddress(), "127.0.0.1") {
			found[e.GetActor()+" "+e.GetAction()] = true
		}
	}
	if !found["alice grant.create"] || !found["otto grant.end"] {
		t.Errorf("found %v in %v", found, entries)
	}
}

// TestStoreDown: nothing is granted that was not written, and the inside is not told.
func TestStoreDown(t *testing.T) {
	h := newHouse(t)
	id := h.mustCreate("alice", "sales-report").GetGrant().GetId()
	h.store.Fail(errors.New("canary: etcd at 10.0.0.7 is down"))
	r, err := h.create("alice", &apiv1.CreateGrantRequest{Task: "sales-report"})
	want(t, "create", err, connect.CodeInternal, "")
	if r != nil {
		t.Errorf("got %v", r)
	}
	_, err = h.as("alice").GetGrant(t.Context(), connect.NewRequest(&apiv1.GetGrantRequest{Id: id}))
	want(t, "get", err, connect.CodeInternal, "")
	_, err = h.as("alice").ListGrants(t.Context(), connect.NewRequest(&apiv1.ListGrantsRequest{}))
	want(t, "list", err, connect.CodeInternal, "")
	_, err = h.as("alice").RevokeGrant(t.Context(), connect.NewRequest(&apiv1.RevokeGrantRequest{Id: id}))
	want(t, "revoke", err, connect.CodeInternal, "")
}
