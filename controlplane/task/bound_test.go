package task

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

const boundWorld = `
kind: Binding
metadata: {name: analysts}
spec: {subjects: [{group: analysts}], tasks: [sales-report], bound: {hook: jira}}
---
kind: Binding
metadata: {name: analysts-schema}
spec: {subjects: [{group: analysts}], tasks: [schema-change], approval: {scope: grant, rule: leads}, bound: {hook: jira}}
---
kind: Binding
metadata: {name: nightly}
spec: {subjects: [{workload: nightly}], tasks: [nightly-load], bound: {hook: ci, claim: run_id}}
`

var tells = audit.Entry{Actor: "hook/jira"}

func ticket(ref string) *typesv1.GrantReference {
	return &typesv1.GrantReference{Hook: "jira", Ref: ref}
}

// TestClosedTicketEndsGrants: what is bound to a ticket ends with it, at once, and nothing
// is taken for one that is closed.
func TestClosedTicketEndsGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply(boundWorld)
		w.start()
		_, err := w.open("alice", "sales-report")
		no(t, err, "no-grant", "binds the task to a ticket")
		asked, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "sales-report", Reason: "OPS-1: figures"})
		if err != nil {
			t.Fatal(err)
		}
		g := w.mustOpen("alice", "sales-report") // her login finds what she took
		if g.GetId() != asked.GetGrant().GetId() || g.GetBound().GetRef() != "OPS-1" || g.GetBound().GetHook() != "jira" {
			t.Fatalf("opened %v", g)
		}
		waits, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "OPS-1: an index"})
		if err != nil {
			t.Fatal(err)
		}
		other := must2(w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report", Reason: "OPS-2"}))(t).GetGrant()
		if err := w.Close(t.Context(), &typesv1.GrantReference{Hook: "another", Ref: "OPS-1"}, time.Now(), tells); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !Live(w.stored(g.GetId()), time.Now()) {
			t.Fatal("another hook's word ended it")
		}
		if err := w.Close(t.Context(), ticket("OPS-1"), time.Now(), tells); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, id := range []string{g.GetId(), waits.GetGrant().GetId()} {
			if s := w.stored(id); s.GetState() != over || s.GetEndReason() != "OPS-1 is closed, as jira says" {
				t.Errorf("%s after the closing: %v", s.GetTask(), s)
			}
		}
		if !Live(w.stored(other.GetId()), time.Now()) {
			t.Error("another ticket's grant ended")
		}
		for _, task := range []string{"sales-report", "schema-change"} {
			_, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: task, Reason: "OPS-1: once more"})
			no(t, err, "no-grant", "OPS-1 is closed")
		}
		time.Sleep(time.Second)
		if err := w.Reopen(t.Context(), ticket("OPS-1"), time.Now(), tells); err != nil {
			t.Fatal(err)
		}
		if s := w.stored(g.GetId()); s.GetState() != over {
			t.Errorf("an ended grant came back: %v", s)
		}
		if _, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "sales-report", Reason: "OPS-1: once more"}); err != nil {
			t.Errorf("for the ticket that is open again: %v", err)
		}
	})
}

// TestMessagesOvertake: what is known of a ticket is what came about last, in whatever order
// its messages come.
func TestMessagesOvertake(t *testing.T) {
	w := newWorld(t)
	w.apply(boundWorld)
	now := time.Now()
	told := func(close bool, at time.Duration) error {
		if close {
			return w.Close(t.Context(), ticket("OPS-1"), now.Add(at), tells)
		}
		return w.Reopen(t.Context(), ticket("OPS-1"), now.Add(at), tells)
	}
	for i, c := range []struct {
		close  bool
		at     time.Duration
		passed bool // over, since something later is known
		closed bool // afterwards
	}{
		{close: true, at: 10, closed: true},
		{close: false, at: 5, passed: true, closed: true}, // was on the way for long
		{close: false, at: 10, passed: true, closed: true},
		{close: true, at: 10, closed: true},
		{close: false, at: 20},
		{close: true, at: 15, passed: true},
		{close: false, at: 20},
		{close: true, at: 20, closed: true},
	} {
		if err := told(c.close, c.at); (err != nil) != c.passed || c.passed && fault.CodeOf(err) != codes.Aborted {
			t.Errorf("%d: %v", i, err)
		}
		_, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report", Reason: "OPS-1"})
		if (err != nil) != c.closed {
			t.Errorf("%d: a grant for the ticket: %v", i, err)
		}
	}
}

