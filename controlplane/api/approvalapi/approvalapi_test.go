package approvalapi_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/approvalapi"
	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

const world = `
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: warehouse, tls: {mode: disable}}, credential: {sealed: rw}, catalog: {sealed: rw}}
---
kind: Task
metadata: {name: purge-order}
spec: {purpose: purge, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [delete], columns: [id], requireWhere: true}], duration: 1h}
---
kind: ApprovalRule
metadata: {name: leads}
spec: {all: [{group: leads, atLeast: 1}], distinct: true, timeout: 15m}
`

// people are who may call, by the groups that they are in.
var people = map[string][]string{"alice": {"analysts"}, "bob": {"leads"}, "zoe": nil}

// house is the API over the real service and a store in memory. Who calls is said by a
// header, where the interceptor would have read a token.
type house struct {
	t     *testing.T
	holds *approve.Service
	url   string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	snapshot := policytest.Compile(t, world)
	mem := storetest.NewMemory()
	h := &house{t: t, holds: approve.New(approve.Config{
		Store: mem, Snapshot: func() *policy.Snapshot { return snapshot }, Audit: audit.New(mem, time.Now),
		URL: func(id string) string { return "https://control/approvals/" + id }, Logger: slog.New(slog.DiscardHandler),
	})}
	grant, err := proto.Marshal(&typesv1.Grant{
		Id: "g-1", Subject: &typesv1.Subject{Name: "alice"}, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_ACTIVE,
		StartTime: timestamppb.Now(), EndTime: timestamppb.New(time.Now().Add(time.Hour)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Commit(t.Context(), store.Op{Key: store.Key{Kind: "grant", Name: "g-1"}, Value: grant}); err != nil {
		t.Fatal(err)
	}
	g := run.New(context.Background())
	g.Go("holds", h.holds.Run)
	_, handler := apiv1connect.NewApprovalServiceHandler(approvalapi.New(h.holds))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if who := r.Header.Get("Who"); who != "" {
			r = r.WithContext(authz.With(r.Context(), &authz.Caller{Subject: postern.Subject{Name: who, Groups: people[who]}, Address: "127.0.0.1"}))
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
		g.Stop()
		if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	h.url = srv.URL
	return h
}

// as is a client of somebody; "" is nobody.
func (h *house) as(who string) apiv1connect.ApprovalServiceClient {
	return apiv1connect.NewApprovalServiceClient(http.DefaultClient, h.url, connect.WithInterceptors(named(who)))
}

type named string

func (n named) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		r.Header().Set("Who", string(n))
		return next(ctx, r)
	}
}

func (n named) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, s connect.Spec) connect.StreamingClientConn {
		c := next(ctx, s)
		c.RequestHeader().Set("Who", string(n))
		return c
	}
}

func (n named) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// open parks a statement of alice's.
func (h *house) open(statement string) *typesv1.Hold {
	h.t.Helper()
	hold, err := h.holds.OpenHold(h.t.Context(), "n1", &nodev1.OpenHoldRequest{Scope: "statement", Grant: "g-1", Resource: "warehouse", Session: "s-1", Statement: statement, Rule: "leads"})
	if err != nil {
		h.t.Fatal(err)
	}
	return hold
}

func (h *house) ids(who string, req *apiv1.ListHoldsRequest) []string {
	h.t.Helper()
	resp, err := h.as(who).ListHolds(h.t.Context(), connect.NewRequest(req))
	if err != nil {
		h.t.Fatal(err)
	}
	var ids []string
	for _, hold := range resp.Msg.GetHolds() {
		ids = append(ids, hold.GetId())
	}
	return ids
}

// TestWhoSeesWhat: the one who asks and those who may answer see a hold; for others, and
// for a call without a caller, there is none.
func TestWhoSeesWhat(t *testing.T) {
	h := newHouse(t)
	hold := h.open("DELETE 1")
	for who, sees := range map[string]bool{"alice": true, "bob": true, "zoe": false, "": false} {
		if got := slices.Contains(h.ids(who, &apiv1.ListHoldsRequest{}), hold.GetId()); got != sees {
			t.Errorf("%q: listed %v", who, got)
		}
		got, err := h.as(who).GetHold(t.Context(), connect.NewRequest(&apiv1.GetHoldRequest{Id: hold.GetId()}))
		switch {
		case sees && (err != nil || got.Msg.GetHold().GetStatement() != "DELETE 1"):
			t.Errorf("%q: %v, %v", who, got, err)
		case !sees && err == nil:
			t.Errorf("%q reads it", who)
		}
	}
	if got := h.ids("bob", &apiv1.ListHoldsRequest{Mine: true}); len(got) != 0 {
		t.Errorf("bob asked for %v", got)
	}
	if got := h.ids("alice", &apiv1.ListHoldsRequest{Mine: true, Pending: true}); !slices.Equal(got, []string{hold.GetId()}) {
		t.Errorf("alice asked for %v", got)
	}
}

