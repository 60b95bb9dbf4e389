package approve

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

const rules = world + `
---
kind: ApprovalRule
metadata: {name: soon}
spec: {all: [{group: leads, atLeast: 1}, {group: security, atLeast: 1}], distinct: true, timeout: 15m, escalate: {after: 5m, group: directors}}
---
kind: ApprovalRule
metadata: {name: office}
spec: {all: [{group: leads, atLeast: 1}], timeout: 2h, hours: {zone: Europe/Berlin, from: "08:00", to: "18:00"}}
`

// TestEscalation: who is asked later stands for one of those who did not answer, and not
// before.
func TestEscalation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.policy(rules)
		f.grant("g-1", alice)
		f.start()
		req := ask("g-1", "s-1", "DELETE 1")
		req.Rule = "soon"
		h := f.open(req)
		dora, dan := person("dora", "directors"), person("dan", "directors", "leads", "security")
		_, err := f.Review(t.Context(), dora, h.GetId(), true, "", nil)
		code(t, err, codes.NotFound, "may see")
		if _, err := f.Review(t.Context(), dan, h.GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		seen, err := f.Get(t.Context(), dora, h.GetId())
		if err != nil || !slices.Equal(seen.GetApproverGroups(), []string{"leads", "security", "directors"}) {
			t.Fatalf("after five minutes: %v, %v", seen, err)
		}
		_, err = f.Review(t.Context(), dan, h.GetId(), true, "", nil)
		code(t, err, codes.AlreadyExists, "answered")
		// Dan holds one of the two places, whichever; dora takes the other.
		if seen, err = f.Review(t.Context(), dora, h.GetId(), true, "nobody is in", nil); err != nil || stateWord(seen) != "approved" {
			t.Errorf("%v, %v", seen, err)
		}
	})
}

// TestWhoIsAskedNow: what waits is shown to those whom its rule asks as it is now, to who watches
// already too, and to those of before no more.
func TestWhoIsAskedNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		changed := make(chan struct{}, 1)
		f.cfg.Changed = func() (<-chan struct{}, func()) { return changed, func() {} }
		f.grant("g-1", alice)
		f.start()
		h := f.open(ask("g-1", "s-1", "DELETE 1"))
		other := f.open(ask("g-1", "s-1", "DELETE 2"))
		sue := person("sue", "security")
		sees := func(who Caller, want ...string) {
			t.Helper()
			list, err := f.List(t.Context(), who, false, true)
			if err != nil || len(list) != len(want) {
				t.Fatalf("%s is shown %v, %v; want %v", who.Subject.Name, list, err, want)
			}
			for _, h := range list {
				if !slices.Contains(want, h.GetId()) || who.Subject.Name == "sue" && !slices.Equal(h.GetApproverGroups(), []string{"security"}) {
					t.Errorf("%s is shown %v", who.Subject.Name, h)
				}
			}
		}
		var told []string
		watching, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- f.Watch(watching, sue, func(h *typesv1.Hold) error { told = append(told, h.GetId()); return nil })
		}()
		synctest.Wait()
		sees(sue)
		sees(bob, h.GetId(), other.GetId())
		f.policy(strings.Replace(world, "spec: {all: [{group: leads, atLeast: 1}]", "spec: {all: [{group: security, atLeast: 1}]", 1))
		changed <- struct{}{}
		synctest.Wait()
		sees(sue, h.GetId(), other.GetId())
		sees(bob)
		if !slices.Equal(told, []string{h.GetId(), other.GetId()}) && !slices.Equal(told, []string{other.GetId(), h.GetId()}) {
			t.Errorf("who watches was told of %v", told)
		}
		_, err := f.Get(t.Context(), bob, h.GetId())
		code(t, err, codes.NotFound, "may see")
		if h, err := f.Review(t.Context(), sue, h.GetId(), true, "", nil); err != nil || stateWord(h) != "approved" {
			t.Errorf("%v, %v", h, err)
		}
		synctest.Wait()
		f.policy(strings.Replace(world, "spec: {all: [{group: leads, atLeast: 1}]", "spec: {all: [{group: security, atLeast: 1}], escalate: {after: 5m, group: dba}", 1))
		changed <- struct{}{}
		synctest.Wait()
		if len(told) != 3 { // the answer, and nothing again
			t.Errorf("who watches was told of %v", told)
		}
		stop()
		if err := <-done; err == nil {
			t.Error("the watch ended")
		}
	})
}

