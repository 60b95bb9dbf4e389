package gate

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"weak"

	"pgregory.net/rapid"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/test/wait"
)

// TestNothingIsForwardedWithoutAYes drives one gate at random, with policies that change
// and people who say all kinds of things, and holds it against a model: a held execution
// is admitted just once for each yes to just this statement with just these parameters,
// under a policy that holds it still, while nothing is wrong.
func TestNothingIsForwardedWithoutAYes(t *testing.T) {
	worlds := []string{world, strings.ReplaceAll(world, "columns: [code]", "columns: [name]"), strings.ReplaceAll(world, "{table: sales.orders, verbs: [delete]", "{table: sales.regions, verbs: [delete]")}
	statements := []string{"DELETE FROM sales.orders WHERE id = $1", "DELETE FROM sales.orders WHERE id = $1 ", "DELETE FROM sales.orders WHERE id < $1"}
	all := map[string]engine.Args{"none": {}, "7": {Values: [][]byte{[]byte("7")}}, "8": {Values: [][]byte{[]byte("8")}}, "null": {Values: [][]byte{nil}, Null: func(int) bool { return true }}, "empty": {Values: [][]byte{{}}}}
	parameters := []string{"none", "7", "8", "null", "empty"}
	type execution struct{ statement, parameters string }
	forwarded, held := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		r := newRig(t)
		right := r.people.digest
		revision, on := int64(1), 0
		yes := map[execution]bool{}
		admissions := map[string]*engine.Admission{}
		draw := func() execution {
			return execution{rapid.SampledFrom(statements).Draw(rt, "statement"), rapid.SampledFrom(parameters).Draw(rt, "parameters")}
		}
		// prepared is an admission, which may be stale.
		prepared := func(statement string) *engine.Admission {
			if a := admissions[statement]; a != nil {
				return a
			}
			a, err := r.prepare(t, statement, &understood{facts: deleting(), plain: true, canonical: statement})
			if err != nil {
				if on != 2 {
					rt.Fatal(err)
				}
				rt.Skip("the policy denies it")
			}
			admissions[statement] = a
			return a
		}
		await := func(rt *rapid.T, e execution, answer typesv1.HoldState, digest func(*nodev1.OpenHoldRequest) [32]byte) {
			a := prepared(e.statement)
			r.people.answer, r.people.digest, r.people.consumed = answer, digest, rapid.IntRange(0, 1).Draw(rt, "used before")
			ctx, cancel := context.WithCancel(t.Context())
			if answer == typesv1.HoldState_HOLD_STATE_PENDING {
				cancel()
			}
			defer cancel()
			want := answer == typesv1.HoldState_HOLD_STATE_APPROVED && r.people.consumed == 0 && r.people.digest(&nodev1.OpenHoldRequest{}) == right(&nodev1.OpenHoldRequest{})
			err := r.Await(ctx, a, all[e.parameters], func(string) {})
			if (err == nil) != want {
				rt.Fatalf("%+v was answered %s: %v", e, answer, err)
			}
			if want {
				yes[e] = true
			}
		}
		admit := func(rt *rapid.T, e execution) {
			a := prepared(e.statement)
			stale := r.Stale(a)
			var f engine.Flow
			err := r.Admit(a, all[e.parameters], &f)
			if may := yes[e] && !stale && r.healthy == nil; (err == nil) != may {
				rt.Fatalf("%+v: %v; a yes: %v, stale: %v, healthy: %v", e, err, yes[e], stale, r.healthy)
			}
			switch {
			case err == nil:
				forwarded++
				delete(yes, e)
				_ = f.Done(engine.Outcome{Tag: "DELETE 1"})
			case errors.Is(err, engine.ErrStale):
				delete(admissions, e.statement)
			default:
				held++
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"a yes and its use": func(rt *rapid.T) {
				e := draw()
				await(rt, e, typesv1.HoldState_HOLD_STATE_APPROVED, right)
				admit(rt, e)
			},
			"an answer": func(rt *rapid.T) {
				await(rt, draw(), typesv1.HoldState(rapid.IntRange(0, len(typesv1.HoldState_name)-1).Draw(rt, "answer")), right)
			},
			"a yes to something else": func(rt *rapid.T) {
				await(rt, draw(), typesv1.HoldState_HOLD_STATE_APPROVED, func(*nodev1.OpenHoldRequest) [32]byte { return [32]byte{1} })
			},
			"admit": func(rt *rapid.T) { admit(rt, draw()) },
			"another policy": func(rt *rapid.T) {
				revision++
				on = rapid.IntRange(0, len(worlds)-1).Draw(rt, "policy")
				r.snapshots.load(t, worlds[on], revision)
			},
			"health": func(rt *rapid.T) {
				if r.healthy = nil; rapid.Bool().Draw(rt, "ill") {
					r.healthy = errors.New("the disk is full")
				}
			},
		})
	})
	if t.Logf("%d forwarded, %d held back", forwarded, held); forwarded < 20 || held < 20 {
		t.Error("this shows nothing")
	}
}

