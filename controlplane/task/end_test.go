package task

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
)

// TestGroundIsLost takes away, one by one, what a grant stands on.
func TestGroundIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		token, task string
		change      func(w *world)
		ends        bool
		reason      string
	}{
		"binding removed": {"alice", "sales-report", func(w *world) { w.remove("binding", "analysts") }, true, "binding"},
		"task removed":    {"alice", "sales-report", func(w *world) { w.remove("task", "sales-report") }, true, "does not exist"},
		"task not listed": {"alice", "sales-report", func(w *world) {
			w.apply(`{kind: Binding, metadata: {name: analysts}, spec: {subjects: [{group: analysts}], tasks: [nightly-load]}}`)
		}, true, "binding"},
		"subjects changed": {"alice", "sales-report", func(w *world) {
			w.apply(`{kind: Binding, metadata: {name: analysts}, spec: {subjects: [{group: others}], tasks: [sales-report]}}`)
		}, true, "binding"},
		"binding ends": {"alice", "sales-report", func(w *world) {
			w.apply(`{kind: Binding, metadata: {name: analysts}, spec: {subjects: [{group: analysts}], tasks: [sales-report], expires: 1999-01-01T00:00:00Z}}`)
		}, true, "binding"},
		"binding asks people": {"alice", "sales-report", func(w *world) {
			w.apply(`{kind: Binding, metadata: {name: analysts}, spec: {subjects: [{group: analysts}], tasks: [sales-report], approval: {scope: grant, rule: leads}}}`)
		}, true, `asks by approval rule "leads" now`},
		"binding asks people of statements": {"alice", "sales-report", func(w *world) {
			w.apply(`{kind: Binding, metadata: {name: analysts}, spec: {subjects: [{group: analysts}], tasks: [sales-report], approval: {scope: statement, rule: leads}}}`)
		}, true, `asks by approval rule "leads" now`},
		"binding touched": {"alice", "sales-report", func(w *world) {
			w.apply(`{kind: Binding, metadata: {name: analysts, labels: {a: b}}, spec: {subjects: [{group: analysts}], tasks: [sales-report]}}`)
		}, false, ""},
		"another binding": {"alice", "sales-report", func(w *world) { w.remove("binding", "nightly") }, false, ""},
		"subject locked": {"alice", "sales-report", func(w *world) {
			w.apply(`{kind: Lock, metadata: {name: out}, spec: {subject: alice, reason: she left}}`)
		}, true, "she left"},
		"another subject locked": {"alice", "sales-report", func(w *world) { w.apply(`{kind: Lock, metadata: {name: out}, spec: {subject: bob, reason: he left}}`) }, false, ""},
		"resource locked": {"alice", "sales-report", func(w *world) {
			w.apply(`{kind: Lock, metadata: {name: out}, spec: {resource: warehouse, reason: upgrade}}`)
		}, false, ""},
		"a lock that cannot be read": {"alice", "sales-report", func(w *world) {
			w.apply(`{kind: Lock, metadata: {name: out}}`)
			if _, err := w.open("alice", "sales-report"); err == nil || !strings.Contains(err.Error(), `lock "out" cannot be read`) {
				w.t.Errorf("under a lock that cannot be read: %v", err)
			}
		}, false, ""},
		"workload removed": {"nightly", "nightly-load", func(w *world) { w.remove("workload", "nightly") }, true, "workload"},
		"workload locked": {"nightly", "nightly-load", func(w *world) {
			w.apply(`{kind: Lock, metadata: {name: out}, spec: {workload: nightly, reason: leaked}}`)
		}, true, "leaked"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.start()
				g := w.mustOpen(c.token, c.task)
				synctest.Wait()
				time.Sleep(time.Minute)
				start := time.Now()
				c.change(w)
				synctest.Wait()
				if d := time.Since(start); d > time.Second {
					t.Errorf("took %s", d)
				}
				s := w.stored(g.GetId())
				if (s.GetState() == over) != c.ends || !strings.Contains(s.GetEndReason(), c.reason) {
					t.Errorf("grant is %s: %q", s.GetState(), s.GetEndReason())
				}
				if !s.GetEndTime().AsTime().Equal(g.GetEndTime().AsTime()) {
					t.Error("the end time was moved: nodes would forget too soon")
				}
			})
		})
	}
}

