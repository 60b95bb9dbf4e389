package fault_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// TestRefusals: a refusal is the same on the other side, but for its cause.
func TestRefusals(t *testing.T) {
	for code, want := range map[postern.Code]codes.Code{
		postern.CodeDenied: codes.PermissionDenied, postern.CodeNoGrant: codes.PermissionDenied, postern.CodeKilled: codes.PermissionDenied,
		postern.CodeBadToken: codes.Unauthenticated, postern.CodeLimit: codes.ResourceExhausted,
		postern.CodeUnavailable: codes.Unavailable, postern.CodeCancelled: codes.FailedPrecondition,
	} {
		sent := &postern.Refusal{Code: code, Reason: "no", Rule: "r/permit", Detail: "what would be allowed", Hint: "what next", Cause: errors.New("password=hunter2")}
		got := overTheWire(t, fault.Refused(sent))
		r, ok := got.Refusal()
		if !ok || got.Code != want {
			t.Errorf("%s arrives as %s, a refusal: %t", code, got.Code, ok)
			continue
		}
		if strings.Contains(r.Cause.Error(), "hunter2") {
			t.Errorf("%s: the cause crossed the wire", code)
		}
		r.Cause = sent.Cause
		if !reflect.DeepEqual(r, sent) {
			t.Errorf("sent %+v, got %+v", sent, r)
		}
	}
	for _, other := range []*fault.Error{fault.New(codes.NotFound, "gone"), fault.New(codes.Aborted, "later").WithKind("ETAG_MISMATCH").WithHint("read it anew")} {
		if r, ok := overTheWire(t, other).Refusal(); ok {
			t.Errorf("%v is taken for a refusal: %+v", other, r)
		}
	}
}