// strict has the task ask other people.
var strict = strings.ReplaceAll(world, "rule: leads}", "rule: both}") + `---
kind: ApprovalRule
metadata: {name: both}
spec: {all: [{group: leads, atLeast: 1}, {group: security, atLeast: 1}]}
`

// A yes is that of the rule by which people were asked: where policy asks by another one by
// the time that they have answered, it asks again.
func TestAYesIsOfItsRule(t *testing.T) {
	r := newRig(t)
	u := &understood{facts: deleting(), plain: true, canonical: "DELETE FROM sales.orders WHERE id = 7"}
	a := r.must(t, "delete from sales.orders where id = 7", u)
	if err := r.Await(t.Context(), a, engine.Args{}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	r.snapshots.load(t, strict, 2)
	var f engine.Flow
	if err := r.Admit(a, engine.Args{}, &f); !errors.Is(err, engine.ErrStale) {
		t.Fatalf("Admit = %v, want ErrStale", err)
	}
	a = r.must(t, "delete from sales.orders where id = 7", u)
	if err := r.Admit(a, engine.Args{}, &f); a.Decision.Approval.Rule != "both" || !errors.Is(err, engine.ErrHold) {
		t.Fatalf("Admit where %s are asked = %v, want ErrHold", a.Decision.Approval.Rule, err)
	}
	r.people.consumed = 0
	if err := r.Await(t.Context(), a, engine.Args{}, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if err := r.Admit(a, engine.Args{}, &f); err != nil {
		t.Errorf("after the yes of both: %v", err)
	}
}

// cropped answers with a digest that is no digest.
type cropped struct {
	*people
	digest []byte
}

func (c *cropped) OpenHold(ctx context.Context, req *nodev1.OpenHoldRequest, on func(*nodev1.OpenHoldResponse)) (*typesv1.Hold, error) {
	h, err := c.people.OpenHold(ctx, req, on)
	h.Digest = c.digest
	return h, err
}

func TestADigestOfAnotherLengthIsNoYes(t *testing.T) {
	r := newRig(t)
	a := r.must(t, "delete from sales.orders", &understood{facts: deleting(), plain: true, canonical: "DELETE FROM sales.orders"})
	right := r.people.digest(&nodev1.OpenHoldRequest{Scope: string(postern.ScopeStatement), Statement: "DELETE FROM sales.orders"})
	for _, digest := range [][]byte{nil, right[:31], append(right[:], 0)} {
		r.cfg.Holds = &cropped{r.people, digest}
		err := r.Await(t.Context(), a, engine.Args{}, func(string) {})
		if refused := refusal(t, err); refused.Reason != "the approval is for something else" {
			t.Errorf("%d bytes: %v", len(digest), refused)
		}
	}
}

// slow answers once policy has changed.
type slow struct {
	*people
	change func()
	rules  []string
}

func (s *slow) OpenHold(ctx context.Context, req *nodev1.OpenHoldRequest, on func(*nodev1.OpenHoldResponse)) (*typesv1.Hold, error) {
	s.rules = append(s.rules, req.GetRule())
	s.change()
	s.consumed = 0
	return s.people.OpenHold(ctx, req, on)
}

// TestASessionIsAskedForAnew: a session goes on for as long as policy asks nobody for it, or
// those who have let it in, by a rule that takes what they said.
func TestASessionIsAskedForAnew(t *testing.T) {
	asking := func(rule string) string {
		return strings.ReplaceAll(strict, "  limits:", "  approval: {scope: session, rule: "+rule+"}\n  limits:")
	}
	more := strings.Replace(asking("leads"), "metadata: {name: leads}\nspec: {all: [{group: leads, atLeast: 1}]}", "metadata: {name: leads}\nspec: {all: [{group: leads, atLeast: 2}]}", 1)
	later := strings.Replace(asking("leads"), "{all: [{group: leads, atLeast: 1}]}", "{all: [{group: leads, atLeast: 1}], timeout: 1m}", 1)
	for name, c := range map[string]struct{ before, after, why string }{
		"asked now, and not before": {world, asking("leads"), `nobody was asked by the approval rule "leads"`},
		"others are asked":          {asking("leads"), asking("both"), `nobody was asked by the approval rule "both"`},
		"more are asked":            {asking("leads"), more, "asks for more than was said"},
		"they wait less":            {asking("leads"), later, ""},
		"nobody is asked":           {asking("leads"), world, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.snapshots.load(t, c.before, 2)
			r.cfg.Approval = r.snapshots.Current().DecideConnect(r.query(nil)).Approval
			if r.open = r.cfg.Approval == nil; !r.open {
				if err := r.AwaitSession(t.Context(), func(string) {}); err != nil {
					t.Fatal(err)
				}
			}
			u := &understood{facts: reading("regions", "code"), plain: true}
			var f engine.Flow
			if err := r.Admit(r.must(t, "select code from sales.regions", u), engine.Args{}, &f); err != nil {
				t.Fatal(err)
			}
			if no := r.Reconsider(r.cfg.Snapshots.Current(), r.cfg.Now()); no != nil {
				t.Fatalf("before the change: %v", no)
			}
			r.snapshots.load(t, c.after, 3)
			err := r.Admit(r.must(t, "select code from sales.regions", u), engine.Args{}, new(engine.Flow))
			no := r.Reconsider(r.cfg.Snapshots.Current(), r.cfg.Now())
			if c.why == "" {
				if err != nil || no != nil {
					t.Errorf("%v, %v", err, no)
				}
				return
			}
			if refusal(t, err); no == nil || !strings.Contains(no.Reason, c.why) || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, %v; want %q", err, no, c.why)
			}
		})
	}
}

