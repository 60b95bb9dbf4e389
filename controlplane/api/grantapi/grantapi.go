// Package grantapi is GrantService as people and automation call it: it converts and
// says who calls. Everything else is the task package's.
package grantapi

import (
	"context"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/task"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
)

// Handler serves GrantService. It must stand behind authz's Interceptor.
type Handler struct{ grants *task.Service }

var _ apiv1connect.GrantServiceHandler = (*Handler)(nil)

// New makes a Handler.
func New(grants *task.Service) *Handler { return &Handler{grants: grants} }

// caller is nobody where the call has no token: CreateGrant alone lets that through,
// and then needs a workload's.
func caller(ctx context.Context, peer connect.Peer) task.Caller {
	c, ok := authz.From(ctx)
	if !ok {
		return task.Caller{Address: peer.Addr}
	}
	return task.Caller{Subject: c.Subject, Roles: c.Roles, Address: c.Address}
}

// CreateGrant implements GrantServiceHandler.
func (h *Handler) CreateGrant(ctx context.Context, req *connect.Request[apiv1.CreateGrantRequest]) (*connect.Response[apiv1.CreateGrantResponse], error) {
	return respond(h.grants.Create(ctx, caller(ctx, req.Peer()), req.Msg))
}

// RequestGrant implements GrantServiceHandler.
func (h *Handler) RequestGrant(ctx context.Context, req *connect.Request[apiv1.RequestGrantRequest]) (*connect.Response[apiv1.RequestGrantResponse], error) {
	return respond(h.grants.Request(ctx, caller(ctx, req.Peer()), req.Msg))
}

// GetGrant implements GrantServiceHandler.
func (h *Handler) GetGrant(ctx context.Context, req *connect.Request[apiv1.GetGrantRequest]) (*connect.Response[apiv1.GetGrantResponse], error) {
	g, err := h.grants.Get(ctx, caller(ctx, req.Peer()), req.Msg.GetId())
	return respond(&apiv1.GetGrantResponse{Grant: g}, err)
}

// ListGrants implements GrantServiceHandler.
func (h *Handler) ListGrants(ctx context.Context, req *connect.Request[apiv1.ListGrantsRequest]) (*connect.Response[apiv1.ListGrantsResponse], error) {
	grants, err := h.grants.List(ctx, caller(ctx, req.Peer()), req.Msg.GetSubject(), req.Msg.GetActive())
	return respond(&apiv1.ListGrantsResponse{Grants: grants}, err)
}

// RevokeGrant implements GrantServiceHandler.
func (h *Handler) RevokeGrant(ctx context.Context, req *connect.Request[apiv1.RevokeGrantRequest]) (*connect.Response[apiv1.RevokeGrantResponse], error) {
	g, version, err := h.grants.Revoke(ctx, caller(ctx, req.Peer()), req.Msg.GetId(), req.Msg.GetReason())
	return respond(&apiv1.RevokeGrantResponse{Grant: g, Version: version}, err)
}

func respond[T any](msg *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(msg), nil
}
