package authz

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// TestLimits: a thousand asks of one subject are refused past the burst, by the limit's
// name; others are not concerned, and time heals.
func TestLimits(t *testing.T) {
	var b buckets
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	let := 0
	for range 1000 {
		err := b.take(LimitAsk, "alice", now)
		if err == nil {
			let++
			continue
		}
		if fault.CodeOf(err) != codes.ResourceExhausted || !fault.Is(err, "limit") || !strings.Contains(err.Error(), `limit "ask": alice`) {
			t.Fatalf("the refusal is %v", err)
		}
	}
	if let != LimitAsk.burst {
		t.Errorf("%d of a thousand asks went through, want %d", let, LimitAsk.burst)
	}
	if err := b.take(LimitAsk, "bob", now); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	if err := b.take(LimitApprove, "alice", now); err != nil {
		t.Errorf("something else: %v", err)
	}
	if err := b.take(LimitAsk, "alice", now.Add(time.Second)); err != nil {
		t.Errorf("a second later: %v", err)
	}
	if err := b.take(limit{}, "alice", now); err != nil {
		t.Errorf("no limit: %v", err)
	}
}

func TestLimitsAreBounded(t *testing.T) {
	var b buckets
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for i := range 3 * maxBuckets {
		_ = b.take(LimitLogin, fmt.Sprint("address ", i), now)
	}
	if len(b.all) > maxBuckets {
		t.Errorf("%d callers are kept", len(b.all))
	}
}

func TestCounted(t *testing.T) {
	if got := counted(nil, "10.0.0.1:5000"); got != "the address 10.0.0.1" {
		t.Error(got)
	}
	if got := counted(&Caller{Subject: postern.Subject{Name: "alice"}}, "10.0.0.1:5000"); got != "alice" {
		t.Error(got)
	}
}

// TestWhatIsLimited: every method by which a login, a grant, an ask or an answer can be had
// has its limit.
func TestWhatIsLimited(t *testing.T) {
	want := map[string]string{
		"AccessService/LoginOptions": "login", "GrantService/CreateGrant": "exchange",
		"GrantService/RequestGrant": "ask", "ApprovalService/ReviewHold": "approve",
	}
	for p, r := range Table() {
		if r.Limit.name != want[method(p)] {
			t.Errorf("%s has the limit %q, want %q", p, r.Limit.name, want[method(p)])
		}
	}
}