// TestReview: who may answer does, once, for just what was shown.
func TestReview(t *testing.T) {
	h := newHouse(t)
	hold := h.open("DELETE 1")
	review := func(who string, digest []byte) (*typesv1.Hold, error) {
		resp, err := h.as(who).ReviewHold(t.Context(), connect.NewRequest(&apiv1.ReviewHoldRequest{Id: hold.GetId(), Approve: true, Reason: "a duplicate", Digest: digest}))
		if err != nil {
			return nil, err
		}
		return resp.Msg.GetHold(), nil
	}
	for _, who := range []string{"alice", "zoe", ""} {
		if _, err := review(who, hold.GetDigest()); err == nil {
			t.Errorf("%q approved", who)
		}
	}
	if _, err := review("bob", make([]byte, 32)); err == nil {
		t.Error("something else was approved than was shown")
	}
	got, err := review("bob", hold.GetDigest())
	if err != nil || got.GetState() != typesv1.HoldState_HOLD_STATE_APPROVED || len(got.GetApprovals()) != 1 || got.GetApprovals()[0].GetSubject() != "bob" || got.GetApprovals()[0].GetReason() != "a duplicate" {
		t.Fatalf("%v, %v", got, err)
	}
	if got := h.ids("bob", &apiv1.ListHoldsRequest{Pending: true}); len(got) != 0 {
		t.Errorf("still pending: %v", got)
	}
}

// TestWithdraw: only the one who asked can.
func TestWithdraw(t *testing.T) {
	h := newHouse(t)
	hold := h.open("DELETE 1")
	for _, who := range []string{"bob", "zoe", "", "alice"} {
		got, err := h.as(who).WithdrawHold(t.Context(), connect.NewRequest(&apiv1.WithdrawHoldRequest{Id: hold.GetId()}))
		if (err == nil) != (who == "alice") {
			t.Errorf("%q: %v, %v", who, got, err)
		}
	}
	if _, err := h.as("bob").ReviewHold(t.Context(), connect.NewRequest(&apiv1.ReviewHoldRequest{Id: hold.GetId(), Approve: true, Digest: hold.GetDigest()})); err == nil {
		t.Error("approved after it was withdrawn")
	}
}

func TestOddIDs(t *testing.T) {
	h := newHouse(t)
	for _, id := range []string{"", "h-none", "../grant/g-1", "h-\x00", strings.Repeat("x", 1000)} {
		for what, call := range map[string]func() error{
			"get": func() error {
				_, err := h.as("bob").GetHold(t.Context(), connect.NewRequest(&apiv1.GetHoldRequest{Id: id}))
				return err
			},
			"review": func() error {
				_, err := h.as("bob").ReviewHold(t.Context(), connect.NewRequest(&apiv1.ReviewHoldRequest{Id: id, Approve: true}))
				return err
			},
			"withdraw": func() error {
				_, err := h.as("alice").WithdrawHold(t.Context(), connect.NewRequest(&apiv1.WithdrawHoldRequest{Id: id}))
				return err
			},
		} {
			if call() == nil {
				t.Errorf("%s of %.20q was answered", what, id)
			}
		}
	}
	if _, err := h.holds.Get(t.Context(), approve.Caller{}, "h-none"); fault.CodeOf(err) != codes.NotFound {
		t.Errorf("no hold: %v", err)
	}
}

// TestWatch tells each what they may see, as it changes.
func TestWatch(t *testing.T) {
	h := newHouse(t)
	ctx, cancel := context.WithTimeout(t.Context(), wait.Patience)
	defer cancel()
	first := h.open("DELETE 1")
	stream, err := h.as("bob").WatchHolds(ctx, connect.NewRequest(&apiv1.WatchHoldsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	next := func(id string, state typesv1.HoldState) {
		t.Helper()
		for stream.Receive() {
			if got := stream.Msg().GetHold(); got.GetId() == id && got.GetState() == state {
				return
			}
		}
		t.Fatalf("%s never was %s: %v", id, state, stream.Err())
	}
	next(first.GetId(), typesv1.HoldState_HOLD_STATE_PENDING)
	second := h.open("DELETE 2")
	next(second.GetId(), typesv1.HoldState_HOLD_STATE_PENDING)
	if _, err := h.as("bob").ReviewHold(ctx, connect.NewRequest(&apiv1.ReviewHoldRequest{Id: second.GetId(), Digest: second.GetDigest(), Reason: "no"})); err != nil {
		t.Fatal(err)
	}
	next(second.GetId(), typesv1.HoldState_HOLD_STATE_REFUSED)
}
