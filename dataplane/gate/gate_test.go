package gate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

func TestDenialIsRecorded(t *testing.T) {
	r := newRig(t)
	_, err := r.prepare(t, "SELECT secret FROM sales.orders", &understood{facts: reading("orders", "secret"), plain: true})
	if got := refusal(t, err); got.Code != postern.CodeDenied || !strings.Contains(got.Reason, "secret") {
		t.Errorf("refusal = %+v", got)
	}
	if r.records.kinds() != "denied" || r.records.events[0].Text != "SELECT secret FROM sales.orders" {
		t.Errorf("recorded %s", r.records.kinds())
	}
}

func TestIncompleteFactsAreDenied(t *testing.T) {
	r := newRig(t)
	if _, err := r.prepare(t, "?", &understood{}); refusal(t, err).Code != postern.CodeDenied {
		t.Error(err)
	}
}

func TestForwardsOwnBytesOnlyWherePlain(t *testing.T) {
	r := newRig(t)
	a := r.must(t, "select code from sales.regions", &understood{facts: reading("regions", "code"), plain: true, canonical: "C"})
	if !a.Own || a.Forward != "select code from sales.regions" {
		t.Errorf("plain: %+v", a)
	}
	a = r.must(t, "select /**/ code from sales.regions", &understood{facts: reading("regions", "code"), canonical: "C"})
	if a.Own || a.Forward != "C" {
		t.Errorf("not plain: %+v", a)
	}
	a = r.must(t, "select email from sales.orders", &understood{facts: reading("orders", "email"), plain: true, canonical: "C", rewritten: "R"})
	if a.Own || a.Forward != "R" {
		t.Errorf("masked: %+v", a)
	}
	_, err := r.prepare(t, "select email from only sales.orders", &understood{facts: reading("orders", "email"), plain: true, err: errors.New("cannot")})
	refusal(t, err)
}

func TestIntentIsRecordedBeforeAdmit(t *testing.T) {
	r := newRig(t)
	a := r.must(t, "select email from sales.orders where id = $1", &understood{facts: reading("orders", "email"), rewritten: "R"})
	var f engine.Flow
	if err := r.Admit(a, engine.Args{
		Formats: []int16{0, 0, 1}, Values: [][]byte{[]byte("7"), nil, {0, 9}},
		Null: func(i int) bool { return i == 1 }, Text: func(i int) (string, bool) { return "9", i == 2 },
	}, &f); err != nil {
		t.Fatal(err)
	}
	if r.records.kinds() != "intent" || r.records.modes[0] != policy.Local {
		t.Fatalf("recorded %s with %v", r.records.kinds(), r.records.modes)
	}
	e := r.records.events[0]
	if e.Forward != "R" || len(e.Params) != 3 || e.Params[0].Value != "7" || e.Params[0].Text != "" || !e.Params[1].Null || e.Params[2].Text != "9" || !e.Params[2].Binary {
		t.Errorf("intent = %+v", e)
	}
	if want := sha256.Sum256([]byte(e.Text)); e.Text == "" || !bytes.Equal(e.Hash, want[:]) {
		t.Errorf("the hash of %q is %x", e.Text, e.Hash)
	}
	if len(e.Touched) != 1 || e.Touched[0].Column != "sales.orders.email" || e.Touched[0].Mask != "email" {
		t.Errorf("touched = %+v", e.Touched)
	}
	row := []byte{'D', 0, 0, 0, 6, 0, 0}
	if err := f.Columns([]engine.ResultColumn{{Name: "email"}}); err != nil {
		t.Fatal(err)
	}
	if err := f.Rows(3, append(append(append([]byte(nil), row...), row...), row...)); err != nil {
		t.Fatal(err)
	}
	if rows, _ := f.Room(100, 0); rows != 7 {
		t.Errorf("%d rows remain, want 7", rows)
	}
	if err := f.Done(engine.Outcome{Tag: "SELECT 3"}); err != nil {
		t.Fatal(err)
	}
	if r.records.kinds() != "intent rows finished" {
		t.Fatalf("recorded %s", r.records.kinds())
	}
	if kept := r.records.events[1]; kept.Rows != 2 || len(kept.Data) != 2*len(row) || kept.Columns[0].Name != "email" {
		t.Errorf("kept %+v, want the two rows that the task keeps", kept)
	}
	if done := r.records.events[2]; done.Rows != 3 || done.Tag != "SELECT 3" || done.Statement != e.Statement {
		t.Errorf("finished = %+v", done)
	}
}

