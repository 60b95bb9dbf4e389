package task

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
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
		if err := w.Close(t.Context(), &typesv1.GrantReference{Hook: "another", Ref: "OPS-1"}, tells); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !Live(w.stored(g.GetId()), time.Now()) {
			t.Fatal("another hook's word ended it")
		}
		if err := w.Close(t.Context(), ticket("OPS-1"), tells); err != nil {
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
		if err := w.Reopen(t.Context(), ticket("OPS-1"), tells); err != nil {
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

// TestClosedBeforeTheYes: a yes does not open what was closed meanwhile, even where this
// replica has not heard of it yet.
func TestClosedBeforeTheYes(t *testing.T) {
	w := newWorld(t)
	w.apply(boundWorld)
	waits, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "OPS-1: an index"})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(t.Context(), ticket("OPS-1"), tells); err != nil {
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
		if err := w.Close(t.Context(), &typesv1.GrantReference{Hook: "ci", Ref: "1"}, tells); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if w.stored(one.GetId()).GetState() != over || !Live(w.stored(two.GetId()), time.Now()) {
			t.Errorf("%v and %v", w.stored(one.GetId()), w.stored(two.GetId()))
		}
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
