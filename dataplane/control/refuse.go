package control

import (
	"context"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// refuse turns a failed call into what the person who asked is told. Only what the
// control plane said as a refusal is passed on; of everything else the person learns
// that it failed, and the operators' log has the rest. Where ctx is done, its own cause
// is the answer.
func refuse(ctx context.Context, act string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	f := fault.From(err)
	if r, ok := f.Refusal(); ok {
		return r
	}
	r := &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the control plane could not " + act, Hint: "try again; if it stays, tell the operators when it happened", Cause: f}
	if f.Code == codes.Unavailable || f.Code == codes.DeadlineExceeded {
		r.Reason = "the control plane cannot be reached from this node"
	}
	return r
}