// An engine has texts of one shape judged once; each is recorded with its own hash.
func TestHashOfAnotherTextOfTheShape(t *testing.T) {
	r := newRig(t)
	other := *r.must(t, "select code from sales.regions where code = 'a'", &understood{facts: reading("regions", "code"), plain: true})
	other.Text, other.Forward = "select code from sales.regions where code = 'b'", "select code from sales.regions where code = 'b'"
	var f engine.Flow
	if err := r.Admit(&other, engine.Args{}, &f); err != nil {
		t.Fatal(err)
	}
	e := r.records.events[0]
	if want := sha256.Sum256([]byte(other.Text)); e.Text != other.Text || !bytes.Equal(e.Hash, want[:]) {
		t.Errorf("%q is recorded with the hash %x", e.Text, e.Hash)
	}
}

func TestNoRecordNoAccess(t *testing.T) {
	r := newRig(t)
	a := r.must(t, "select code from sales.regions", &understood{facts: reading("regions", "code"), plain: true})
	r.records.fail = errors.New("disk full")
	var f engine.Flow
	if got := refusal(t, r.Admit(a, engine.Args{}, &f)); got.Code != postern.CodeUnavailable || strings.Contains(got.Reason, "disk") {
		t.Errorf("refusal = %+v", got)
	}
	if f.Admitted() {
		t.Error("a statement whose intent was not recorded was admitted")
	}
	if used := r.cfg.Budget.Statements.Used(); used != 0 {
		t.Errorf("%d statements count that were not forwarded", used)
	}
	r.records.fail = nil
	r.healthy = &postern.Refusal{Code: postern.CodeUnavailable, Reason: "spool full"}
	if err := r.Admit(a, engine.Args{}, &f); err == nil || f.Admitted() {
		t.Error("admitted though nothing may be forwarded")
	}
}

func TestChangedPolicyIsStale(t *testing.T) {
	r := newRig(t)
	u := &understood{facts: reading("regions", "code"), plain: true}
	a := r.must(t, "select code from sales.regions", u)
	r.must(t, "select code from sales.regions", u)
	if r.analysed != 1 {
		t.Errorf("analysed %d times, want the second verdict from the cache", r.analysed)
	}
	r.snapshots.load(t, strings.ReplaceAll(world, "columns: [code]", "columns: [name]"), 2)
	var f engine.Flow
	if err := r.Admit(a, engine.Args{}, &f); !errors.Is(err, engine.ErrStale) || !r.Stale(a) {
		t.Errorf("Admit = %v, stale %v; want ErrStale", err, r.Stale(a))
	}
	if _, err := r.prepare(t, "select code from sales.regions", u); err == nil {
		t.Error("the old verdict was used under the new policy")
	}
}

func TestHoldLetsOneExecutionThrough(t *testing.T) {
	r := newRig(t)
	u := &understood{facts: deleting(), plain: true, canonical: "DELETE FROM sales.orders WHERE id = $1"}
	a := r.must(t, "delete from sales.orders where id = $1", u)
	args := engine.Args{Values: [][]byte{[]byte("7")}}
	other := engine.Args{Values: [][]byte{[]byte("8")}}
	var f engine.Flow
	if err := r.Admit(a, args, &f); !errors.Is(err, engine.ErrHold) {
		t.Fatalf("Admit = %v, want ErrHold", err)
	}
	var notices []string
	if err := r.Await(t.Context(), a, args, func(s string) { notices = append(notices, s) }); err != nil {
		t.Fatal(err)
	}
	if len(notices) != 1 || !strings.Contains(notices[0], "leads") || !strings.Contains(notices[0], "https://postern/approvals/h-1") {
		t.Errorf("notices = %q", notices)
	}
	if err := r.Admit(a, other, &f); !errors.Is(err, engine.ErrHold) {
		t.Errorf("other parameters: Admit = %v, want ErrHold", err)
	}
	if err := r.Admit(a, args, &f); err != nil {
		t.Fatalf("after the yes: %v", err)
	}
	if f.Hold() != "h-1" {
		t.Errorf("it was let through by %q", f.Hold())
	}
	_ = f.Done(engine.Outcome{Tag: "DELETE 1"})
	if err := r.Admit(a, args, &f); !errors.Is(err, engine.ErrHold) {
		t.Errorf("the second time: Admit = %v, want ErrHold", err)
	}
	if got := r.records.kinds(); got != "held settled intent finished" {
		t.Errorf("recorded %s", got)
	}
	for i, e := range r.records.events {
		if e.Statement != r.records.events[0].Statement {
			t.Errorf("event %d is of statement %d: the story falls apart", i, e.Statement)
		}
	}
	if !a.Waits {
		t.Error("a write whose record waits for the disk would hold up an event loop")
	}
	if r.must(t, "select code from sales.regions", &understood{facts: reading("regions", "code"), plain: true, canonical: "C"}).Waits {
		t.Error("a read that is recorded locally keeps its session from event loops")
	}
	if r.records.modes[2] != policy.Disk {
		t.Errorf("the intent of a write was recorded %s, want disk", r.records.modes[2])
	}
	if err := r.Await(t.Context(), a, args, func(string) {}); err == nil {
		t.Error("an approval was used twice")
	}
}

