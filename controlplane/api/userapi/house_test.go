package userapi_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/api/userapi"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/etcd"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const canary = "hunter2-canary"

// people sign in with their names; groups follow after colons.
type people struct{}

func (people) Authenticate(_ context.Context, bearer string) (postern.Subject, time.Time, error) {
	parts := strings.Split(bearer, ":")
	if parts[0] == "nobody" {
		return postern.Subject{}, time.Time{}, fault.New(codes.Unauthenticated, "who?").WithKind("bad-token")
	}
	return postern.Subject{Name: parts[0], Groups: parts[1:], Claims: map[string]any{"department": "sales"}}, time.Now().Add(time.Hour), nil
}

// sealer seals by turning the text around, so that a test sees whether it was asked.
type sealer struct{}

func (sealer) SealSecret(_ context.Context, name string, data map[string]string) ([]byte, error) {
	return []byte("sealed " + name + " of " + data["value"][:1]), nil
}

// house is the API on a real store.
type house struct {
	store  *etcd.Store
	cache  *store.Cache
	audit  *audit.Log
	hub    *hub
	server *httptest.Server
}

func newHouse(t *testing.T) *house {
	t.Helper()
	s, err := etcd.Open(t.Context(), etcd.Config{Embedded: &etcd.Embedded{Dir: t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	h := &house{store: s, cache: store.NewCache(s, nil, userapi.PolicyKinds()...), audit: audit.New(s, time.Now)}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	g := run.New(ctx)
	g.Go("cache", h.cache.Run)
	t.Cleanup(func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	<-h.cache.Ready()
	h.hub = &hub{cache: h.cache}
	i, err := authz.New(authz.Config{
		Auth: people{}, Policy: h.hub.Snapshot, Staleness: h.cache.Staleness,
		Admins: []*typesv1.SubjectSelector{{Subject: "ada"}},
		Audit:  h.audit, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	h.server = httptest.NewUnstartedServer(userapi.Handler(userapi.Services{
		Interceptor: i,
		Policy:      userapi.NewPolicy(userapi.PolicyConfig{Store: s, Cache: h.cache, Audit: h.audit, Sealer: sealer{}, Grant: h.hub.Grant, Now: time.Now}),
		Access: userapi.NewAccess(userapi.AccessConfig{
			SSHHostCAs: func() string { return "" },
			Hub:        h.hub, Logins: h.hub, Signer: h.hub, Now: time.Now,
			Grants: func(_ context.Context, c *authz.Caller) ([]*typesv1.Grant, error) {
				return h.hub.grants[c.Subject.Name], nil
			},
		}),
		Audit:     userapi.NewAudit(h.audit),
		NodeAdmin: userapi.NewNodes(h.hub, h.hub, h.cache),
		Ready:     s.Ping,
	}))
	h.server.EnableHTTP2 = true
	h.server.StartTLS()
	t.Cleanup(h.server.Close)
	return h
}

// policy is a gRPC client for one person.
func (h *house) policy(token string) api.PolicyServiceClient {
	return api.NewPolicyServiceClient(h.server.Client(), h.server.URL, connect.WithGRPC(), as(token))
}

func (h *house) access(token string) api.AccessServiceClient {
	return api.NewAccessServiceClient(h.server.Client(), h.server.URL, as(token))
}

func (h *house) nodes(token string) api.NodeAdminServiceClient {
	return api.NewNodeAdminServiceClient(h.server.Client(), h.server.URL, as(token))
}

func (h *house) log(token string) api.AuditServiceClient {
	return api.NewAuditServiceClient(h.server.Client(), h.server.URL, connect.WithGRPCWeb(), as(token))
}

// bearer puts a token into every call of a client.
type bearer string

func as(token string) connect.ClientOption { return connect.WithInterceptors(bearer(token)) }

func (b bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		r.Header().Set("Authorization", "Bearer "+string(b))
		return next(ctx, r)
	}
}

func (b bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, s connect.Spec) connect.StreamingClientConn {
		c := next(ctx, s)
		c.RequestHeader().Set("Authorization", "Bearer "+string(b))
		return c
	}
}

func (bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// post sends JSON as curl does.
func (h *house) post(t *testing.T, token, procedure, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.server.URL+procedure, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := h.server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func yaml(t *testing.T, text string) []*typesv1.Object {
	t.Helper()
	all, err := object.ParseYAML(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (h *house) apply(t *testing.T, text string) *apiv1.ApplyResponse {
	t.Helper()
	r, err := h.policy("ada").Apply(t.Context(), connect.NewRequest(&apiv1.ApplyRequest{Objects: yaml(t, text)}))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cache.WaitFor(t.Context(), r.Msg.GetVersion().GetRevision()); err != nil {
		t.Fatal(err)
	}
	return r.Msg
}

func (h *house) get(t *testing.T, kind, name string) *typesv1.Object {
	t.Helper()
	r, err := h.policy("ada").Get(t.Context(), connect.NewRequest(&apiv1.GetRequest{Kind: kind, Name: name}))
	if err != nil {
		t.Fatal(err)
	}
	return r.Msg
}

// refused checks an error, and returns its text.
func refused(t *testing.T, err error, code connect.Code, parts ...string) {
	t.Helper()
	var c *connect.Error
	if !errors.As(err, &c) || c.Code() != code {
		t.Errorf("error = %v, want %v", err, code)
		return
	}
	for _, p := range parts {
		if !strings.Contains(c.Message(), p) {
			t.Errorf("error %q does not say %q", c.Message(), p)
		}
	}
}

// hub stands for the fleet, enrolment, login and signing.
type hub struct {
	cache  *store.Cache
	nodes  []*apiv1.NodeStatus
	grants map[string][]*typesv1.Grant
	asked  *nodev1.Command
	answer *nodev1.CommandResult
	down   bool // no node serves anything
}

func (h *hub) Nodes() []*apiv1.NodeStatus { return h.nodes }
func (h *hub) Version() postern.Version   { return h.cache.Version() }

func (h *hub) Snapshot() *policy.Snapshot {
	view := h.cache.View()
	var all []*typesv1.Object
	for _, kind := range userapi.PolicyKinds() {
		for e := range view.All(kind) {
			o, err := store.DecodeObject(e)
			if err != nil && kind == "lock" {
				o, err = object.Bare(kind, e.Name), nil
			}
			if err == nil {
				all = append(all, o)
			}
		}
	}
	s, _ := policy.Compile(view.Version(), all)
	return s
}

func (h *hub) Grant(_ context.Context, id postern.GrantID) (*typesv1.Grant, error) {
	for _, all := range h.grants {
		for _, g := range all {
			if g.GetId() == string(id) {
				return g, nil
			}
		}
	}
	return nil, fault.New(codes.NotFound, "there is no grant %q", id)
}

func (h *hub) Command(_ context.Context, node postern.NodeName, cmd *nodev1.Command) (*nodev1.CommandResult, error) {
	if node != "node-1" {
		return nil, fault.New(codes.Unavailable, "node %q is not connected", node)
	}
	h.asked = cmd
	return h.answer, nil
}

func (h *hub) NodeFor(r postern.ResourceName) (postern.NodeName, bool) {
	return "node-1", r == "warehouse" && !h.down
}

func (h *hub) WallFor(postern.ResourceName) (postern.NodeName, bool) { return "", false }

func (h *hub) CreateJoinToken(_ context.Context, by, _ string, r *apiv1.CreateJoinTokenRequest) (*apiv1.CreateJoinTokenResponse, error) {
	return &apiv1.CreateJoinTokenResponse{Token: canary + " for " + r.GetName() + " by " + by}, nil
}

func (h *hub) Options() []*apiv1.LoginIssuer { return []*apiv1.LoginIssuer{{Name: "dev"}} }

func (h *hub) SignList(list []byte) ([]byte, error) { return append([]byte("signed "), list...), nil }
