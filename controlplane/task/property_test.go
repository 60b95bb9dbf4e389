package task

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/posterngate/postern/controlplane/approve"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// TestGrantsKeepTheirPromises drives grants at random and checks after every step what
// must always be true: only legal moves, an end that never moves, no grant that people
// must say yes to without that, and nothing that opens without ground.
func TestGrantsKeepTheirPromises(t *testing.T) {
	legal := map[typesv1.GrantState][]typesv1.GrantState{
		typesv1.GrantState_GRANT_STATE_ASKED: {active, refused, over},
		active:                               {over},
	}
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		now := time.Now()
		clock := func() time.Time { return now }
		w.cfg.Now = clock
		w.holds = approve.New(approve.Config{Store: w.store, Snapshot: w.current, Audit: w.cfg.Audit, URL: func(id string) string { return id }, Now: clock, Logger: w.cfg.Logger})
		w.cfg.Approve = w.holds
		w.holds.OnSettle(w.settle)

		bound, locked := true, false
		seen := map[string]*typesv1.Grant{}
		yes := map[string]bool{} // holds that bob said yes to
		var grantTokens []string
		tasks := []string{"sales-report", "schema-change"}
		task := func() string { return rapid.SampledFrom(tasks).Draw(rt, "task") }
		opened := func(rt *rapid.T, g *typesv1.Grant, err error) {
			if err != nil {
				return
			}
			s := w.stored(g.GetId())
			switch {
			case !Live(s, now):
				rt.Fatalf("opened a grant that is %s until %s", s.GetState(), s.GetEndTime().AsTime())
			case locked:
				rt.Fatal("opened for a locked subject")
			case !bound && s.GetTask() == "sales-report":
				rt.Fatal("opened without a binding")
			case s.GetTask() == "schema-change" && !yes[s.GetHold()]:
				rt.Fatal("opened without a yes")
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"open": func(rt *rapid.T) { g, err := w.open("alice", task()); opened(rt, g, err) },
			"create": func(rt *rapid.T) {
				r, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: task(), Ttl: durationpb.New(time.Duration(rapid.IntRange(0, 90).Draw(rt, "ttl")) * time.Minute)})
				opened(rt, r.GetGrant(), err)
				if err == nil {
					grantTokens = append(grantTokens, r.GetToken())
				}
			},
			"open by grant token": func(rt *rapid.T) {
				if len(grantTokens) == 0 {
					rt.Skip("no tokens yet")
				}
				g, err := w.open(rapid.SampledFrom(grantTokens).Draw(rt, "token"), task())
				opened(rt, g, err)
			},
			"request": func(*rapid.T) {
				_, _ = w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: task(), Reason: "because"})
			},
			"review": func(rt *rapid.T) {
				holds, err := w.holds.List(t.Context(), w.reviewer(), false, false)
				if err != nil || len(holds) == 0 {
					rt.Skip("no holds")
				}
				h := rapid.SampledFrom(holds).Draw(rt, "hold")
				approved := rapid.Bool().Draw(rt, "yes")
				if _, err := w.holds.Review(t.Context(), w.reviewer(), h.GetId(), approved, "because", nil); err == nil && approved {
					yes[h.GetId()] = true
				}
			},
			"revoke": func(rt *rapid.T) {
				if len(seen) == 0 {
					rt.Skip("no grants")
				}
				_, _, _ = w.Revoke(t.Context(), w.caller("alice"), rapid.SampledFrom(ids(seen)).Draw(rt, "grant"), "")
			},
			"time": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 40).Draw(rt, "minutes")) * time.Minute)
			},
			"bind": func(*rapid.T) {
				if bound = !bound; bound {
					w.apply(`{kind: Binding, metadata: {name: analysts}, spec: {subjects: [{group: analysts}], tasks: [sales-report]}}`)
				} else {
					w.remove("binding", "analysts")
				}
			},
			"lock": func(*rapid.T) {
				if locked = !locked; locked {
					w.apply(`{kind: Lock, metadata: {name: out}, spec: {subject: alice, reason: away}}`)
				} else {
					w.remove("lock", "out")
				}
			},
			"look after all": func(rt *rapid.T) {
				for _, e := range must(w.store.List(t.Context(), Kind, "", 0)) {
					g, err := decode(e)
					if err != nil {
						rt.Fatal(err)
					}
					if _, err := w.look(t.Context(), known{e.Revision, g}, true); err != nil {
						rt.Fatal(err)
					}
					if s := w.stored(e.Name); s.GetState() == active && (!Live(s, now) || locked || !bound && s.GetTask() == "sales-report") {
						rt.Fatalf("still active: %v", s)
					}
				}
			},
			"": func(rt *rapid.T) {
				for _, e := range must(w.store.List(t.Context(), Kind, "", 0)) {
					g, err := decode(e)
					if err != nil {
						rt.Fatal(err)
					}
					was := seen[e.Name]
					seen[e.Name] = g
					switch {
					case g.GetState() == active && g.GetEndTime().AsTime().Sub(g.GetStartTime().AsTime()) > time.Hour:
						rt.Fatal("lasts longer than its task allows")
					case g.GetState() != active && g.GetState() != typesv1.GrantState_GRANT_STATE_ASKED && strings.TrimSpace(g.GetEndReason()) == "":
						rt.Fatal("ended without a reason")
					case was == nil:
					case was.GetState() != g.GetState() && !slices.Contains(legal[was.GetState()], g.GetState()):
						rt.Fatalf("grant went from %s to %s", was.GetState(), g.GetState())
					case was.GetEndTime() != nil && !was.GetEndTime().AsTime().Equal(g.GetEndTime().AsTime()):
						rt.Fatal("the end was moved")
					}
				}
			},
		})
	})
}

func ids(m map[string]*typesv1.Grant) []string {
	var out []string
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}