// A yes stands while the binding asks those who gave it, and a grant whose statements are
// asked for while it asks for them in the same way.
func TestTheYesIsOfTheBinding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		binding := func(rest string) {
			w.apply(`{kind: Binding, metadata: {name: analysts-schema}, spec: {subjects: [{group: analysts}], tasks: [schema-change], approval: ` + rest + `}}`)
			synctest.Wait()
		}
		ends := func(what string, g *typesv1.Grant, want bool) {
			if s := w.stored(g.GetId()); (s.GetState() == over) != want {
				t.Errorf("%s: the grant is %s: %q", what, s.GetState(), s.GetEndReason())
			}
		}
		r, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "new column"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		binding(`{scope: grant, rule: leads}, expires: 2099-01-01T00:00:00Z`)
		ends("the same rule", r.GetGrant(), false)
		binding(`{scope: statement, rule: leads, verbs: [delete]}`)
		ends("each statement is asked for", r.GetGrant(), true)
		g := w.mustOpen("alice", "schema-change")
		binding(`{scope: statement, rule: leads, verbs: [delete]}, expires: 2099-01-01T00:00:00Z`)
		ends("the same statements", g, false)
		binding(`{scope: statement, rule: leads}`)
		ends("more statements", g, true)
	})
}

// TestTheYesIsOfTheRule: a rule that asks for more than was said ends what was taken by it,
// though its name and the binding stay.
func TestTheYesIsOfTheRule(t *testing.T) {
	for name, c := range map[string]struct {
		rule string
		ends bool
	}{
		"others":         {`{all: [{group: security, atLeast: 1}]}`, true},
		"more":           {`{all: [{group: leads, atLeast: 2}]}`, true},
		"a ticket":       {`{all: [{group: leads, atLeast: 1}], require: [ticket]}`, true},
		"another wait":   {`{all: [{group: leads, atLeast: 1}], timeout: 1m}`, false},
		"nothing beside": {`{all: [{group: leads, atLeast: 1}]}`, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.start()
				r, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "new column"})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), true, "", nil); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				w.apply(`{kind: ApprovalRule, metadata: {name: leads}, spec: ` + c.rule + `}`)
				synctest.Wait()
				if s := w.stored(r.GetGrant().GetId()); (s.GetState() == over) != c.ends {
					t.Errorf("the grant is %s: %q", s.GetState(), s.GetEndReason())
				}
			})
		})
	}
}

// TestWaitingIsNotForLonger: who waited for people gets no more than the task allows when
// they answer.
func TestWaitingIsNotForLonger(t *testing.T) {
	w := newWorld(t)
	r, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "new column"})
	if err != nil {
		t.Fatal(err)
	}
	w.apply(`{kind: Task, metadata: {name: schema-change, labels: {team: dba}}, spec: {purpose: DDL, resources: {names: [warehouse]}, permit: [{commands: [create table], schemas: [sales]}], duration: 5m}}`)
	if _, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), true, "", nil); err != nil {
		t.Fatal(err)
	}
	g := w.stored(r.GetGrant().GetId())
	if d := g.GetEndTime().AsTime().Sub(g.GetStartTime().AsTime()); g.GetState() != active || d != 5*time.Minute {
		t.Errorf("it is %s, for %s", g.GetState(), d)
	}
}

// TestLessTime: who shortens a task, or ends a binding or workload sooner, means the grants
// that live, too, and each ends just when that is over.
func TestLessTime(t *testing.T) {
	for name, c := range map[string]struct {
		token, task, change string
		after               time.Duration
		reason              string
	}{
		"task": {"alice", "sales-report", `{kind: Task, metadata: {name: sales-report, labels: {team: sales}},
			spec: {purpose: figures, resources: {names: [warehouse]}, permit: [{table: sales.orders, verbs: [select], columns: [id]}], duration: 20m}}`, 20 * time.Minute, "given for 20m0s now"},
		"binding": {"alice", "sales-report", `{kind: Binding, metadata: {name: analysts},
			spec: {subjects: [{group: analysts}], tasks: [sales-report], expires: 2000-01-01T00:20:00Z}}`, 20 * time.Minute, "has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the bubble's clock begins at midnight UTC
				w := newWorld(t)
				w.start()
				g := w.mustOpen(c.token, c.task)
				time.Sleep(time.Minute)
				w.apply(c.change)
				synctest.Wait()
				time.Sleep(c.after - time.Minute - time.Nanosecond)
				synctest.Wait()
				if s := w.stored(g.GetId()); s.GetState() != active {
					t.Errorf("before that it is %s: %q", s.GetState(), s.GetEndReason())
				}
				if again := w.mustOpen(c.token, c.task); again.GetId() != g.GetId() {
					t.Error("before that it was not found again")
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				s := w.stored(g.GetId())
				if s.GetState() != over || !strings.Contains(s.GetEndReason(), c.reason) || !s.GetEndTime().AsTime().Equal(g.GetEndTime().AsTime()) {
					t.Errorf("after that it is %s until %s: %q", s.GetState(), s.GetEndTime().AsTime(), s.GetEndReason())
				}
			})
		})
	}
}

