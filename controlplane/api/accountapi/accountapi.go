// Package accountapi is AccountService as people call it: it converts and says who calls.
package accountapi

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/controlplane/account"
	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	"github.com/posterngate/postern/pkg/postern"
)

// Handler serves AccountService. It must stand behind authz's Interceptor.
type Handler struct{ accounts *account.Service }

var _ apiv1connect.AccountServiceHandler = (*Handler)(nil)

// New makes a Handler.
func New(s *account.Service) *Handler { return &Handler{s} }

// ListAccounts implements AccountServiceHandler.
func (h *Handler) ListAccounts(ctx context.Context, req *connect.Request[apiv1.ListAccountsRequest]) (*connect.Response[apiv1.ListAccountsResponse], error) {
	var since time.Time
	if at := req.Msg.GetRefusedSince(); at != nil {
		if err := at.CheckValid(); err != nil {
			return nil, fault.Invalid(fault.Violation{Field: "refused_since", Reason: "is not a time"})
		}
		since = at.AsTime()
	}
	resp, err := h.accounts.List(ctx, postern.ResourceName(req.Msg.GetResource()), since)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

// RotateAccount implements AccountServiceHandler.
func (h *Handler) RotateAccount(ctx context.Context, req *connect.Request[apiv1.RotateAccountRequest]) (*connect.Response[apiv1.RotateAccountResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	if req.Msg.GetAccount() == "" {
		return nil, fault.Invalid(fault.Violation{Field: "account", Reason: "is required"})
	}
	resp, err := h.accounts.Rotate(ctx, req.Msg.GetAccount(), c.Entry("", nil))
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}
