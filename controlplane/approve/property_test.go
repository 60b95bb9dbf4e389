package approve

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
)

// TestHoldsKeepTheirPromises drives holds at random and checks after every step what
// must always be true: only legal moves, no use without a yes of enough other people,
// one use at most, and nothing after the end.
func TestHoldsKeepTheirPromises(t *testing.T) {
	legal := map[string][]string{
		"pending":  {"pending", "approved", "refused", "expired", "withdrawn"},
		"approved": {"approved", "consumed", "expired", "withdrawn"},
	}
	rapid.Check(t, func(rt *rapid.T) {
		f := newFixture(t)
		now := time.Now()
		f.cfg.Now = func() time.Time { return now }
		f.grant("g-1", alice)
		var ids []string
		states := map[string]string{}
		uses := map[string]int{}
		any := func() string { return rapid.SampledFrom(ids).Draw(rt, "hold") }
		has := func() {
			if len(ids) == 0 {
				rt.Skip("no holds yet")
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"open": func(rt *rapid.T) {
				req := ask("g-1", "s-1", fmt.Sprintf("DELETE %d", rapid.IntRange(1, 3).Draw(rt, "statement")))
				req.Rule = rapid.SampledFrom([]string{"leads", "two"}).Draw(rt, "rule")
				h, err := f.OpenHold(t.Context(), "n1", req)
				if err != nil {
					return
				}
				if !open(h) || !now.Before(h.GetExpireTime().AsTime()) {
					rt.Fatalf("opened as %s", stateWord(h))
				}
				if states[h.GetId()] == "" {
					ids = append(ids, h.GetId())
					states[h.GetId()] = "pending"
				}
			},
			"review": func(rt *rapid.T) {
				has()
				who := rapid.SampledFrom([]Caller{
					bob, person("carol", "leads"), person("dave", "security"), person("erin", "leads", "security"), person("alice", "leads", "security"), person("eve"),
				}).Draw(rt, "who")
				id := any()
				h, err := f.Review(t.Context(), who, id, rapid.Bool().Draw(rt, "yes"), "because", nil)
				if err != nil {
					return
				}
				if name := who.Subject.Name; name == "alice" || name == "eve" {
					rt.Fatalf("%s has answered", name)
				}
				if !now.Before(h.GetExpireTime().AsTime()) {
					rt.Fatal("answered after its end")
				}
			},
			"consume": func(rt *rapid.T) {
				has()
				id := any()
				h, _, err := f.load(t.Context(), id)
				if err != nil {
					rt.Fatal(err)
				}
				if _, err := f.Consume(t.Context(), "n1", id, h.GetDigest(), "s-2"); err != nil {
					return
				}
				uses[id]++
				rule, _ := f.snapshot.Load().Rule(h.GetRule())
				if uses[id] > 1 || !now.Before(h.GetExpireTime().AsTime()) || !policy.Met(rule.GetSpec(), h.GetApprovals()) {
					rt.Fatalf("used %d times at %s with %v", uses[id], now, h)
				}
			},
			"withdraw": func(*rapid.T) { has(); _, _ = f.Withdraw(t.Context(), person("alice"), any()) },
			"time": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 20).Draw(rt, "minutes")) * time.Minute)
				for _, id := range ids {
					h, _, err := f.load(t.Context(), id)
					if err != nil {
						rt.Fatal(err)
					}
					if open(h) && !now.Before(h.GetExpireTime().AsTime()) {
						if err := f.end(t.Context(), h); err != nil {
							rt.Fatal(err)
						}
					}
				}
				f.save(&typesv1.Grant{Id: "g-1", Subject: alice, Task: "purge-order", Reason: "OPS-7", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(now.Add(time.Hour))})
			},
			"": func(rt *rapid.T) {
				for _, id := range ids {
					h, _, err := f.load(t.Context(), id)
					if err != nil {
						rt.Fatal(err)
					}
					was, is := states[id], stateWord(h)
					if was != is && !slices.Contains(legal[was], is) {
						rt.Fatalf("hold went from %s to %s", was, is)
					}
					states[id] = is
				}
			},
		})
	})
}