// TestClosedBeforeTheYes: a yes does not open what was closed meanwhile, even where this
// replica has not heard of it yet.
func TestClosedBeforeTheYes(t *testing.T) {
	w := newWorld(t)
	w.apply(boundWorld)
	waits, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "OPS-1: an index"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(t.Context(), ticket("OPS-1"), time.Now(), tells); err != nil {
		t.Fatal(err)
	}
	_, err = w.holds.Review(t.Context(), w.reviewer(), waits.GetHold().GetId(), true, "", nil)
	no(t, err, "no-grant", "OPS-1 is closed")
	if s := w.stored(waits.GetGrant().GetId()); s.GetState() == active {
		t.Errorf("it opened: %v", s)
	}
}

// TestJobs: each job has a grant of its own, and ends alone.
func TestJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply(boundWorld)
		for token, run := range map[string]any{"run 1": "1", "run 2": 2.0, "no run": nil} {
			w.tokens[token] = postern.Subject{Name: "nightly", Workload: "nightly", Claims: map[string]any{"run_id": run}}
		}
		w.start()
		_, err := w.open("no run", "nightly-load")
		no(t, err, "no-grant", "does not name one in its claim")
		one, two := w.mustOpen("run 1", "nightly-load"), w.mustOpen("run 2", "nightly-load")
		if one.GetId() == two.GetId() || w.mustOpen("run 1", "nightly-load").GetId() != one.GetId() {
			t.Fatalf("%v and %v", one, two)
		}
		if err := w.Close(t.Context(), &typesv1.GrantReference{Hook: "ci", Ref: "1"}, time.Now(), tells); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w.stored(one.GetId()).GetState() != over || !Live(w.stored(two.GetId()), time.Now()) {
			t.Errorf("%v and %v", w.stored(one.GetId()), w.stored(two.GetId()))
		}
	})
}

// TestJobsByTwoClaims: where two bindings tell jobs apart, each by its own claim, a job is
// another if either says so, whichever of them has bound its grant.
func TestJobsByTwoClaims(t *testing.T) {
	w := newWorld(t)
	w.apply(boundWorld)
	w.apply(`
kind: Binding
metadata: {name: a-builds}
spec: {subjects: [{workload: nightly}], tasks: [nightly-load], bound: {hook: builds, claim: build}}
`)
	job := func(run, build any) *typesv1.Grant {
		w.tokens["job"] = postern.Subject{Name: "nightly", Workload: "nightly", Claims: map[string]any{"run_id": run, "build": build}}
		return w.mustOpen("job", "nightly-load")
	}
	one := job("5", "7")
	if one.GetBound().GetRef() != "7" {
		t.Fatalf("the binding that comes first binds: %v", one)
	}
	for what, other := range map[string]*typesv1.Grant{"another run": job("6", "7"), "another build": job("5", "8"), "the claims' texts swapped": job("7", "5")} {
		if other.GetId() == one.GetId() {
			t.Errorf("%s has the grant of the job before: %v", what, other)
		}
	}
	if again := job("5", "7"); again.GetId() != one.GetId() {
		t.Errorf("the same job has another grant: %v", again)
	}
}

