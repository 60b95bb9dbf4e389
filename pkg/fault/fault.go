// Package fault holds the one error type that crosses between planes and reaches the
// users of the API. Its Reason and violations survive the wire; its cause does not,
// and so may say what users must not read.
package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// domain is the domain of every ErrorInfo.
const domain = "postern"

// KindSuperseded is the kind where a node's certificate has a successor.
const KindSuperseded = "SUPERSEDED"

// Error is a failure that somebody is told of.
type Error struct {
	Code       codes.Code
	Kind       string // stable and machine-readable, such as ETAG_MISMATCH; empty for the code's own
	Reason     string // for the reader: what happened and what to do next
	Violations []Violation
	cause      error
}

// Violation is what is wrong with one field.
type Violation struct {
	Field  string // path, such as spec.permit[0].mask.email
	Reason string
}

// New makes an Error.
func New(code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// Wrap makes an Error with a cause, which stays on this side of the wire.
func Wrap(cause error, code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Reason: fmt.Sprintf(format, args...), cause: cause}
}

// Invalid makes an InvalidArgument error of violations.
func Invalid(v ...Violation) *Error {
	e := &Error{Code: codes.InvalidArgument, Kind: "INVALID", Violations: v}
	for i, one := range v {
		if i > 0 {
			e.Reason += "; "
		}
		e.Reason += one.Field + ": " + one.Reason
	}
	return e
}

// WithKind sets the machine-readable kind.
func (e *Error) WithKind(kind string) *Error { e.Kind = kind; return e }

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Reason + ": " + e.cause.Error()
	}
	return e.Reason
}

func (e *Error) Unwrap() error { return e.cause }

// GRPCStatus makes status.FromError and grpc-go find the wire form of e.
func (e *Error) GRPCStatus() *status.Status {
	st := status.New(e.Code, valid(e.Reason))
	kind := e.Kind
	if kind == "" {
		kind = e.Code.String()
	}
	br := &errdetails.BadRequest{}
	for _, v := range e.Violations {
		br.FieldViolations = append(br.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: valid(v.Field), Description: valid(v.Reason)})
	}
	out, err := st.WithDetails(&errdetails.ErrorInfo{Reason: valid(kind), Domain: domain}, br)
	if err != nil {
		return st
	}
	return out
}

// valid makes a text that the wire takes; one that is not UTF-8 would be lost whole.
func valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

// From finds or makes the Error of err. What is not an Error already is Internal, and
// its text stays here, but for calls that were cancelled or took too long; a gRPC
// status from the other side keeps its own text, without what was wrapped around it.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	var remote interface{ GRPCStatus() *status.Status }
	switch {
	case errors.As(err, &remote):
	case errors.Is(err, context.Canceled):
		return &Error{Code: codes.Canceled, Reason: "the call was cancelled", cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: codes.DeadlineExceeded, Reason: "the call took too long", cause: err}
	}
	if remote == nil || remote.GRPCStatus().Code() == codes.Unknown || remote.GRPCStatus().Code() == codes.OK {
		return &Error{Code: codes.Internal, Reason: "internal error", cause: err}
	}
	st := remote.GRPCStatus()
	e = &Error{Code: st.Code(), Reason: st.Message(), cause: err}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == domain && d.GetReason() != st.Code().String() {
				e.Kind = d.GetReason()
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Violations = append(e.Violations, Violation{v.GetField(), v.GetDescription()})
			}
		}
	}
	return e
}

// CodeOf is the code of err: OK for nil, Internal for what is not an Error or status.
func CodeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	return From(err).Code
}

// Is reports whether err has the kind.
func Is(err error, kind string) bool { return err != nil && From(err).Kind == kind }