func TestHoldRefusedOrGivenUp(t *testing.T) {
	for _, answer := range []typesv1.HoldState{typesv1.HoldState_HOLD_STATE_REFUSED, typesv1.HoldState_HOLD_STATE_EXPIRED, typesv1.HoldState_HOLD_STATE_UNSPECIFIED, typesv1.HoldState_HOLD_STATE_PENDING} {
		t.Run(answer.String(), func(t *testing.T) {
			r := newRig(t)
			r.people.answer = answer
			a := r.must(t, "delete", &understood{facts: deleting(), plain: true, canonical: "DELETE"})
			ctx, cancel := context.WithCancel(t.Context())
			if answer == typesv1.HoldState_HOLD_STATE_PENDING {
				cancel()
			}
			defer cancel()
			if got := refusal(t, r.Await(ctx, a, engine.Args{}, func(string) {})); got.Code != postern.CodeCancelled {
				t.Errorf("refusal = %+v", got)
			}
			var f engine.Flow
			if err := r.Admit(a, engine.Args{}, &f); !errors.Is(err, engine.ErrHold) {
				t.Errorf("Admit = %v, want ErrHold", err)
			}
			if got := r.records.kinds(); got != "held settled" {
				t.Errorf("recorded %s", got)
			}
		})
	}
}

func TestApprovalOfSomethingElseIsRefused(t *testing.T) {
	r := newRig(t)
	r.people.digest = func(*nodev1.OpenHoldRequest) [32]byte { return [32]byte{1} }
	a := r.must(t, "delete", &understood{facts: deleting(), plain: true, canonical: "DELETE"})
	refusal(t, r.Await(t.Context(), a, engine.Args{}, func(string) {}))
	if r.people.consumed != 0 {
		t.Error("the approval was used")
	}
}

func TestBudgetRunsOut(t *testing.T) {
	r := newRig(t)
	a := r.must(t, "select code from sales.regions", &understood{facts: reading("regions", "code"), plain: true})
	var f engine.Flow
	if err := r.Admit(a, engine.Args{}, &f); err != nil {
		t.Fatal(err)
	}
	_ = f.Rows(10, nil)
	_ = f.Done(engine.Outcome{})
	if got := refusal(t, r.Admit(a, engine.Args{}, &f)); got.Code != postern.CodeLimit || got.Rule != "report/limits" {
		t.Errorf("refusal = %+v", got)
	}
}

// TestConditionThatChangesIsAskedAgain holds a verdict that read the clock or counters
// to what policy says at each execution.
func TestConditionThatChangesIsAskedAgain(t *testing.T) {
	r := newRig(t)
	r.snapshots.load(t, strings.Replace(world, "    - {table: sales.regions, verbs: [select], columns: [code]}\n",
		"    - {table: sales.regions, verbs: [select], columns: [code], when: 'grant.rowsUsed < 2'}\n    - {table: sales.regions, verbs: [select], columns: [code], mask: {code: email}}\n", 1), 2)
	u := &understood{facts: reading("regions", "code"), plain: true, rewritten: "R"}
	a := r.must(t, "select code from sales.regions", u)
	if !a.Own {
		t.Fatalf("the first permit should have applied: %+v", a.Decision)
	}
	var f engine.Flow
	if err := r.Admit(a, engine.Args{}, &f); err != nil {
		t.Fatal(err)
	}
	_ = f.Rows(2, nil)
	_ = f.Done(engine.Outcome{})
	if err := r.Admit(a, engine.Args{}, &f); !errors.Is(err, engine.ErrStale) {
		t.Errorf("Admit = %v, want ErrStale: the masked permit applies now", err)
	}
	if a = r.must(t, "select code from sales.regions", u); a.Forward != "R" {
		t.Errorf("forwards %q, want the masked text", a.Forward)
	}
}

