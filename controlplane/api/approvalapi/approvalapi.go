// Package approvalapi is ApprovalService as people call it: it converts and says who
// calls. Everything else is the approve package's.
package approvalapi

import (
	"context"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/approve"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// Handler serves ApprovalService. It must stand behind authz's Interceptor: a call
// without a caller sees and may do nothing.
type Handler struct{ holds *approve.Service }

var _ apiv1connect.ApprovalServiceHandler = (*Handler)(nil)

// New makes a Handler.
func New(holds *approve.Service) *Handler { return &Handler{holds: holds} }

func caller(ctx context.Context) approve.Caller {
	c, ok := authz.From(ctx)
	if !ok {
		return approve.Caller{}
	}
	return approve.Caller{Subject: c.Subject, Address: c.Address}
}

// ListHolds implements ApprovalServiceHandler.
func (h *Handler) ListHolds(ctx context.Context, req *connect.Request[apiv1.ListHoldsRequest]) (*connect.Response[apiv1.ListHoldsResponse], error) {
	holds, err := h.holds.List(ctx, caller(ctx), req.Msg.GetMine(), req.Msg.GetPending())
	return respond(&apiv1.ListHoldsResponse{Holds: holds}, err)
}

// GetHold implements ApprovalServiceHandler.
func (h *Handler) GetHold(ctx context.Context, req *connect.Request[apiv1.GetHoldRequest]) (*connect.Response[apiv1.GetHoldResponse], error) {
	hold, err := h.holds.Get(ctx, caller(ctx), req.Msg.GetId())
	if err != nil {
		return nil, err
	}
	history, err := h.holds.History(ctx, hold)
	return respond(&apiv1.GetHoldResponse{Hold: hold, History: history}, err)
}

// ReviewHold implements ApprovalServiceHandler.
func (h *Handler) ReviewHold(ctx context.Context, req *connect.Request[apiv1.ReviewHoldRequest]) (*connect.Response[apiv1.ReviewHoldResponse], error) {
	hold, err := h.holds.Review(ctx, caller(ctx), req.Msg.GetId(), req.Msg.GetApprove(), req.Msg.GetReason(), req.Msg.GetDigest())
	return respond(&apiv1.ReviewHoldResponse{Hold: hold}, err)
}

// WithdrawHold implements ApprovalServiceHandler.
func (h *Handler) WithdrawHold(ctx context.Context, req *connect.Request[apiv1.WithdrawHoldRequest]) (*connect.Response[apiv1.WithdrawHoldResponse], error) {
	hold, err := h.holds.Withdraw(ctx, caller(ctx), req.Msg.GetId())
	return respond(&apiv1.WithdrawHoldResponse{Hold: hold}, err)
}

// WatchHolds implements ApprovalServiceHandler.
func (h *Handler) WatchHolds(ctx context.Context, _ *connect.Request[apiv1.WatchHoldsRequest], stream *connect.ServerStream[apiv1.WatchHoldsResponse]) error {
	return h.holds.Watch(ctx, caller(ctx), func(hold *typesv1.Hold) error {
		return stream.Send(&apiv1.WatchHoldsResponse{Hold: hold})
	})
}

func respond[T any](msg *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(msg), nil
}
