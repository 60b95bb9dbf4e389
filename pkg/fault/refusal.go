package fault

import (
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/postern"
)

// Names of what is said beside the reason: violations of no field.
const (
	FieldRule   = "rule"   // which rule spoke
	FieldDetail = "detail" // what would have been allowed
	FieldHint   = "hint"   // what to do next
)

// WithHint adds what to do next.
func (e *Error) WithHint(hint string) *Error {
	e.Violations = append(e.Violations, Violation{FieldHint, hint})
	return e
}

// Refused is a Refusal as it crosses between planes, and to users of the API.
func Refused(r *postern.Refusal) *Error {
	code := codes.PermissionDenied
	switch r.Code {
	case postern.CodeBadToken:
		code = codes.Unauthenticated
	case postern.CodeLimit:
		code = codes.ResourceExhausted
	case postern.CodeUnavailable:
		code = codes.Unavailable
	case postern.CodeCancelled, postern.CodeStale:
		code = codes.FailedPrecondition
	case postern.CodeProtocol, postern.CodeUndefined:
		code = codes.InvalidArgument
	case postern.CodeDenied, postern.CodeNoGrant, postern.CodeKilled:
	}
	e := Wrap(r.Cause, code, "%s", r.Reason).WithKind(r.Code.String())
	for _, v := range []Violation{{FieldRule, r.Rule}, {FieldDetail, r.Detail}, {FieldHint, r.Hint}} {
		if v.Reason != "" {
			e.Violations = append(e.Violations, v)
		}
	}
	return e
}

// Refusal is what e refuses, as the other side said it; false where e is a failure of
// another kind.
func (e *Error) Refusal() (*postern.Refusal, bool) {
	for _, c := range []postern.Code{
		postern.CodeDenied, postern.CodeBadToken, postern.CodeNoGrant, postern.CodeCancelled,
		postern.CodeKilled, postern.CodeLimit, postern.CodeUnavailable,
	} {
		if c.String() != e.Kind {
			continue
		}
		r := &postern.Refusal{Code: c, Reason: e.Reason, Cause: e}
		for _, v := range e.Violations {
			switch v.Field {
			case FieldRule:
				r.Rule = v.Reason
			case FieldDetail:
				r.Detail = v.Reason
			case FieldHint:
				r.Hint = v.Reason
			}
		}
		return r, true
	}
	return nil, false
}
