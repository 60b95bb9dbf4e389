package userapi

import (
	"context"

	"connectrpc.com/connect"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
)

// maxBlast bounds what a GetBlast names, in bytes.
const maxBlast = 16 << 10

// GetBlast implements apiv1connect.LockServiceHandler. It tells of everything that the
// thing opens, which no scope bounds.
func (l *Locks) GetBlast(ctx context.Context, r *connect.Request[apiv1.GetBlastRequest]) (*connect.Response[apiv1.GetBlastResponse], error) {
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
