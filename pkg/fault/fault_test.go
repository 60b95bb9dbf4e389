package fault_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/posterngate/postern/pkg/fault"
)

// overTheWire is what the other side makes of an error.
func overTheWire(t *testing.T, err error) *fault.Error {
	t.Helper()
	st, ok := status.FromError(err)
	if !ok {
		t.Fatalf("%v is no status", err)
	}
	return fault.From(status.FromProto(st.Proto()).Err())
}

func TestWhatCrossesTheWire(t *testing.T) {
	cause := errors.New("password=hunter2")
	for _, sent := range []*fault.Error{
		fault.New(codes.NotFound, "there is no task %q", "x"),
		fault.Wrap(cause, codes.Unavailable, "the store does not answer"),
		fault.New(codes.Aborted, "somebody else changed it").WithKind("ETAG_MISMATCH"),
		fault.Invalid(fault.Violation{Field: "spec.permit[0].mask.email", Reason: "there is no mask"}, fault.Violation{Field: "spec", Reason: "is empty"}),
	} {
		got := overTheWire(t, sent)
		if got.Code != sent.Code || got.Reason != sent.Reason || got.Kind != sent.Kind || !reflect.DeepEqual(got.Violations, sent.Violations) {
			t.Errorf("sent %#v, got %#v", sent, got)
		}
		if strings.Contains(got.Error(), "hunter2") || errors.Is(got, cause) {
			t.Errorf("the cause crossed: %v", got)
		}
	}
}

func TestInvalidSaysEverything(t *testing.T) {
	e := fault.Invalid(fault.Violation{Field: "a", Reason: "is empty"}, fault.Violation{Field: "b", Reason: "is long"})
	if e.Code != codes.InvalidArgument || e.Kind != "INVALID" || e.Reason != "a: is empty; b: is long" {
		t.Errorf("%+v", e)
	}
}

func TestCausesStayHere(t *testing.T) {
	cause := errors.New("disk full")
	e := fault.Wrap(cause, codes.Internal, "could not keep it")
	if !errors.Is(e, cause) || e.Error() != "could not keep it: disk full" || e.GRPCStatus().Message() != "could not keep it" {
		t.Errorf("%v, %v", e, e.GRPCStatus())
	}
}

func TestFrom(t *testing.T) {
	own := fault.New(codes.NotFound, "none")
	for name, c := range map[string]struct {
		err    error
		code   codes.Code
		reason string
	}{
		"its own, wrapped":        {fmt.Errorf("read it: %w", own), codes.NotFound, "none"},
		"any other error":         {errors.New("secret path /x"), codes.Internal, "internal error"},
		"a status":                {status.Error(codes.Unavailable, "try later"), codes.Unavailable, "try later"},
		"a status that is unsure": {status.Error(codes.Unknown, "secret"), codes.Internal, "internal error"},
		"a status, wrapped":       {fmt.Errorf("lease from /secret/path: %w", status.Error(codes.Unavailable, "try later")), codes.Unavailable, "try later"},
		"a cancelled call":        {fmt.Errorf("x: %w", context.Canceled), codes.Canceled, "the call was cancelled"},
		"a slow call":             {context.DeadlineExceeded, codes.DeadlineExceeded, "the call took too long"},
	} {
		got := fault.From(c.err)
		if got.Code != c.code || got.Reason != c.reason || fault.CodeOf(c.err) != c.code {
			t.Errorf("%s: %+v", name, got)
		}
		if !errors.Is(got, c.err) && got != own {
			t.Errorf("%s: the cause is lost", name)
		}
	}
	if fault.From(nil) != nil || fault.CodeOf(nil) != codes.OK {
		t.Error("nil is an error")
	}
}

func TestIs(t *testing.T) {
	e := fault.New(codes.Aborted, "x").WithKind("ETAG_MISMATCH")
	if !fault.Is(fmt.Errorf("write: %w", e), "ETAG_MISMATCH") || !fault.Is(overTheWire(t, e), "ETAG_MISMATCH") {
		t.Error("the kind is lost")
	}
	if fault.Is(nil, "") || fault.Is(errors.New("x"), "ETAG_MISMATCH") {
		t.Error("a kind is found where there is none")
	}
}

func TestTheKindOfAnotherDomainIsNotOurs(t *testing.T) {
	st, err := status.New(codes.Aborted, "x").WithDetails(&errdetails.ErrorInfo{Reason: "ETAG_MISMATCH", Domain: "elsewhere"})
	if err != nil {
		t.Fatal(err)
	}
	if fault.Is(st.Err(), "ETAG_MISMATCH") {
		t.Error("it is taken for ours")
	}
}

func TestTextsThatAreNotUTF8(t *testing.T) {
	got := overTheWire(t, fault.Invalid(fault.Violation{Field: "a\xff", Reason: "b\xfe"}).WithKind("BAD"))
	if got.Kind != "BAD" || len(got.Violations) != 1 || got.Violations[0].Field != "a\ufffd" {
		t.Errorf("%+v", got)
	}
}
