package budget_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/budget"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const world = `
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: d, tls: {mode: disable}}, credential: {sealed: s}, catalog: {sealed: s}}
---
kind: Task
metadata: {name: report}
spec: {purpose: figures, duration: 1h, resources: {names: [warehouse]}, permit: [{table: a.b, verbs: [select], columns: [c]}], limits: {rows: 1000000, per: grant}}
`

// TestManyNodes: a grant that is used at more nodes than its ledger can hold is refused at
// the next one by name, goes on at those that it has, and takes the place of nodes that are
// not heard of any more, whose part stays counted.
func TestManyNodes(t *testing.T) {
	now := time.Now()
	gone := map[postern.NodeName]bool{}
	kept := storetest.NewMemory()
	snapshot := policytest.Compile(t, world)
	s := budget.New(budget.Config{
		Store: kept, Snapshot: func() *policy.Snapshot { return snapshot }, Now: func() time.Time { return now },
		Grant: func(_ context.Context, id postern.GrantID) (*typesv1.Grant, error) {
			return &typesv1.Grant{Id: string(id), Task: "report", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(now.Add(time.Hour))}, nil
		},
		Last: func(n postern.NodeName) (string, time.Time, time.Time) {
			if gone[n] {
				return "", time.Time{}, now.Add(-time.Hour)
			}
			return "", time.Time{}, now
		},
		Recall: func(postern.NodeName, postern.GrantID) {}, Logger: slog.New(slog.DiscardHandler),
	})
	name := func(i int) postern.NodeName { return postern.NodeName(fmt.Sprintf("node-of-the-fleet-%04d", i)) }
	draw := func(i int, sequence uint64, have, want int64) (*nodev1.DrawBudgetResponse, error) {
		return s.Draw(t.Context(), name(i), &nodev1.DrawBudgetRequest{
			Grant: "g-1", Process: strings.Repeat("p", 22) + fmt.Sprintf("%04d", i), Sequence: sequence,
			Have: &nodev1.Budget{Rows: have}, Want: &nodev1.Budget{Rows: want}, Used: &nodev1.Budget{Rows: have}, Sessions: 1,
		})
	}
	var err error
	held := 0
	for ; held < 1000; held++ {
		if _, err = draw(held, 1, 0, 1); err != nil {
			break
		}
	}
	if f := fault.From(err); f.Code != codes.ResourceExhausted || f.Kind != postern.CodeLimit.String() || !strings.Contains(f.Reason, fmt.Sprintf("used at %d nodes", held)) || held < 200 {
		t.Fatalf("after %d nodes: %v", held, err)
	}
	for i := range held { // what they hold grows by far
		if r, err := draw(i, 1_000_000, 1, 2000); err != nil || r.GetTotal().GetRows() != 2000 {
			t.Fatalf("node %d goes on: %v, %v", i, r, err)
		}
	}
	gone[name(7)] = true
	r, err := draw(held, 1, 0, 1)
	if err != nil {
		t.Fatalf("in the place of a node that is gone: %v", err)
	}
	if used := r.GetElsewhere().GetRows(); used != int64(held-1)+2000 {
		t.Errorf("used elsewhere: %d of %d nodes, and not all that the one held which is gone", used, held)
	}
	if _, err := draw(7, 1_000_001, 2000, 2001); fault.CodeOf(err) != codes.FailedPrecondition {
		t.Errorf("the one that was gone: %v", err)
	}
	if e, err := kept.Get(t.Context(), store.Key{Kind: budget.Kind, Name: "g-1"}); err != nil || len(e.Value) > store.MaxValueBytes {
		t.Errorf("%d bytes, %v", len(e.Value), err)
	}
}

// TestDamagedBudget: a budget that cannot be read is not begun anew while its grant is there.
func TestDamagedBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := storetest.NewMemory()
		snapshot := policytest.Compile(t, world)
		s := budget.New(budget.Config{
			Store: kept, Snapshot: func() *policy.Snapshot { return snapshot }, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
			Grant: func(_ context.Context, id postern.GrantID) (*typesv1.Grant, error) {
				if id == "g-gone" {
					return nil, fault.New(codes.NotFound, "there is no grant %q", id)
				}
				return &typesv1.Grant{Id: string(id), Task: "report", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(time.Now().Add(time.Hour))}, nil
			},
		})
		for _, id := range []string{"g-1", "g-gone"} {
			if _, err := kept.Commit(t.Context(), store.Op{Key: store.Key{Kind: budget.Kind, Name: id}, Value: []byte("damaged")}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		g := run.New(ctx)
		g.Go("budgets", s.Run)
		time.Sleep(time.Hour / 2)
		synctest.Wait()
		if left, _, err := kept.List(t.Context(), budget.Kind, "", 0); err != nil || len(left) != 1 || left[0].Name != "g-1" {
			t.Errorf("left: %v, %v", left, err)
		}
		if r, err := s.Draw(t.Context(), "n1", &nodev1.DrawBudgetRequest{Grant: "g-1", Process: "p", Sequence: 1, Want: &nodev1.Budget{Rows: 1}, Sessions: 1}); err == nil {
			t.Errorf("given: %v", r)
		}
		stop()
		_ = g.Wait()
	})
}

// TestSumsDoNotTurnRound: a node that says that it has used more than there is lifts no limit.
func TestSumsDoNotTurnRound(t *testing.T) {
	snapshot := policytest.Compile(t, world)
	s := budget.New(budget.Config{
		Store: storetest.NewMemory(), Snapshot: func() *policy.Snapshot { return snapshot }, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Grant: func(_ context.Context, id postern.GrantID) (*typesv1.Grant, error) {
			return &typesv1.Grant{Id: string(id), Task: "report", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(time.Now().Add(time.Hour))}, nil
		},
		Last:   func(postern.NodeName) (string, time.Time, time.Time) { return "", time.Time{}, time.Now() },
		Recall: func(postern.NodeName, postern.GrantID) {},
	})
	for i := range 20 {
		lie := &nodev1.Budget{Rows: 1 << 60}
		if _, err := s.Draw(t.Context(), "n1", &nodev1.DrawBudgetRequest{Grant: "g-1", Process: fmt.Sprint(i), Sequence: 1, Have: lie, Used: lie, Want: lie, Sessions: 1}); err != nil {
			t.Fatal(err)
		}
		r, err := s.Draw(t.Context(), "n2", &nodev1.DrawBudgetRequest{Grant: "g-1", Process: "p", Sequence: uint64(i + 1), Want: &nodev1.Budget{Rows: 1000}, Sessions: 1})
		if err != nil || r.GetTotal().GetRows() != 0 || r.GetElsewhere().GetRows() < 0 {
			t.Fatalf("after %d: %v, %v", i, r, err)
		}
	}
}