// TestALockNeedsNoNewJudgement: what was judged before a lock is refused by it at once, and
// goes on for whom it does not concern.
func TestALockNeedsNoNewJudgement(t *testing.T) {
	for subject, want := range map[string]postern.Code{"alice": postern.CodeKilled, "bob": 0} {
		r := newRig(t)
		a := r.must(t, "select code from sales.regions", &understood{facts: reading("regions", "code"), plain: true})
		lock := object.Bare("lock", "l")
		lock.GetLock().Spec = &typesv1.LockSpec{Subject: subject, Reason: "lost"}
		locked, _ := r.snapshots.Current().WithLocks(postern.Version{Epoch: "e", Revision: 2}, []*typesv1.Object{lock})
		r.snapshots.p.Store(locked)
		var f engine.Flow
		err := r.Admit(a, engine.Args{}, &f)
		if want == 0 && err != nil || want != 0 && refusal(t, err).Code != want {
			t.Errorf("a lock on %s: %v", subject, err)
		}
	}
}

func TestTransactionCanBeEndedWithoutBudget(t *testing.T) {
	r := newRig(t)
	a := r.must(t, "commit", &understood{plain: true, facts: sql.Facts{Complete: true, Statements: []sql.Statement{{Verb: sql.Transaction, Command: "COMMIT", Effect: postern.EffectNone}}}})
	r.cfg.Budget.Rows.Take(10, 10)
	var f engine.Flow
	if err := r.Admit(a, engine.Args{}, &f); err != nil {
		t.Error(err)
	}
}

func TestSessionHold(t *testing.T) {
	r := newRig(t)
	r.Gate = New(func() Config {
		c := r.cfg
		c.Approval = &postern.Approval{Scope: postern.ScopeSession, Rule: "leads"}
		return c
	}())
	a := r.must(t, "select code from sales.regions", &understood{facts: reading("regions", "code"), plain: true})
	var f engine.Flow
	if err := r.Admit(a, engine.Args{}, &f); err == nil {
		t.Fatal("a session that nobody let in ran a statement")
	}
	if err := r.AwaitSession(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if err := r.Admit(a, engine.Args{}, &f); err != nil {
		t.Error(err)
	}
}

// TestCachedReadAllocatesNothing holds the hot path to its promise.
func TestCachedReadAllocatesNothing(t *testing.T) {
	r := newRig(t)
	r.records.silent = true
	a := r.must(t, "select code from sales.regions", &understood{facts: reading("regions", "code"), plain: true})
	var f engine.Flow
	values := [][]byte{[]byte("DE")}
	row := []byte{'D', 0, 0, 0, 6, 0, 0}
	r.cfg.Budget.Rows.Give(1 << 40) // room for the loop
	if n := testing.AllocsPerRun(1000, func() {
		if err := r.Admit(a, engine.Args{Values: values}, &f); err != nil {
			t.Fatal(err)
		}
		if rows, _ := f.Room(1, int64(len(row))); rows < 1 {
			t.Fatal("no room for a row")
		}
		_ = f.Rows(1, row)
		_ = f.Done(engine.Outcome{Tag: "SELECT 1"})
	}); n != 0 {
		t.Errorf("%v allocations for each execution, want none", n)
	}
}

func BenchmarkAdmit(b *testing.B) {
	r := newRig(b)
	r.records.silent = true
	a := r.must(b, "select code from sales.regions", &understood{facts: reading("regions", "code"), plain: true})
	var f engine.Flow
	r.cfg.Budget.Rows.Give(1 << 60)
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Admit(a, engine.Args{}, &f); err != nil {
			b.Fatal(err)
		}
		_ = f.Done(engine.Outcome{})
	}
}