func TestConditionIsAskedWhenTaking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		// The bubble's clock begins at midnight UTC.
		w.apply(`{kind: Binding, metadata: {name: analysts}, spec: {subjects: [{group: analysts}], tasks: [sales-report], when: "request.time.getHours() == 0 && request.ip == '192.0.2.7'"}}`)
		w.start()
		time.Sleep(50 * time.Minute)
		g := w.mustOpen("alice", "sales-report")
		time.Sleep(30 * time.Minute)
		w.apply(`{kind: Binding, metadata: {name: unrelated}, spec: {subjects: [{group: others}], tasks: [sales-report]}}`)
		synctest.Wait()
		if again := w.mustOpen("alice", "sales-report"); again.GetId() != g.GetId() {
			t.Error("the grant was not found again")
		}
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if _, err := w.open("alice", "sales-report"); err == nil {
			t.Error("taken outside its hours")
		}
	})
}

// TestConditionIsAskedAgain: a binding that was changed, or a subject that is not as it was, has the
// condition asked again of how the grant was taken, and not of nowhere and for no reason.
func TestConditionIsAskedAgain(t *testing.T) {
	const binding = `{kind: Binding, metadata: {name: %s}, spec: {subjects: [{group: analysts}, {group: %s}], tasks: [%s], when: '%s'}}`
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply(fmt.Sprintf(binding, "analysts", "one", "sales-report", `request.ip == "192.0.2.7" && request.client == "psql" && request.region == "eu-1"`))
		w.apply(fmt.Sprintf(binding, "tickets", "one", "nightly-load", `request.ticket == "OPS-7"`))
		n1 := object.Bare("node", "n1")
		n1.GetNode().Spec = &typesv1.NodeSpec{Region: "eu-1"}
		key, value, err := store.EncodeObject(n1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.Commit(t.Context(), store.Op{Key: key, Value: value}); err != nil {
			t.Fatal(err)
		}
		w.start()
		g := w.mustOpen("alice", "sales-report")
		made, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "nightly-load", Reason: "OPS-7: month end"})
		if err != nil {
			t.Fatal(err)
		}
		sub := w.tokens["alice"]
		sub.Claims = map[string]any{"session": "another"}
		w.tokens["alice/again"] = sub
		if again := w.mustOpen("alice/again", "sales-report"); again.GetId() != g.GetId() {
			t.Errorf("with another token it is not found again: %q", w.stored(g.GetId()).GetEndReason())
		}
		w.apply(fmt.Sprintf(binding, "analysts", "more", "sales-report", `request.ip == "192.0.2.7" && request.client == "psql" && request.region == "eu-1"`))
		w.apply(fmt.Sprintf(binding, "tickets", "more", "nightly-load", `request.ticket == "OPS-7"`))
		synctest.Wait()
		for _, id := range []string{g.GetId(), made.GetGrant().GetId()} {
			if s := w.stored(id); s.GetState() != active {
				t.Errorf("of a binding that picks more people %s is %s: %q", s.GetTask(), s.GetState(), s.GetEndReason())
			}
		}
		w.apply(fmt.Sprintf(binding, "analysts", "more", "sales-report", `request.ip == "192.0.2.8"`))
		synctest.Wait()
		if s := w.stored(g.GetId()); s.GetState() != over {
			t.Errorf("from elsewhere: %s", s.GetState())
		}
	})
}

func TestMembershipIsLost(t *testing.T) {
	w := newWorld(t)
	g := w.mustOpen("alice", "sales-report")
	sub := w.tokens["alice"]
	sub.Groups = []string{"staff"}
	w.tokens["alice/moved"] = sub
	_, err := w.open("alice/moved", "sales-report")
	no(t, err, "no-grant", "")
	if s := w.stored(g.GetId()); s.GetState() != over {
		t.Errorf("the grant of the old membership is %s", s.GetState())
	}
	sub.Groups = []string{"analysts", "staff"}
	w.tokens["alice/both"] = sub
	first := w.mustOpen("alice", "sales-report")
	if again := w.mustOpen("alice/both", "sales-report"); again.GetId() != first.GetId() {
		t.Error("a membership more cost the grant")
	}
}

func TestBindingBoundsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply(`{kind: Binding, metadata: {name: analysts}, spec: {subjects: [{group: analysts}], tasks: [sales-report], expires: 2000-01-01T00:20:00Z}}`)
		if g := w.mustOpen("alice", "sales-report"); time.Until(g.GetEndTime().AsTime()) != 20*time.Minute {
			t.Errorf("ends in %s", time.Until(g.GetEndTime().AsTime()))
		}
	})
}

func TestWhoMaySeeAndRevoke(t *testing.T) {
	w := newWorld(t)
	g := w.mustOpen("alice", "sales-report")
	role := func(name string, scope map[string]string) policy.RoleGrant {
		return policy.RoleGrant{Role: name, Scope: scope}
	}
	for name, c := range map[string]struct {
		by           Caller
		read, revoke codes.Code
	}{
		"nobody":         {Caller{}, codes.NotFound, codes.NotFound},
		"another":        {w.caller("bob"), codes.NotFound, codes.NotFound},
		"viewer":         {w.caller("bob", role("viewer", nil)), codes.NotFound, codes.NotFound},
		"auditor":        {w.caller("bob", role("auditor", nil)), codes.OK, codes.PermissionDenied},
		"other scope":    {w.caller("bob", role("operator", map[string]string{"team": "dba"})), codes.NotFound, codes.NotFound},
		"operator there": {w.caller("bob", role("operator", map[string]string{"team": "sales"})), codes.OK, codes.OK},
	} {
		_, err := w.Get(t.Context(), c.by, g.GetId())
		if fault.CodeOf(err) != c.read {
			t.Errorf("%s reads: %v", name, err)
		}
		list, err := w.List(t.Context(), c.by, "", true)
		if err != nil || (len(list) > 0) != (c.read == codes.OK) {
			t.Errorf("%s lists %d, %v", name, len(list), err)
		}
		if c.revoke == codes.OK {
			continue
		}
		_, _, err = w.Revoke(t.Context(), c.by, g.GetId(), "")
		if fault.CodeOf(err) != c.revoke {
			t.Errorf("%s revokes: %v", name, err)
		}
	}
	ended, _, err := w.Revoke(t.Context(), w.caller("bob", role("operator", map[string]string{"team": "sales"})), g.GetId(), "cleaning up")
	if err != nil || ended.GetState() != over || ended.GetEndReason() != "revoked by bob: cleaning up" {
		t.Errorf("revoked: %v, %v", ended, err)
	}
	_, _, err = w.Revoke(t.Context(), w.caller("alice"), g.GetId(), "")
	if fault.CodeOf(err) != codes.FailedPrecondition {
		t.Errorf("revoked twice: %v", err)
	}
	if next := w.mustOpen("alice", "sales-report"); next.GetId() == g.GetId() {
		t.Error("a revoked grant opens")
	}
}

func TestEndTakesHoldsAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		g := w.mustOpen("alice", "sales-report")
		h, err := w.holds.OpenHold(t.Context(), "n1", &nodev1.OpenHoldRequest{Scope: "session", Grant: g.GetId(), Resource: "warehouse", Session: "s", Rule: "leads", Reason: "month end"})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, _, err := w.Revoke(t.Context(), w.caller("alice"), g.GetId(), ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if h, err = w.holds.Get(t.Context(), w.reviewer(), h.GetId()); err != nil || h.GetState() != typesv1.HoldState_HOLD_STATE_WITHDRAWN {
			t.Errorf("hold %v, %v", h, err)
		}
	})
}

func lockOn(name string, spec *typesv1.LockSpec) *typesv1.Lock {
	return &typesv1.Lock{Metadata: &typesv1.Metadata{Name: name}, Spec: spec}
}

// TestStoppedWorkload: a workload that stops takes nothing from a person who has its name.
func TestStoppedWorkload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		hers := w.mustOpen("alice", "sales-report")
		its := w.mustOpen("nightly", "nightly-load")
		if ended, _, err := w.EndOf(t.Context(), w.caller("bob"), lockOn("offboard-1", &typesv1.LockSpec{Workload: "alice"}), "its owner has left"); err != nil || len(ended) != 0 {
			t.Errorf("of a workload that is called alice: %v, %v", ended, err)
		}
		if s := w.stored(hers.GetId()); s.GetState() == over {
			t.Error("alice's own grant is over")
		}
		if ended, _, err := w.EndOf(t.Context(), w.caller("bob"), lockOn("offboard-2", &typesv1.LockSpec{Workload: "nightly"}), "its owner has left"); err != nil || len(ended) != 1 || ended[0].GetId() != its.GetId() {
			t.Errorf("of nightly: %v, %v", ended, err)
		}
	})
}

