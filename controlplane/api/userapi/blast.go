package userapi

import (
	"context"
	"slices"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// maxBlast bounds what a GetBlast names, in bytes.
const maxBlast = 16 << 10

// GetBlast implements apiv1connect.LockServiceHandler. It tells of everything that the
// thing opens, and so is for those whose role has no scope.
func (l *Locks) GetBlast(ctx context.Context, r *connect.Request[apiv1.GetBlastRequest]) (*connect.Response[apiv1.GetBlastResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc([]string{authz.Operator, authz.Auditor, authz.Admin}, c.Has) {
		return nil, fault.New(codes.PermissionDenied, "what a thief could do is told to operators and auditors of everything; your role has a scope").WithKind("denied")
	}
	m := r.Msg
	if n := max(len(m.GetToken()), len(m.GetGrant()), len(m.GetNode()), len(m.GetLease())); n > maxBlast {
		return nil, fault.Invalid(fault.Violation{Field: "token", Reason: "is longer than any"})
	}
	resp, err := l.cfg.Blast(ctx, m)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}
