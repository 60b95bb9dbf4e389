package userapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/object"
)

const create = "/postern.api.v1.PolicyService/Create"

func TestJSON(t *testing.T) {
	h := newHouse(t)
	status, text := h.post(t, "ada", create, `{"object": {"mask": {"metadata": {"name": "email"}, "spec": {"method": "redact", "value": "***"}}}}`)
	if status != 200 || !strings.Contains(text, `"createdBy":"ada"`) {
		t.Errorf("%d %s", status, text)
	}
	status, text = h.post(t, "ada", create, `{"object": {"mask": {"metadata": {"name": "other"}, "spec": {"methode": "redact"}}}}`)
	if status != 400 || !strings.Contains(text, "methode") {
		t.Errorf("a misspelt key: %d %s", status, text)
	}
	status, text = h.post(t, "ada", create, `{"object": {"mask": {"metadata": {"name": "Not A Name"}, "spec": {"method": "redact"}}}}`)
	if status != 400 || !strings.Contains(text, "google.rpc.BadRequest") || !strings.Contains(text, "google.rpc.ErrorInfo") {
		t.Errorf("a bad name: %d %s", status, text)
	}
	status, text = h.post(t, "ada", create, `{"object": {"mask": {"metadata": {"name": "big", "annotations": {"x": "`+strings.Repeat("x", 5<<20)+`"}}}}}`)
	if status == 200 || !strings.Contains(text, "resource_exhausted") {
		t.Errorf("a request that is too large: %d %.200s", status, text)
	}
	status, _ = h.post(t, "ada", create, `{}`, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	if status != 403 {
		t.Errorf("a page of another origin: %d", status)
	}
	status, text = h.post(t, "", "/postern.api.v1.AccessService/LoginOptions", `{}`)
	if status != 200 || !strings.Contains(text, `"name":"dev"`) {
		t.Errorf("login options: %d %s", status, text)
	}
	for _, path := range []string{"/", "/postern.api.v1.PolicyService/", "/postern.api.v1.PolicyService/Drop", "/postern.node.v1.SyncService/Sync", "/debug/pprof/", "/postern.api.v1.SessionService/ListSessions"} {
		if status, text := h.post(t, "ada", path, `{}`); status != 404 {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}

func TestHealthAndReflection(t *testing.T) {
	h := newHouse(t)
	for service, want := range map[string]string{"": "SERVING", "postern.api.v1.PolicyService": "SERVING", "no.such.Service": "not_found"} {
		if _, text := h.post(t, "", "/grpc.health.v1.Health/Check", fmt.Sprintf(`{"service": %q}`, service)); !strings.Contains(text, want) {
			t.Errorf("health of %q: %s", service, text)
		}
	}
	c := grpcreflect.NewClient(h.server.Client(), h.server.URL, connect.WithGRPC())
	s := c.NewStream(t.Context())
	names, err := s.ListServices()
	if err != nil {
		t.Fatal(err)
	}
	if all := fmt.Sprint(names); !strings.Contains(all, "postern.api.v1.PolicyService") || strings.Contains(all, "SessionService") {
		t.Errorf("services: %v", names)
	}
	if _, err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestAuditService(t *testing.T) {
	h := newHouse(t)
	for i := range 5 {
		h.apply(t, fmt.Sprintf("kind: Mask\nmetadata: {name: m-%d}\nspec: {method: \"null\"}", i))
	}
	req := &apiv1.ListAuditEntriesRequest{Actor: "ada", PageSize: 2, Since: timestamppb.New(time.Now().Add(-time.Hour))}
	var got []int64
	for {
		r, err := h.log("ada").ListAuditEntries(t.Context(), connect.NewRequest(req))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Msg.GetEntries() {
			got = append(got, e.GetSequence())
		}
		if req.PageToken = r.Msg.GetNextPageToken(); req.GetPageToken() == "" {
			break
		}
	}
	if fmt.Sprint(got) != "[6 5 4 3 2 1]" { // a login, and five writes
		t.Errorf("entries: %v", got)
	}
	r, err := h.log("ada").ListAuditEntries(t.Context(), connect.NewRequest(&apiv1.ListAuditEntriesRequest{PageSize: 2}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.log("ada").ListAuditEntries(t.Context(), connect.NewRequest(&apiv1.ListAuditEntriesRequest{Actor: "bob", PageToken: r.Msg.GetNextPageToken()}))
	refused(t, err, connect.CodeInvalidArgument, "page_token")
	h.apply(t, "kind: RoleBinding\nmetadata: {name: scoped}\nspec: {role: auditor, subjects: [{group: sales}], scope: {labels: {team: sales}}}")
	_, err = h.log("sam:sales").ListAuditEntries(t.Context(), connect.NewRequest(&apiv1.ListAuditEntriesRequest{}))
	refused(t, err, connect.CodePermissionDenied, "over everything")
	_, err = h.log("olga:operators").ListAuditEntries(t.Context(), connect.NewRequest(&apiv1.ListAuditEntriesRequest{}))
	refused(t, err, connect.CodePermissionDenied)
}

func TestAccess(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	h.apply(t, `
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 2}]}
---
kind: Task
metadata: {name: purge}
spec: {purpose: delete one order, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [delete], columns: [id]}], duration: 30m}
---
kind: Binding
metadata: {name: purgers}
spec: {subjects: [{group: analysts}], tasks: [purge], approval: {scope: statement, rule: leads}}
`)
	alice := h.access("alice:analysts")
	me, err := alice.WhoAmI(t.Context(), connect.NewRequest(&apiv1.WhoAmIRequest{}))
	if err != nil || me.Msg.GetSubject().GetName() != "alice" || len(me.Msg.GetRoles()) != 0 || me.Msg.GetSubject().GetClaims().AsMap()["department"] != "sales" || me.Msg.GetExpireTime() == nil {
		t.Errorf("whoami: %v, %v", me, err)
	}
	h.hub.grants = map[string][]*typesv1.Grant{"alice": {{
		Id: "g-1", Task: "sales-report", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(time.Now().Add(time.Minute)), TokenHash: []byte(canary),
	}}}
	tasks, err := alice.ListTasks(t.Context(), connect.NewRequest(&apiv1.ListTasksRequest{}))
	if err != nil || len(tasks.Msg.GetTasks()) != 2 {
		t.Fatalf("tasks: %v, %v", tasks, err)
	}
	purge, report := tasks.Msg.GetTasks()[0], tasks.Msg.GetTasks()[1]
	if purge.GetTask() != "purge" || purge.GetTerms() != "2 of leads must approve each statement" || purge.GetDuration() != "30m" || purge.GetGrant() != nil {
		t.Errorf("purge: %v", purge)
	}
	if report.GetTerms() != "at once" || report.GetDuration() != "1h" || report.GetGrant().GetId() != "g-1" || len(report.GetGrant().GetTokenHash()) != 0 || fmt.Sprint(report.GetResources()) != "[warehouse]" {
		t.Errorf("report: %v", report)
	}

	h.hub.answer = &nodev1.CommandResult{Done: true, Explanation: &nodev1.Explanation{Verdict: "deny"}}
	ex, err := alice.Explain(t.Context(), connect.NewRequest(&apiv1.ExplainRequest{Task: "sales-report.warehouse", Statement: "drop table x"}))
	if err != nil || ex.Msg.GetExplanation().GetVerdict() != "deny" || ex.Msg.GetNode() != "node-1" {
		t.Errorf("explain: %v, %v", ex, err)
	}
	if q := h.hub.asked.GetExplain(); q.GetSubject().GetName() != "alice" || q.GetTask() != "sales-report" || q.GetResource() != "warehouse" || q.GetStatement() != "drop table x" || fmt.Sprint(noun.AlternativesOf(q.GetAlternatives())) != "[{purge false}]" {
		t.Errorf("the node was asked %v", q)
	}
	_, err = h.access("carol:contractors").Explain(t.Context(), connect.NewRequest(&apiv1.ExplainRequest{Task: "sales-report", Statement: "select 1"}))
	refused(t, err, connect.CodePermissionDenied, "sales-report")
	_, err = alice.Explain(t.Context(), connect.NewRequest(&apiv1.ExplainRequest{Task: "sales-report.payroll", Statement: "select 1"}))
	if err == nil {
		t.Error("a resource that the task does not reach was explained")
	}
	_, err = alice.Explain(t.Context(), connect.NewRequest(&apiv1.ExplainRequest{Task: "sales-report"}))
	refused(t, err, connect.CodeInvalidArgument, "statement")

	h.hub.nodes = []*apiv1.NodeStatus{
		{Name: "node-2", Connected: true, Endpoints: map[string]string{"postgres": "n2:5432"}, Report: &nodev1.NodeReport{Resources: []string{"payroll"}}},
		{Name: "node-1", Connected: true, Region: "eu-1", Endpoints: map[string]string{"postgres": "n1:5432"}, Report: &nodev1.NodeReport{Resources: []string{"payroll", "warehouse"}, Sessions: 3}},
		{Name: "gone", Endpoints: map[string]string{"postgres": "n3:5432"}, Report: &nodev1.NodeReport{Resources: []string{"warehouse"}}},
		{Name: "draining", Connected: true, Endpoints: map[string]string{"postgres": "n4:5432"}, Report: &nodev1.NodeReport{Resources: []string{"warehouse"}, Draining: true}},
	}
	eps, err := alice.ListEndpoints(t.Context(), connect.NewRequest(&apiv1.ListEndpointsRequest{Resource: "warehouse"}))
	if err != nil || len(eps.Msg.GetEndpoints().GetNodes()) != 1 || fmt.Sprint(eps.Msg.GetEndpoints().GetNodes()[0].GetResources()) != "[warehouse]" {
		t.Fatalf("endpoints: %v, %v", eps, err)
	}
	signed := &apiv1.EndpointList{}
	if err := proto.Unmarshal(eps.Msg.GetList(), signed); err != nil || !proto.Equal(signed, eps.Msg.GetEndpoints()) || string(eps.Msg.GetSignature()) != "signed "+string(eps.Msg.GetList()) {
		t.Errorf("what is signed is not what is told: %v, %v", signed, err)
	}
	all, err := alice.ListEndpoints(t.Context(), connect.NewRequest(&apiv1.ListEndpointsRequest{}))
	if err != nil || len(all.Msg.GetEndpoints().GetNodes()) != 2 || all.Msg.GetEndpoints().GetNodes()[0].GetNode() != "node-1" {
		t.Errorf("all endpoints: %v, %v", all, err)
	}
}

func TestNodeAdmin(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	h.hub.nodes = []*apiv1.NodeStatus{{Name: "node-2"}, {Name: "node-1"}}
	r, err := h.nodes("vic:viewers").ListNodes(t.Context(), connect.NewRequest(&apiv1.ListNodesRequest{}))
	if err != nil || len(r.Msg.GetNodes()) != 2 || r.Msg.GetNodes()[0].GetName() != "node-1" || r.Msg.GetVersion().GetEpoch() == "" {
		t.Errorf("nodes: %v, %v", r, err)
	}
	h.hub.nodes = []*apiv1.NodeStatus{{Name: "node-1", Connected: true, Report: &nodev1.NodeReport{Troubles: []*nodev1.ResourceTrouble{
		{Resource: "gone", Error: "nobody may read it"}, {Resource: "warehouse", Error: "the password is wrong"},
	}}}, {Name: "node-2", Report: &nodev1.NodeReport{Troubles: []*nodev1.ResourceTrouble{{Resource: "warehouse", Error: "of a node that is away"}}}}}
	r, err = h.nodes("vic:viewers").ListNodes(t.Context(), connect.NewRequest(&apiv1.ListNodesRequest{}))
	if told := r.Msg.GetNodes()[0].GetReport().GetTroubles(); err != nil || len(told) != 1 || told[0].GetResource() != "warehouse" {
		t.Errorf("a viewer is told of troubles %v, %v", told, err)
	}
	if kept := h.hub.nodes[0].GetReport().GetTroubles(); len(kept) != 2 {
		t.Errorf("what is shown to one has changed what is known: %v", kept)
	}
	health, err := h.access("vic:viewers").Doctor(t.Context(), connect.NewRequest(&apiv1.DoctorRequest{Resource: "warehouse"}))
	if err != nil {
		t.Fatal(err)
	}
	var broken []string
	for _, f := range health.Msg.GetResources()[0].GetFindings() {
		if f.GetSeverity() == "broken" {
			broken = append(broken, f.GetText())
		}
	}
	if len(broken) != 1 || !strings.Contains(broken[0], "by node node-1") || !strings.HasSuffix(broken[0], ": the password is wrong") {
		t.Errorf("doctor finds broken: %q", broken)
	}
	h.hub.answer = &nodev1.CommandResult{Done: true}
	if _, err := h.nodes("olga:operators").DrainNode(t.Context(), connect.NewRequest(&apiv1.DrainNodeRequest{Name: "node-1", Timeout: durationpb.New(time.Minute)})); err != nil {
		t.Error(err)
	}
	if h.hub.asked.GetDrain().GetTimeout().AsDuration() != time.Minute {
		t.Errorf("the node was told %v", h.hub.asked)
	}
	_, err = h.nodes("olga:operators").DrainNode(t.Context(), connect.NewRequest(&apiv1.DrainNodeRequest{Name: "node-9"}))
	refused(t, err, connect.CodeUnavailable, "not connected")
	_, err = h.nodes("olga:operators").DrainNode(t.Context(), connect.NewRequest(&apiv1.DrainNodeRequest{Name: "node-1", Timeout: durationpb.New(-time.Minute)}))
	refused(t, err, connect.CodeInvalidArgument, "timeout")
	token, err := h.nodes("ada").CreateJoinToken(t.Context(), connect.NewRequest(&apiv1.CreateJoinTokenRequest{Name: "node-3"}))
	if err != nil || !strings.HasSuffix(token.Msg.GetToken(), "for node-3 by ada") {
		t.Errorf("join token: %v, %v", token, err)
	}
	_, err = h.nodes("olga:operators").CreateJoinToken(t.Context(), connect.NewRequest(&apiv1.CreateJoinTokenRequest{Name: "node-3"}))
	refused(t, err, connect.CodePermissionDenied)
}

// TestScopedRoles: who has a role over some objects alone is told nothing of the others, and
// takes no node's name.
func TestScopedRoles(t *testing.T) {
	h := newHouse(t)
	h.apply(t, world)
	h.apply(t, `
kind: RoleBinding
metadata: {name: scoped-admins}
spec: {role: admin, subjects: [{group: sales}], scope: {labels: {team: sales}}}
---
kind: RoleBinding
metadata: {name: scoped-viewers}
spec: {role: viewer, subjects: [{group: readers}], scope: {labels: {team: hr}}}
`)
	theirs := object.Bare("node", "theirs")
	object.Meta(theirs).Labels = map[string]string{"team": "hr"}
	key, value, err := store.EncodeObject(theirs)
	if err != nil {
		t.Fatal(err)
	}
	revision, err := h.store.Commit(t.Context(), store.Op{Key: key, Value: value})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cache.WaitFor(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		req  *apiv1.CreateJoinTokenRequest
		want string
	}{
		"a node of theirs": {&apiv1.CreateJoinTokenRequest{Name: "ours", Labels: map[string]string{"team": "sales"}}, ""},
		"other labels":     {&apiv1.CreateJoinTokenRequest{Name: "ours", Labels: map[string]string{"team": "hr"}}, "these labels"},
		"another's name":   {&apiv1.CreateJoinTokenRequest{Name: "theirs", Labels: map[string]string{"team": "sales"}}, "has this name"},
		"a wall":           {&apiv1.CreateJoinTokenRequest{Name: "ours", Labels: map[string]string{"team": "sales"}, Role: "wall"}, "walls are for"},
	} {
		if _, err := h.nodes("sam:sales").CreateJoinToken(t.Context(), connect.NewRequest(c.req)); c.want == "" && err != nil {
			t.Errorf("%s: %v", what, err)
		} else if c.want != "" {
			refused(t, err, connect.CodePermissionDenied, c.want)
		}
	}
	doctor := func(token string, req *apiv1.DoctorRequest) error {
		_, err := h.access(token).Doctor(t.Context(), connect.NewRequest(req))
		return err
	}
	for _, req := range []*apiv1.DoctorRequest{{Resource: "warehouse"}, {Task: "sales-report"}} {
		if err := doctor("vic:viewers", req); err != nil {
			t.Errorf("%v: %v", req, err)
		}
		refused(t, doctor("rita:readers", req), connect.CodeNotFound, "there is no")
	}
}
