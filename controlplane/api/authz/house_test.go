package authz_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

var noon = time.Now() // deadlines of contexts are real, and so must be the ends of tokens

// tokens are "name:group", or "name:group:actor" of an actor for whom the scheduler does; the token "dead" has ended.
type tokens struct{}

func (tokens) Authenticate(_ context.Context, bearer string) (postern.Subject, time.Time, error) {
	name, group, ok := strings.Cut(bearer, ":")
	switch {
	case bearer == "dead":
		return postern.Subject{Name: "dead"}, noon, nil
	case bearer == "broken":
		return postern.Subject{}, time.Time{}, errors.New("canary: the keys of the issuer are at 10.0.0.7")
	case !ok:
		return postern.Subject{}, time.Time{}, fault.New(codes.Unauthenticated, "the token is not signed by anybody trusted").WithKind("bad-token")
	}
	group, actor, _ := strings.Cut(group, ":")
	sub := postern.Subject{Name: name, Groups: []string{group}, Actor: actor}
	if actor != "" {
		sub.Via = []string{"scheduler"}
	}
	return sub, noon.Add(time.Hour), nil
}

func roleBinding(role string, scope map[string]string) *typesv1.Object {
	b := &typesv1.RoleBinding{
		ApiVersion: "postern/v1", Kind: "RoleBinding", Metadata: &typesv1.Metadata{Name: role + "s"},
		Spec: &typesv1.RoleBindingSpec{Role: role, Subjects: []*typesv1.SubjectSelector{{Group: role + "s"}}},
	}
	if scope != nil {
		b.Metadata.Name, b.Spec.Subjects[0].Group = "scoped-"+b.Metadata.Name, "scoped-"+role+"s"
		b.Spec.Scope = &typesv1.RoleScope{Labels: scope}
	}
	return &typesv1.Object{Kind: &typesv1.Object_RoleBinding{RoleBinding: b}}
}

// all answers every method; what a test sets does the work of some.
type all struct {
	api.UnimplementedPolicyServiceHandler
	api.UnimplementedAccessServiceHandler
	api.UnimplementedGrantServiceHandler
	api.UnimplementedApprovalServiceHandler
	api.UnimplementedSessionServiceHandler
	api.UnimplementedAuditServiceHandler
	api.UnimplementedAnswerServiceHandler
	api.UnimplementedLockServiceHandler
	api.UnimplementedAccountServiceHandler
	api.UnimplementedNodeAdminServiceHandler
	api.UnimplementedAuthorityServiceHandler
	drain func(context.Context) error
	read  func(context.Context) error
	who   func(context.Context) error
}

func (a *all) DrainNode(ctx context.Context, _ *connect.Request[apiv1.DrainNodeRequest]) (*connect.Response[apiv1.DrainNodeResponse], error) {
	if a.drain != nil {
		if err := a.drain(ctx); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&apiv1.DrainNodeResponse{}), nil
}

func (a *all) WhoAmI(ctx context.Context, _ *connect.Request[apiv1.WhoAmIRequest]) (*connect.Response[apiv1.WhoAmIResponse], error) {
	if a.who != nil {
		if err := a.who(ctx); err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(&apiv1.WhoAmIResponse{}), nil
}

func (a *all) ReadRecording(ctx context.Context, _ *connect.Request[apiv1.ReadRecordingRequest], _ *connect.ServerStream[apiv1.ReadRecordingResponse]) error {
	if a.read != nil {
		return a.read(ctx)
	}
	return nil
}

type house struct {
	store  *storetest.Memory
	log    *audit.Log
	server *httptest.Server
	logged bytes.Buffer
}

// newHouse serves every method behind an Interceptor.
func newHouse(t *testing.T, h *all, change func(*authz.Config)) *house {
	t.Helper()
	team := map[string]string{"team": "sales"}
	objects := []*typesv1.Object{
		roleBinding(authz.Viewer, team), roleBinding(authz.Operator, team), roleBinding(authz.Auditor, team), roleBinding(authz.Admin, team),
		roleBinding(authz.Viewer, nil), roleBinding(authz.Operator, nil), roleBinding(authz.Auditor, nil), roleBinding(authz.Admin, nil),
		{Kind: &typesv1.Object_Lock{Lock: &typesv1.Lock{
			ApiVersion: "postern/v1", Kind: "Lock", Metadata: &typesv1.Metadata{Name: "eve-left"},
			Spec: &typesv1.LockSpec{Subject: "eve", Reason: "has left"},
		}}},
	}
	snapshot, rejected := policy.Compile(postern.Version{Epoch: "e", Revision: 7}, objects)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	out := &house{store: storetest.NewMemory()}
	out.log = audit.New(out.store, func() time.Time { return noon })
	cfg := authz.Config{
		Auth:   tokens{},
		Policy: func() *policy.Snapshot { return snapshot },
		Admins: []*typesv1.SubjectSelector{{Subject: "root"}},
		Audit:  out.log,
		Logger: slog.New(slog.NewTextHandler(&out.logged, nil)),
		Now:    func() time.Time { return noon },
	}
	if change != nil {
		change(&cfg)
	}
	i, err := authz.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mux, opt := http.NewServeMux(), connect.WithInterceptors(i)
	mux.Handle(api.NewPolicyServiceHandler(h, opt))
	mux.Handle(api.NewAccessServiceHandler(h, opt))
	mux.Handle(api.NewGrantServiceHandler(h, opt))
	mux.Handle(api.NewApprovalServiceHandler(h, opt))
	mux.Handle(api.NewSessionServiceHandler(h, opt))
	mux.Handle(api.NewAuditServiceHandler(h, opt))
	mux.Handle(api.NewAnswerServiceHandler(h, opt))
	mux.Handle(api.NewLockServiceHandler(h, opt))
	mux.Handle(api.NewAccountServiceHandler(h, opt))
	mux.Handle(api.NewNodeAdminServiceHandler(h, opt))
	mux.Handle(api.NewAuthorityServiceHandler(h, opt))
	out.server = httptest.NewUnstartedServer(mux)
	out.server.EnableHTTP2 = true
	out.server.StartTLS()
	t.Cleanup(out.server.Close)
	return out
}

func request[T any](token string, m *T) *connect.Request[T] {
	r := connect.NewRequest(m)
	if token != "" {
		r.Header().Set("Authorization", "Bearer "+token)
	}
	return r
}

func (h *house) nodes() api.NodeAdminServiceClient {
	return api.NewNodeAdminServiceClient(h.server.Client(), h.server.URL, connect.WithGRPC())
}

func (h *house) policies() api.PolicyServiceClient {
	return api.NewPolicyServiceClient(h.server.Client(), h.server.URL)
}

func (h *house) access() api.AccessServiceClient {
	return api.NewAccessServiceClient(h.server.Client(), h.server.URL)
}

// entries are those of the audit log but for logins, newest first.
func (h *house) entries(t *testing.T) []*apiv1.AuditEntry {
	t.Helper()
	entries, _, err := h.log.List(t.Context(), audit.Query{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(entries, func(e *apiv1.AuditEntry) bool { return e.GetAction() == authz.LoginAction })
}
