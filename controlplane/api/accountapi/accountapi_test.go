package accountapi

import (
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/account"
	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// TestWhoAsks: nothing is done for nobody, and what a request lacks or has wrong is said.
func TestWhoAsks(t *testing.T) {
	snapshot, _ := policy.Compile(postern.Version{Epoch: "e", Revision: 1}, nil)
	mem := storetest.NewMemory()
	h := New(account.New(account.Config{
		Store: mem, Snapshot: func() *policy.Snapshot { return snapshot }, Audit: audit.New(mem, time.Now), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	}))
	ada := authz.With(t.Context(), &authz.Caller{Subject: postern.Subject{Name: "ada"}})
	rotate := func(name string) *connect.Request[apiv1.RotateAccountRequest] {
		return connect.NewRequest(&apiv1.RotateAccountRequest{Account: name})
	}
	if _, err := h.RotateAccount(t.Context(), rotate("app")); fault.CodeOf(err) != codes.Unauthenticated {
		t.Errorf("nobody: %v", err)
	}
	if _, err := h.RotateAccount(ada, rotate("")); fault.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("no account: %v", err)
	}
	if _, err := h.RotateAccount(ada, rotate("app")); fault.CodeOf(err) != codes.NotFound {
		t.Errorf("an account that is not there: %v", err)
	}
	for _, req := range []*apiv1.ListAccountsRequest{{Resource: "shop"}, {}, {Resource: "shop", RefusedSince: timestamppb.Now()}} {
		if _, err := h.ListAccounts(ada, connect.NewRequest(req)); fault.CodeOf(err) != codes.NotFound {
			t.Errorf("%v: %v", req, err)
		}
	}
	if _, err := h.ListAccounts(ada, connect.NewRequest(&apiv1.ListAccountsRequest{Resource: "shop", RefusedSince: &timestamppb.Timestamp{Nanos: -1}})); fault.CodeOf(err) != codes.InvalidArgument {
		t.Errorf("a time that is none: %v", err)
	}
}