// TestEscalatedRequester: who asks does not answer by being in the further group.
func TestEscalatedRequester(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.policy(rules)
		f.grant("g-1", alice)
		f.start()
		req := ask("g-1", "s-1", "DELETE 1")
		req.Rule = "soon"
		h := f.open(req)
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		_, err := f.Review(t.Context(), person("alice", "directors"), h.GetId(), true, "", nil)
		code(t, err, codes.PermissionDenied, "own hold")
		if _, err := f.Review(t.Context(), person("dora", "directors"), h.GetId(), true, "", nil); err != nil || f.state(h.GetId()) != "pending" {
			t.Errorf("one director stood for two groups: %v, %s", err, f.state(h.GetId()))
		}
	})
}

// TestHours: people are asked, and say yes, when they are there; a no counts always.
func TestHours(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t)
	f.policy(rules)
	now := time.Date(2026, 3, 27, 17, 30, 0, 0, berlin) // a Friday
	f.cfg.Now = func() time.Time { return now }
	f.save(&typesv1.Grant{Id: "g-1", Subject: alice, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(now.Add(96 * time.Hour))})
	asked := func(statement string) (*typesv1.Hold, error) {
		req := ask("g-1", "s-1", statement)
		req.Rule = "office"
		return f.OpenHold(context.Background(), "n1", req)
	}
	h, err := asked("DELETE 1")
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(30 * time.Minute)
	_, err = f.Review(t.Context(), bob, h.GetId(), true, "", nil)
	code(t, err, codes.FailedPrecondition, "mon tue wed thu fri, 08:00 to 18:00, Europe/Berlin")
	if _, err := f.Review(t.Context(), bob, h.GetId(), false, "it is late", nil); err != nil {
		t.Errorf("a no: %v", err)
	}
	_, err = asked("DELETE 2")
	code(t, err, codes.FailedPrecondition, "nobody can be asked now")
	for at, want := range map[time.Time]bool{
		time.Date(2026, 3, 28, 12, 0, 0, 0, berlin):    false, // Saturday
		time.Date(2026, 3, 30, 7, 59, 59, 0, berlin):   false, // summer time by now
		time.Date(2026, 3, 30, 6, 0, 0, 0, time.UTC):   true,
		time.Date(2026, 3, 30, 15, 59, 0, 0, time.UTC): true,
		time.Date(2026, 3, 30, 16, 0, 0, 0, time.UTC):  false,
	} {
		now = at
		if _, err := asked("DELETE at " + at.String()); (err == nil) != want {
			t.Errorf("asked at %s: %v", at, err)
		}
	}
}

// TestRequired: a session's or statement's grant has to say why, too.
func TestRequired(t *testing.T) {
	f := newFixture(t)
	f.save(&typesv1.Grant{Id: "g-1", Subject: alice, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(time.Now().Add(time.Hour))})
	_, err := f.OpenHold(t.Context(), "n1", ask("g-1", "s-1", "DELETE 1"))
	code(t, err, codes.FailedPrecondition, "only with a reason")
	if v := fault.From(err).Violations; len(v) != 1 || v[0].Field != "hint" {
		t.Errorf("what next: %v", v)
	}
	req := ask("g-1", "s-1", "DELETE 1")
	req.Rule, req.Reason = "two", "it must go"
	_, err = f.OpenHold(t.Context(), "n1", req)
	code(t, err, codes.FailedPrecondition, "ticket")
	req.Reason = "OPS-1: it must go"
	f.open(req)
}

// TestOfAWorkload: what a workload asks is not shown to a person who has its name, nor theirs
// to take back.
func TestOfAWorkload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.start()
		f.grant("g-1", &typesv1.Subject{Name: "nightly", Workload: "nightly"})
		h := f.open(ask("g-1", "s-1", "DELETE 1"))
		synctest.Wait()
		nightly := person("nightly")
		if got, err := f.Get(t.Context(), nightly, h.GetId()); err == nil {
			t.Errorf("shown: %v", got)
		}
		if _, err := f.Withdraw(t.Context(), nightly, h.GetId()); err == nil {
			t.Error("withdrawn")
		}
		if list, err := f.List(t.Context(), nightly, false, false); err != nil || len(list) != 0 {
			t.Errorf("listed: %v, %v", list, err)
		}
		if got, err := f.Get(t.Context(), bob, h.GetId()); err != nil || got.GetWorkload() != "nightly" {
			t.Errorf("who is asked is shown %v, %v", got, err)
		}
	})
}