// TestDamagedGrant: one that cannot be read does not keep the others from their end, nor people
// from them.
func TestDamagedGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if _, err := w.cfg.Store.Commit(t.Context(), store.Op{Key: grantKey("damaged"), Value: []byte("damaged")}, store.Op{Key: grantKey("zz-damaged"), Value: []byte("damaged")}); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.mustOpen("alice", "sales-report")
		if list, err := w.List(t.Context(), w.caller("alice"), "", true); err != nil || len(list) != 1 {
			t.Errorf("listed: %v, %v", list, err)
		}
		if held, err := w.Held(t.Context(), w.tokens["alice"]); err != nil || len(held) != 1 {
			t.Errorf("held: %v, %v", held, err)
		}
		if ended, _, err := w.EndOf(t.Context(), w.caller("bob"), lockOn("offboard-1", &typesv1.LockSpec{Subject: "Alice"}), "has left"); err != nil || len(ended) != 1 {
			t.Errorf("who leaves: %v, %v", ended, err)
		}
		g := w.mustOpen("alice", "sales-report")
		time.Sleep(time.Until(g.GetEndTime().AsTime()) + 2*time.Second)
		synctest.Wait()
		if s := w.stored(g.GetId()); s.GetState() != over {
			t.Errorf("after its time it is %s", s.GetState())
		}
	})
}

func TestForgetting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var ahead atomic.Int64 // of the service's clock, so that nobody needs to sit through it
		w.cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		w.start()
		g := w.mustOpen("alice", "sales-report")
		asked, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "an index"})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.holds.Drop(t.Context(), "alice", asked.GetHold().GetId()); err != nil {
			t.Fatal(err)
		}
		day := int64(24 * time.Hour)
		for _, later := range []int64{day, 6 * day} {
			ahead.Store(later)
			w.publish()
			synctest.Wait()
			if s := w.stored(g.GetId()); s.GetState() != over {
				t.Errorf("state %s", s.GetState())
			}
		}
		ahead.Store(8 * day)
		w.publish()
		synctest.Wait()
		if keys := slices.Concat(w.keys(Kind), w.keys(takenKind), w.keys(askedKind)); len(keys) != 0 {
			t.Errorf("not forgotten: %v", keys)
		}
	})
}

func TestTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		for range maxLive {
			if _, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report"}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		_, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report"})
		no(t, err, "limit", "live grants")
	})
}

// TestOnAndOn has somebody take a task and end it without end: those of which nodes must be told
// are bounded, and of those whose time is over the newest stay.
func TestOnAndOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		id := func(kind string, n int) string { return fmt.Sprintf("g-%s%d", kind, n) }
		add := func(kind string, n int, end func(n int) time.Time) {
			var ops []store.Op
			for i := range n {
				g := &typesv1.Grant{Id: id(kind, i), Subject: &typesv1.Subject{Name: "alice"}, Task: "sales-report", State: over, CreateTime: timestamppb.Now(), EndTime: timestamppb.New(end(i))}
				op, err := put(g, 0)
				if err != nil {
					t.Fatal(err)
				}
				if ops = append(ops, op); len(ops) == store.MaxOps || i == n-1 {
					if _, err := w.store.Commit(t.Context(), ops...); err != nil {
						t.Fatal(err)
					}
					ops = nil
				}
			}
		}
		soon := time.Now().Add(time.Minute)
		add("ended", maxEnded, func(int) time.Time { return soon })
		add("past", 100+maxKept, func(n int) time.Time { return time.Now().Add(-time.Duration(n) * time.Second) })
		w.start()
		past := map[string]bool{}
		for _, name := range w.keys(Kind) {
			past[name] = strings.HasPrefix(name, id("past", 0)[:6])
		}
		if n := len(past) - maxEnded; n != maxKept || !past[id("past", 0)] || past[id("past", maxKept)] {
			t.Errorf("%d are kept whose time is over, the newest: %v, the oldest: %v", n, past[id("past", 0)], past[id("past", maxKept)])
		}
		_, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report"})
		no(t, err, "limit", "ended before their time")
		if _, err := w.Open(t.Context(), &nodev1.OpenGrantRequest{Token: "alice", Task: "sales-report"}, "n1"); err == nil {
			t.Error("a token takes one more")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report"}); err != nil {
			t.Errorf("once their time is over: %v", err)
		}
	})
}
