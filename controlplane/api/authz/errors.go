package authz

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// wire is the error that the client gets. What is not meant for readers is logged
// under an id, and the id is all that they see of it.
func wire(ctx context.Context, log *slog.Logger, procedure string, err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	var refusal *postern.Refusal
	var own *connect.Error
	switch {
	case errors.As(err, &f):
	case errors.As(err, &refusal):
		f = fault.Refused(refusal)
	case errors.As(err, &own) && !hidden(codes.Code(own.Code())):
		return own
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// The end of the token is a deadline with a cause.
		if !errors.As(context.Cause(ctx), &f) {
			f = fault.Wrap(err, codes.Canceled, "the call was given up")
			if errors.Is(err, context.DeadlineExceeded) {
				f = fault.Wrap(err, codes.DeadlineExceeded, "the call took too long; try again")
			}
		}
	case status.Code(err) == codes.Unavailable, status.Code(err) == codes.DeadlineExceeded:
		log.WarnContext(ctx, "a part of the control plane does not answer", "method", procedure, "error", err)
		f = fault.Wrap(err, codes.Unavailable, "a part of the control plane does not answer; try again")
	}
	if f == nil || hidden(f.Code) {
		id := rand.Text()[:12]
		log.ErrorContext(ctx, "internal error", "method", procedure, "id", id, "error", err)
		f = fault.New(codes.Internal, "internal error; tell the operators its id: %s", id).WithKind("INTERNAL")
	}
	return ofFault(f)
}

func hidden(c codes.Code) bool {
	return c == codes.Internal || c == codes.Unknown || c == codes.DataLoss || c == codes.OK
}

func ofFault(f *fault.Error) *connect.Error {
	e := connect.NewError(connect.Code(f.Code), errors.New(f.Reason))
	for _, d := range f.GRPCStatus().Details() {
		m, ok := d.(proto.Message)
		if br, empty := d.(*errdetails.BadRequest); !ok || (empty && len(br.GetFieldViolations()) == 0) {
			continue
		}
		if detail, err := connect.NewErrorDetail(m); err == nil {
			e.AddDetail(detail)
		}
	}
	return e
}
