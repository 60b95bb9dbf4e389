package grantapi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
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
	"github.com/posterngate/postern/controlplane/api/grantapi"
	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/controlplane/task"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const company = `
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: warehouse, tls: {mode: disable}}, credential: {sealed: rw}, catalog: {sealed: rw}}
---
kind: Task
metadata: {name: sales-report, labels: {team: sales}}
spec: {purpose: figures, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [select], columns: [id]}], duration: 1h}
---
kind: Task
metadata: {name: schema-change, labels: {team: dba}}
spec: {purpose: DDL, resources: {names: [warehouse]}, permit: [{commands: [create table], schemas: [sales]}], duration: 30m}
---
kind: Task
metadata: {name: nightly-load}
spec: {purpose: load, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [select], columns: [id]}], duration: 2h}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}], timeout: 15m, require: [reason]}
---
kind: Binding
metadata: {name: analysts}
spec: {subjects: [{group: analysts}], tasks: [sales-report]}
---
kind: Binding
metadata: {name: analysts-schema}
spec: {subjects: [{group: analysts}], tasks: [schema-change], approval: {scope: grant, rule: leads}}
---
kind: Binding
metadata: {name: nightly}
spec: {subjects: [{workload: nightly}], tasks: [nightly-load]}
---
kind: Workload
metadata: {name: nightly}
spec: {owner: olga, trust: {issuer: https://ci.example, audience: x, when: claims.a == "b"}, expires: 2099-01-01T00:00:00Z}
---
kind: RoleBinding
metadata: {name: operators}
spec: {role: operator, subjects: [{subject: otto}]}
---
kind: RoleBinding
metadata: {name: sales-operators}
spec: {role: operator, subjects: [{subject: sara}], scope: {labels: {team: sales}}}
---
kind: RoleBinding
metadata: {name: auditors}
spec: {role: auditor, subjects: [{subject: audra}]}
---
kind: Lock
metadata: {name: eve-left}
spec: {subject: eve, reason: has left}
`

// tokens verifies what names its subject; that of a workload is not for the API.
type tokens struct{}

var groups = map[string][]string{"alice": {"analysts"}, "anna": {"analysts"}, "eve": {"analysts"}, "bob": {"leads"}}

func (tokens) Authenticate(_ context.Context, token string) (postern.Subject, time.Time, error) {
	if token == "nightly" || token == "nobody" {
		return postern.Subject{}, time.Time{}, fault.New(codes.Unauthenticated, "wrong audience").WithKind("bad-token")
	}
	return postern.Subject{Name: token, Groups: groups[token]}, time.Now().Add(time.Hour), nil
}

func (v tokens) Data(ctx context.Context, token string) (postern.Subject, time.Time, error) {
	return v.Authenticate(ctx, token)
}

func (tokens) Workload(_ context.Context, token string) (postern.Subject, time.Time, error) {
	if token != "nightly" {
		return postern.Subject{}, time.Time{}, fault.New(codes.Unauthenticated, "the token is no workload's").WithKind("bad-token")
	}
	return postern.Subject{Name: "nightly", Workload: "nightly"}, time.Now().Add(time.Hour), nil
}

// plain seals nothing.
type plain struct{}

func (plain) Seal(_ context.Context, text, _ []byte) ([]byte, error) { return slices.Clone(text), nil }
func (plain) Open(_ context.Context, sealed, _ []byte) ([]byte, error) {
	return slices.Clone(sealed), nil
}

// house is the API for grants as the control plane serves it, over a store in memory.
type house struct {
	t       *testing.T
	store   *storetest.Memory
	log     *audit.Log
	server  *httptest.Server
	approve *approve.Service
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, store: storetest.NewMemory()}
	logger := slog.New(slog.DiscardHandler)
	objects, err := object.ParseYAML(strings.NewReader(company))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects { // grants look at bindings and tasks as the store has them
		k, v, err := store.EncodeObject(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.store.Commit(t.Context(), store.Op{Key: k, Value: v, If: store.AnyRevision}); err != nil {
			t.Fatal(err)
		}
	}
	epoch, err := h.store.Epoch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	snapshot, rejected := policy.Compile(postern.Version{Epoch: epoch, Revision: int64(len(objects)) + 10}, objects)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	current := func() *policy.Snapshot { return snapshot }
	h.log = audit.New(h.store, time.Now)
	certs, err := authority.Open(t.Context(), authority.Config{Store: h.store, Keeper: plain{}, Audit: h.log, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	h.approve = approve.New(approve.Config{Store: h.store, Snapshot: current, Audit: h.log, URL: func(id string) string { return id }, Logger: logger})
	grants := task.New(task.Config{
		Store: h.store, Snapshot: current, Changed: func() (<-chan struct{}, func()) { return nil, func() {} }, Sign: certs.SignGrant,
		Verifier: tokens{}, Certificates: certs, Approve: h.approve, Audit: h.log, Logger: logger,
	})
	guard, err := authz.New(authz.Config{Auth: tokens{}, Policy: current, Admins: []*typesv1.SubjectSelector{{Subject: "root"}}, Audit: h.log, Logger: logger, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(apiv1connect.NewGrantServiceHandler(grantapi.New(grants), connect.WithInterceptors(guard)))
	h.server = httptest.NewServer(mux)
	t.Cleanup(h.server.Close)
	return h
}

// as is the API as somebody; nobody has no token.
func (h *house) as(who string) apiv1connect.GrantServiceClient {
	return apiv1connect.NewGrantServiceClient(h.server.Client(), h.server.URL, connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if who != "" {
				req.Header().Set("Authorization", "Bearer "+who)
			}
			return next(ctx, req)
		}
	})))
}

func (h *house) create(who string, req *apiv1.CreateGrantRequest) (*apiv1.CreateGrantResponse, error) {
	resp, err := h.as(who).CreateGrant(h.t.Context(), connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return resp.Msg, nil
}

func (h *house) mustCreate(who, task string) *apiv1.CreateGrantResponse {
	h.t.Helper()
	resp, err := h.create(who, &apiv1.CreateGrantRequest{Task: task})
	if err != nil {
		h.t.Fatal(err)
	}
	return resp
}

// want checks an error's code, and that it says text and nothing of the inside.
func want(t *testing.T, what string, err error, code connect.Code, text string) {
	t.Helper()
	switch {
	case err == nil || connect.CodeOf(err) != code || !strings.Contains(err.Error(), text):
		t.Errorf("%s: error %v, want %s that says %q", what, err, code, text)
	case strings.Contains(err.Error(), "canary"):
		t.Errorf("%s: tells of the inside: %v", what, err)
	}
}

func csr(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