// TestWhatIsHeldKeepsNoCatalogue: what people are asked for is kept without what it was analysed
// by, which may be all names of a database, and can still be estimated.
func TestWhatIsHeldKeepsNoCatalogue(t *testing.T) {
	r := newRig(t)
	type names struct{ all [1 << 10]string }
	asked := 0
	prepare := func() (*engine.Admission, weak.Pointer[names]) {
		catalogue := &names{}
		a, err := r.Prepare(t.Context(), &engine.Statement{
			Text: "DELETE", Context: "c",
			Analyse: func(context.Context) (engine.Analysis, error) {
				catalogue.all[0] = "orders"
				return &understood{facts: deleting(), plain: true, canonical: "DELETE"}, nil
			},
			Estimate: func(context.Context, string) (int64, error) { asked++; return 5, nil },
		})
		if err != nil || a.Decision.Verdict != postern.VerdictHold {
			t.Fatal(a, err)
		}
		return a, weak.Make(catalogue)
	}
	a, catalogue := prepare()
	wait.For(t, "it is gone", func() bool {
		runtime.GC()
		return catalogue.Value() == nil
	})
	if err := r.Await(t.Context(), a, engine.Args{}, func(string) {}); err != nil || asked != 1 {
		t.Errorf("%v; it was estimated %d times", err, asked)
	}
}

// TestWhatRunsIsJudgedAnew: what was let through and has not ended is held against each
// policy; what has ended is not.
func TestWhatRunsIsJudgedAnew(t *testing.T) {
	narrow := strings.ReplaceAll(world, "columns: [code]", "columns: [name]")
	asked := strings.ReplaceAll(strict, "columns: [code]}", "columns: [code], approval: {scope: statement, rule: leads}}")
	r := newRig(t)
	run := func(text string, u *understood) *engine.Flow {
		t.Helper()
		a, f := r.must(t, text, u), new(engine.Flow)
		err := r.Admit(a, engine.Args{}, f)
		if errors.Is(err, engine.ErrHold) {
			r.people.consumed = 0
			if err := r.Await(t.Context(), a, engine.Args{}, func(string) {}); err != nil {
				t.Fatal(err)
			}
			err = r.Admit(a, engine.Args{}, f)
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	reads := &understood{facts: reading("regions", "code"), plain: true}
	deletes := &understood{facts: deleting(), plain: true, canonical: "DELETE FROM sales.orders WHERE id = 7"}
	revision := int64(1)
	expect := func(policy, why string) {
		t.Helper()
		revision++
		r.snapshots.load(t, policy, revision)
		no := r.Reconsider(r.cfg.Snapshots.Current(), r.cfg.Now())
		if (no == nil) != (why == "") || no != nil && !strings.Contains(no.Reason, why) {
			t.Errorf("%v; want %q", no, why)
		}
	}
	read := run("select code from sales.regions", reads)
	first, second := run("delete from sales.orders where id = 7", deletes), run("delete from sales.orders where id = 7", deletes)
	expect(world, "")
	expect(strings.ReplaceAll(world, "atLeast: 1", "atLeast: 2"), "asks for more than was said")
	_ = second.Done(engine.Outcome{})
	expect(strict, `nobody was asked by the approval rule "both"`)
	_ = first.Done(engine.Outcome{})
	expect(strict, "")
	expect(narrow, "not allowed any more")
	expect(asked, `nobody was asked by the approval rule "leads"`)
	_ = read.Done(engine.Outcome{})
	expect(narrow, "")
	if r.running != nil {
		t.Error("something runs")
	}
	r.snapshots.load(t, asked, revision+1)
	run("select code from sales.regions", reads)
	expect(asked, "")
}

func TestASessionIsLetInByThoseWhoAreAskedNow(t *testing.T) {
	r := newRig(t)
	asks := func(rule string, revision int64) *postern.Approval {
		r.snapshots.load(t, strings.ReplaceAll(strict, "  limits:", "  approval: {scope: session, rule: "+rule+"}\n  limits:"), revision)
		return r.snapshots.Current().DecideConnect(r.query(nil)).Approval
	}
	s := &slow{people: r.people}
	s.change = func() {
		if len(s.rules) == 1 {
			asks("both", 3)
		}
	}
	r.cfg.Approval, r.cfg.Holds = asks("leads", 2), s
	if err := r.AwaitSession(t.Context(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(s.rules, " "); got != "leads both" {
		t.Errorf("asked by %q", got)
	}
}
