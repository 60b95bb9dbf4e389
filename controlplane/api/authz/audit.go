package authz

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// entry is the audit entry of a call that its service did not write itself.
func entry(c *Caller, address, procedure string, request any) audit.Entry {
	e := audit.Entry{Actor: anonymous, Address: address, Action: method(procedure), Object: objectOf(procedure, request), Detail: request}
	if c != nil {
		e.Actor, e.Actors = c.Subject.Name, c.Subject.Actors()
	}
	return e
}

// objectOf is what a request is about, as "kind/name", or empty.
func objectOf(procedure string, request any) string {
	if r, ok := request.(interface{ GetObject() *typesv1.Object }); ok {
		return object.Ref(r.GetObject())
	}
	kind := ""
	if r, ok := request.(interface{ GetKind() string }); ok {
		kind = r.GetKind()
	}
	service, _, _ := strings.Cut(method(procedure), "/")
	switch service {
	case "GrantService":
		kind = "grant"
	case "ApprovalService":
		kind = "hold"
	case "SessionService":
		kind = "session"
	case "NodeAdminService":
		kind = "node"
	case "AuthorityService":
		kind = "key"
	case "AnswerService":
		return "" // all recordings
	}
	switch r := request.(type) {
	case interface{ GetTask() string }:
		return "task/" + r.GetTask()
	case interface{ GetId() string }:
		return kind + "/" + r.GetId()
	case interface{ GetName() string }:
		return kind + "/" + r.GetName()
	}
	return ""
}

// Refused calls are audited at most so often, so that nobody fills the log by being
// refused; those of people who signed in are counted apart from the rest.
const (
	refusalsPerSecond = 2
	refusalsAtOnce    = 50
)

type refusals struct {
	log    *audit.Log
	logger *slog.Logger
	signed *rate.Limiter
	others *rate.Limiter
	left   *atomic.Int64 // since the last entry
}

func newRefusals(log *audit.Log, logger *slog.Logger) refusals {
	return refusals{
		log: log, logger: logger,
		signed: rate.NewLimiter(refusalsPerSecond, refusalsAtOnce),
		others: rate.NewLimiter(refusalsPerSecond, refusalsAtOnce),
		left:   new(atomic.Int64),
	}
}

func (r refusals) note(ctx context.Context, c *Caller, address, procedure string, request any, err error) {
	limiter := r.others
	if c != nil {
		limiter = r.signed
	}
	if !limiter.Allow() {
		r.left.Add(1)
		return
	}
	e := entry(c, address, procedure, request)
	f := fault.From(err)
	e.Outcome = f.Code.String() + ": " + f.Reason
	e.Detail = nil // a request that was refused may be anything
	if n := r.left.Swap(0); n > 0 {
		e.Detail = map[string]int64{"refusalsNotWritten": n}
	}
	if err := r.log.Append(context.WithoutCancel(ctx), e); err != nil {
		r.logger.WarnContext(ctx, "refused call not audited", "method", procedure, "error", err)
	}
}