// TestShown: what people know before they answer.
func TestShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.grant("g-1", alice)
		f.start()
		past := time.Now().Add(-time.Hour)
		f.cfg.Sessions = func(_ context.Context, subject, task string) ([]*typesv1.Session, bool, error) {
			if subject != "alice" || task != "purge-order" {
				t.Errorf("history of %s with %s", subject, task)
			}
			return []*typesv1.Session{
				{Id: "s-1", Statements: 100, StartTime: timestamppb.New(time.Now())}, // the one that waits
				{Id: "s-0", Statements: 7, Denied: 2, StartTime: timestamppb.New(past)},
				{Id: "s-2", Statements: 90, StartTime: timestamppb.New(past.Add(-time.Hour)), Workload: "alice"}, // which is another
			}, false, nil
		}
		if _, err := f.Review(t.Context(), bob, f.open(ask("g-1", "s-1", "DELETE 1")).GetId(), false, "no", nil); err != nil {
			t.Fatal(err)
		}
		f.grant("g-2", &typesv1.Subject{Name: "alice", Workload: "alice"})
		f.open(ask("g-2", "s-2", "DELETE 1"))
		rows := int64(12)
		req := ask("g-1", "s-1", "DELETE 2")
		req.EstimatedRows, req.Masked = &rows, []string{"sales.customers.email: email"}
		h := f.open(req)
		synctest.Wait()
		if h.GetEstimatedRows() != 12 || len(h.GetMasked()) != 1 {
			t.Errorf("%v", h)
		}
		got, err := f.History(t.Context(), h)
		if err != nil || got.GetSessions() != 1 || got.GetStatements() != 7 || got.GetDenied() != 2 || got.GetAsked() != 1 || got.GetRefused() != 1 || !got.GetLastTime().AsTime().Equal(past) {
			t.Errorf("%v, %v", got, err)
		}
	})
}

// TestTightenedRule: a yes that the rule would not take any more is not used, and is asked
// for anew; one that it would still take stands.
func TestTightenedRule(t *testing.T) {
	for name, c := range map[string]struct {
		rule string
		want string // of the error; empty where the yes stands
	}{
		"others":       {`{all: [{group: security, atLeast: 1}]}`, "asks for more than was said"},
		"more of them": {`{all: [{group: leads, atLeast: 2}]}`, "asks for more than was said"},
		"a reason":     {`{all: [{group: leads, atLeast: 1}], require: [reason]}`, ""},
		"a ticket":     {`{all: [{group: leads, atLeast: 1}], require: [ticket]}`, "must name a ticket"},
		"another wait": {`{all: [{group: leads, atLeast: 1}], timeout: 1h}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			g := &typesv1.Grant{Id: "g-1", Subject: alice, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_ACTIVE, Reason: "month end", EndTime: timestamppb.New(time.Now().Add(time.Hour))}
			f.save(g)
			h := f.open(ask("g-1", "s-1", "DELETE 1"))
			if _, err := f.Review(t.Context(), bob, h.GetId(), true, "", nil); err != nil {
				t.Fatal(err)
			}
			f.policy(strings.Replace(world, "{all: [{group: leads, atLeast: 1}], distinct: true, timeout: 15m, require: [reason]}", c.rule, 1))
			again, err := f.OpenHold(t.Context(), "n1", ask("g-1", "s-2", "DELETE 1"))
			if err == nil && (again.GetId() == h.GetId()) != (c.want == "") {
				t.Errorf("asked again: %v", again)
			}
			if _, err = f.Consume(t.Context(), "n1", h.GetId(), h.GetDigest(), "s-2"); c.want == "" && err != nil {
				t.Errorf("the yes: %v", err)
			}
			if c.want != "" {
				code(t, err, codes.FailedPrecondition, c.want)
			}
		})
	}
}

// TestTightenedWhileWaiting: nobody says yes to what the rule would not have asked.
func TestTightenedWhileWaiting(t *testing.T) {
	f := newFixture(t)
	g := &typesv1.Grant{Id: "g-1", Subject: alice, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_ACTIVE, Reason: "month end", EndTime: timestamppb.New(time.Now().Add(time.Hour))}
	f.save(g)
	h := f.open(ask("g-1", "s-1", "DELETE 1"))
	f.policy(strings.Replace(world, "require: [reason]", "require: [ticket]", 1))
	_, err := f.Review(t.Context(), bob, h.GetId(), true, "", nil)
	code(t, err, codes.FailedPrecondition, "must name a ticket")
	if _, err := f.Review(t.Context(), bob, h.GetId(), false, "name a ticket", nil); err != nil {
		t.Errorf("a no: %v", err)
	}
}