// TestYesToAJob: what people said yes to is found by the token that asked, also where its
// claims name a job to which the grant is not bound.
func TestYesToAJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.apply(boundWorld)
		w.apply(`
kind: Binding
metadata: {name: by-pipeline}
spec: {subjects: [{group: analysts}], tasks: [schema-change], when: 'request.reason == "never"', bound: {hook: ci, claim: pipeline}}
`)
		w.start()
		alice := w.tokens["alice"]
		alice.Claims = map[string]any{"pipeline": "p-1"}
		w.tokens["alice"] = alice
		for _, extend := range []bool{false, true} {
			r := must2(w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "OPS-1: an index", Extend: extend}))(t)
			if _, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), true, "", nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if g := w.mustOpen("alice", "schema-change"); g.GetId() != r.GetGrant().GetId() {
				t.Errorf("after the yes (extension: %t) it is %v", extend, g)
			}
		}
	})
}

// TestOneQuestion: who asks for the same at another replica, which has heard of nothing yet,
// asks nothing further; nor does who asks again once the grant is over that was to be extended.
func TestOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		deaf := New(Config{
			Store: w.store, Snapshot: w.current, Changed: w.subscribe, Sign: w.sign, Verifier: w.tokens, Certificates: w.certs, Audit: w.cfg.Audit, Logger: w.cfg.Logger,
			Approve: approve.New(approve.Config{Store: w.store, Snapshot: w.current, Audit: w.cfg.Audit, URL: func(id string) string { return id }, Logger: w.cfg.Logger}),
		})
		ask := func(s *Service, extend bool) *apiv1.RequestGrantResponse {
			return must2(s.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "an index", Extend: extend}))(t)
		}
		first := ask(w.Service, false)
		if r := ask(deaf, false); r.GetHold().GetId() != first.GetHold().GetId() {
			t.Errorf("asked twice for a grant: %v and %v", first, r)
		}
		if _, err := w.holds.Review(t.Context(), w.reviewer(), first.GetHold().GetId(), true, "", nil); err != nil {
			t.Fatal(err)
		}
		more := ask(w.Service, true)
		if r := ask(deaf, true); r.GetHold().GetId() != more.GetHold().GetId() || r.GetGrant().GetId() != more.GetGrant().GetId() {
			t.Errorf("asked twice for more: %v and %v", more, r)
		}
		if _, _, err := w.Revoke(t.Context(), w.caller("alice"), first.GetGrant().GetId(), ""); err != nil {
			t.Fatal(err)
		}
		if r := ask(deaf, false); r.GetHold().GetId() != more.GetHold().GetId() {
			t.Errorf("asked anew once the first was over: %v and %v", more, r)
		}
		_, err := w.open("alice", "schema-change")
		no(t, err, "no-grant", "still waits for a yes")
	})
}

// TestExtension: the end of a grant never moves; more time is a new ask, and until people
// say yes the old grant is what logins find.
func TestExtension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		ask := func(extend bool) *apiv1.RequestGrantResponse {
			return must2(w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "an index", Extend: extend}))(t)
		}
		yes := func(r *apiv1.RequestGrantResponse) {
			if _, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), true, "", nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		first := ask(false)
		yes(first)
		end := w.stored(first.GetGrant().GetId()).GetEndTime().AsTime()
		if r := ask(false); r.GetHold() != nil || r.GetGrant().GetId() != first.GetGrant().GetId() {
			t.Errorf("asked while it lives: %v", r)
		}
		time.Sleep(10 * time.Minute)
		more := ask(true)
		synctest.Wait()
		if more.GetHold() == nil || ask(true).GetHold().GetId() != more.GetHold().GetId() {
			t.Errorf("asked for more: %v", more)
		}
		if g := w.mustOpen("alice", "schema-change"); g.GetId() != first.GetGrant().GetId() {
			t.Errorf("before the yes: %v", g)
		}
		yes(more)
		if g := w.mustOpen("alice", "schema-change"); g.GetId() != more.GetGrant().GetId() || !g.GetEndTime().AsTime().After(end) {
			t.Errorf("after the yes: %v", g)
		}
		if old := w.stored(first.GetGrant().GetId()); !old.GetEndTime().AsTime().Equal(end) || !Live(old, time.Now()) {
			t.Errorf("the first one: %v", old)
		}
	})
}

func must2[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
