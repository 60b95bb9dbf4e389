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
	code, ok := codeOf(f.Kind)
	if !ok {
		r := &postern.Refusal{Code: postern.CodeUnavailable, Reason: "the control plane could not " + act, Hint: "try again; if it stays, tell the operators when it happened", Cause: f}
		if f.Code == codes.Unavailable || f.Code == codes.DeadlineExceeded {
			r.Reason = "the control plane cannot be reached from this node"
		}
		return r
	}
	r := &postern.Refusal{Code: code, Reason: f.Reason, Cause: f}
	for _, v := range f.Violations {
		switch v.Field {
		case "hint":
			r.Hint = v.Reason
		case "detail":
			r.Detail = v.Reason
		case "rule":
			r.Rule = v.Reason
		}
	}
	return r
}

// codeOf is the code that a fault's kind names.
func codeOf(kind string) (postern.Code, bool) {
	for _, c := range []postern.Code{
		postern.CodeDenied, postern.CodeBadToken, postern.CodeNoGrant, postern.CodeCancelled,
		postern.CodeKilled, postern.CodeLimit, postern.CodeUnavailable,
	} {
		if c.String() == kind {
			return c, true
		}
	}
	return 0, false
}
