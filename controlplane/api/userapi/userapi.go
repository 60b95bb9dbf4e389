// Package userapi is the API for people, the command line and automation. PolicyService,
// AccessService, AuditService and NodeAdminService are answered here; the services of
// grants, holds and sessions come from their own packages. Who may call what is authz's
// to say, before a method is reached; TLS and the listener are the assembler's.
package userapi

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"

	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
)

const (
	maxRequestBytes  = 4 << 20
	maxResponseBytes = 64 << 20
)

// Services is what the API consists of. A service that is nil is not there, and answers
// as a method that is unknown. Interceptor is required.
type Services struct {
	Interceptor connect.Interceptor // authz's
	Policy      api.PolicyServiceHandler
	Access      api.AccessServiceHandler
	Grant       api.GrantServiceHandler
	Approval    api.ApprovalServiceHandler
	Session     api.SessionServiceHandler
	Audit       api.AuditServiceHandler
	Answer      api.AnswerServiceHandler
	NodeAdmin   api.NodeAdminServiceHandler
	Authority   api.AuthorityServiceHandler
	Lock        api.LockServiceHandler
	Account     api.AccountServiceHandler
	// Pages are what is served beside the services, by path: pages for people, and hooks.
	// Each says by itself who may.
	Pages map[string]http.Handler
	// Ready says why the API cannot serve now, for the health service; nil always can.
	Ready func(ctx context.Context) error
}

// Handler mounts the services, with health and reflection, for gRPC, gRPC-Web and JSON.
// It needs HTTP/2 for gRPC. Pages of other origins are refused.
func Handler(s Services) http.Handler {
	mux := http.NewServeMux()
	var names []string
	mount := func(name string, path string, h http.Handler) {
		names = append(names, name)
		mux.Handle(path, h)
	}
	opts := connect.WithHandlerOptions(
		connect.WithInterceptors(s.Interceptor),
		connect.WithReadMaxBytes(maxRequestBytes),
		connect.WithSendMaxBytes(maxResponseBytes),
		connect.WithCompressMinBytes(minCompressed),
		connect.WithCodec(strictJSON{"json"}),
		connect.WithCodec(strictJSON{"json; charset=utf-8"}),
	)
	if s.Policy != nil {
		path, h := api.NewPolicyServiceHandler(s.Policy, opts)
		mount(api.PolicyServiceName, path, h)
	}
	if s.Access != nil {
		path, h := api.NewAccessServiceHandler(s.Access, opts)
		mount(api.AccessServiceName, path, h)
	}
	if s.Grant != nil {
		path, h := api.NewGrantServiceHandler(s.Grant, opts)
		mount(api.GrantServiceName, path, h)
	}
	if s.Approval != nil {
		path, h := api.NewApprovalServiceHandler(s.Approval, opts)
		mount(api.ApprovalServiceName, path, h)
	}
	if s.Session != nil {
		path, h := api.NewSessionServiceHandler(s.Session, opts)
		mount(api.SessionServiceName, path, h)
	}
	if s.Audit != nil {
		path, h := api.NewAuditServiceHandler(s.Audit, opts)
		mount(api.AuditServiceName, path, h)
	}
	if s.Answer != nil {
		path, h := api.NewAnswerServiceHandler(s.Answer, opts)
		mount(api.AnswerServiceName, path, h)
	}
	if s.Authority != nil {
		path, h := api.NewAuthorityServiceHandler(s.Authority, opts)
		mount(api.AuthorityServiceName, path, h)
	}
	if s.NodeAdmin != nil {
		path, h := api.NewNodeAdminServiceHandler(s.NodeAdmin, opts)
		mount(api.NodeAdminServiceName, path, h)
	}
	if s.Lock != nil {
		path, h := api.NewLockServiceHandler(s.Lock, opts)
		mount(api.LockServiceName, path, h)
	}
	if s.Account != nil {
		path, h := api.NewAccountServiceHandler(s.Account, opts)
		mount(api.AccountServiceName, path, h)
	}
	for path, h := range s.Pages {
		mux.Handle(path, h)
	}
	// Health and reflection say nothing that is not public, and so ask for no token.
	public := connect.WithReadMaxBytes(maxPublicBytes)
	mux.Handle(grpchealth.NewHandler(health{names, s.Ready}, public))
	reflector := grpcreflect.NewStaticReflector(append(names, grpchealth.HealthV1ServiceName)...)
	mux.Handle(grpcreflect.NewHandlerV1(reflector, public))
	mux.Handle(grpcreflect.NewHandlerV1Alpha(reflector, public))
	return http.NewCrossOriginProtection().Handler(whole{mux, single(names)})
}

const (
	maxPublicBytes = 16 << 10
	// minCompressed is the smallest answer that is worth the work of packing it.
	minCompressed = 4 << 10
)

// health answers grpc.health.v1 for the API as a whole and for each service.
type health struct {
	services []string
	ready    func(context.Context) error
}

// Check implements grpchealth.Checker.
func (h health) Check(ctx context.Context, r *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	known := r.Service == ""
	for _, s := range h.services {
		known = known || s == r.Service
	}
	if !known {
		return nil, connect.NewError(connect.CodeNotFound, errUnknownService)
	}
	status := grpchealth.StatusServing
	if h.ready != nil && h.ready(ctx) != nil {
		status = grpchealth.StatusNotServing
	}
	return &grpchealth.CheckResponse{Status: status}, nil
}
