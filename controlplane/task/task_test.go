package task

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	active  = typesv1.GrantState_GRANT_STATE_ACTIVE
	over    = typesv1.GrantState_GRANT_STATE_OVER
	refused = typesv1.GrantState_GRANT_STATE_REFUSED
)

func TestOpenFindsOrMakes(t *testing.T) {
	w := newWorld(t)
	g := w.mustOpen("alice", "sales-report")
	if g.GetState() != active || g.GetSubject().GetName() != "alice" || g.GetBinding() != "analysts" || g.GetMinVersion().GetRevision() != w.current().Version().Revision {
		t.Errorf("grant %v", g)
	}
	if d := g.GetEndTime().AsTime().Sub(g.GetStartTime().AsTime()); d != time.Hour {
		t.Errorf("lasts %s", d)
	}
	if again := w.mustOpen("alice", "sales-report"); again.GetId() != g.GetId() {
		t.Error("a second session got a second grant")
	}
	// The signed grant tells of the subject as this token does.
	sub := w.tokens["alice"]
	sub.MFA, sub.Claims = true, map[string]any{"sub": "alice", "auth_time": 2.0}
	w.tokens["alice/mfa"] = sub
	if g := w.mustOpen("alice/mfa", "sales-report"); !g.GetSubject().GetMfa() {
		t.Error("what the token says was lost")
	}
	if g := w.mustOpen("alice", "sales-report"); g.GetSubject().GetMfa() {
		t.Error("one token's second factor serves another")
	}
}

func TestOpenRefuses(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct{ token, task, kind, text string }{
		"unknown token":  {"eve", "sales-report", "bad-token", "not known"},
		"no token":       {"", "sales-report", "bad-token", "postern token"},
		"other task":     {"alice", "nightly-load", "no-grant", "no binding offers"},
		"no such task":   {"alice", "nothing", "no-grant", ""},
		"no task's name": {"alice", "Sales Report", "no-grant", "TASK.RESOURCE"},
		"must ask":       {"alice", "schema-change", "no-grant", `postern request schema-change --reason "..."`},
		"grant token":    {"pst_" + strings.Repeat("a", 49), "sales-report", "bad-token", "not known"},
	} {
		_, err := w.open(c.token, c.task)
		no(t, err, c.kind, c.text)
		if err != nil && c.token != "" && strings.Contains(all(err), "pst_") {
			t.Errorf("%s: repeats the token", name)
		}
	}
	_, err := w.Open(t.Context(), &nodev1.OpenGrantRequest{Token: "alice", Task: "sales-report", Resource: "shop"}, "n1")
	no(t, err, "no-grant", "shop")
	_, err = w.Open(t.Context(), &nodev1.OpenGrantRequest{ClientCertificate: []byte{1}, Task: "sales-report"}, "n1")
	no(t, err, "bad-token", "cannot be read")
	_, err = w.Open(t.Context(), &nodev1.OpenGrantRequest{ClientCertificate: []byte{1}, Token: "alice", Task: "sales-report"}, "n1")
	no(t, err, "bad-token", "at once")
	w.apply(`{kind: Lock, metadata: {name: node-out}, spec: {node: n1, reason: stolen}}`)
	_, err = w.open("alice", "sales-report")
	no(t, err, "killed", "stolen")
	w.mu.Lock()
	w.snapshot = nil
	w.mu.Unlock()
	_, err = w.open("alice", "sales-report")
	no(t, err, "unavailable", "not read its policy")
}

func TestManyOpenAtOnce(t *testing.T) {
	w := newWorld(t)
	var ids [8]atomic.Pointer[string]
	g := run.New(t.Context())
	for i := range ids {
		g.Go("open", func(context.Context) error {
			grant, err := w.open("alice", "sales-report")
			if err != nil {
				return err
			}
			id := grant.GetId()
			ids[i].Store(&id)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i := range ids {
		if *ids[i].Load() != *ids[0].Load() {
			t.Error("sessions that came at once have two grants")
		}
	}
	if n := len(w.keys(Kind)); n != 1 {
		t.Errorf("%d grants", n)
	}
}

func TestGrantToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		r, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "sales-report", Ttl: durationpb.New(10 * time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		token := r.GetToken()
		if len(token) > 120 || !strings.HasPrefix(token, "pst_") || len(r.GetGrant().GetTokenHash()) != 0 || len(r.GetResources()) != 1 {
			t.Errorf("answer %v", r)
		}
		for _, kind := range []string{Kind, "taken", "audit", "audithead"} {
			for _, e := range must(w.store.List(t.Context(), kind, "", 0)) {
				if strings.Contains(string(e.Value), token[20:46]) {
					t.Errorf("the token's secret stands in %s", e.Key)
				}
			}
		}
		g := w.mustOpen(token, "sales-report")
		if g.GetId() != r.GetGrant().GetId() || len(g.GetTokenHash()) == 0 {
			t.Errorf("opened %v", g)
		}
		_, err = w.open(token, "schema-change")
		no(t, err, "no-grant", `for task "sales-report"`)
		body := token[:45] + string(otherLetter(token[45]))
		_, err = w.open(body+checksum(body), "sales-report")
		no(t, err, "bad-token", "not known")
		time.Sleep(10 * time.Minute)
		_, err = w.open(token, "sales-report")
		no(t, err, "bad-token", "its time is over")
		synctest.Wait()
		if s := w.stored(g.GetId()); s.GetState() != over {
			t.Errorf("state %s", s.GetState())
		}
		_, err = w.open(token, "sales-report")
		no(t, err, "bad-token", "its time is over")
	})
}

func otherLetter(c byte) byte {
	if c == 'a' {
		return 'b'
	}
	return 'a'
}

func must[T, U any](v T, _ U, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestWorkloads(t *testing.T) {
	w := newWorld(t)
	r, err := w.Create(t.Context(), Caller{}, &apiv1.CreateGrantRequest{Task: "nightly-load", WorkloadToken: "nightly"})
	if err != nil {
		t.Fatal(err)
	}
	if s := r.GetGrant().GetSubject(); s.GetWorkload() != "nightly" {
		t.Errorf("subject %v", s)
	}
	if _, err := w.open(r.GetToken(), "nightly-load"); err != nil {
		t.Error(err)
	}
	_, err = w.Create(t.Context(), Caller{}, &apiv1.CreateGrantRequest{Task: "sales-report", WorkloadToken: "alice"})
	no(t, err, "bad-token", "")
	_, err = w.Create(t.Context(), Caller{}, &apiv1.CreateGrantRequest{Task: "sales-report"})
	no(t, err, "bad-token", "token is needed")
	for n := 0; ; n++ {
		_, err := w.Create(t.Context(), Caller{}, &apiv1.CreateGrantRequest{Task: "nightly-load", WorkloadToken: "stranger"})
		if fault.Is(err, "limit") {
			break
		}
		if n > 2*workloadBurst {
			t.Fatal("strangers are not slowed down")
		}
	}
	// The owner sees and may end what the workload holds; a person of its name may not.
	owner := Caller{}
	owner.Subject.Name = "owen"
	if _, err := w.Get(t.Context(), owner, r.GetGrant().GetId()); err != nil {
		t.Errorf("the owner: %v", err)
	}
	twin := Caller{}
	twin.Subject.Name = "nightly"
	if _, err := w.Get(t.Context(), twin, r.GetGrant().GetId()); fault.CodeOf(err) != codes.NotFound {
		t.Errorf("a person of the workload's name: %v", err)
	}
}

func TestRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start()
		ask := func(reason string) (*apiv1.RequestGrantResponse, error) {
			return w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: reason, Ttl: durationpb.New(20 * time.Minute)})
		}
		_, err := ask("")
		if fault.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("without a reason: %v", err)
		}
		_, err = w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "schema-change"})
		if fault.CodeOf(err) != codes.FailedPrecondition || !strings.Contains(all(err), "postern request schema-change") {
			t.Errorf("token before the yes: %v", err)
		}
		r, err := ask("new column")
		if err != nil {
			t.Fatal(err)
		}
		if r.GetGrant().GetState() != typesv1.GrantState_GRANT_STATE_ASKED || r.GetHold().GetDuration() != "20m0s" {
			t.Errorf("asked %v", r)
		}
		if again, err := ask("new column"); err != nil || again.GetHold().GetId() != r.GetHold().GetId() {
			t.Errorf("asked twice: %v, %v", again, err)
		}
		_, err = w.open("alice", "schema-change")
		no(t, err, "no-grant", "still waits")
		time.Sleep(10 * time.Minute)
		if _, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), true, "fine", nil); err != nil {
			t.Fatal(err)
		}
		g := w.mustOpen("alice", "schema-change")
		if g.GetId() != r.GetGrant().GetId() || time.Until(g.GetEndTime().AsTime()) != 20*time.Minute {
			t.Errorf("after the yes: %v", g)
		}
		if a := g.GetApproval(); a != nil {
			t.Errorf("asks again: %v", a)
		}
		c, err := w.Create(t.Context(), w.caller("alice"), &apiv1.CreateGrantRequest{Task: "schema-change"})
		if err != nil || c.GetGrant().GetId() != g.GetId() {
			t.Fatalf("token after the yes: %v, %v", c, err)
		}
		w.mustOpen(c.GetToken(), "schema-change")
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if s := w.stored(g.GetId()); s.GetState() != over {
			t.Errorf("at its end: %s", s.GetState())
		}
		_, err = w.open("alice", "schema-change")
		no(t, err, "no-grant", "postern request")
	})
}

// What an agent got for a grant token ends with that token's grant, further down too.
func TestExchangedEndsWithWhatWasGiven(t *testing.T) {
	for name, run := range map[string]bool{"where grants are looked after": true, "at the next login": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.apply(`{kind: Workload, metadata: {name: nightly}, spec: {owner: owen, trust: {issuer: https://ci.example, audience: x, when: claims.a == "b"}, expires: 2099-01-01T00:00:00Z, actsFor: [{group: analysts}]}}
---
{kind: Workload, metadata: {name: helper}, spec: {owner: owen, trust: {issuer: https://ci.example, audience: x, when: claims.a == "c"}, expires: 2099-01-01T00:00:00Z, actsFor: [{group: analysts}]}}`)
				w.tokens["helper"] = postern.Subject{Name: "helper", Workload: "helper"}
				if run {
					w.start()
				}
				token := func(req *apiv1.CreateGrantRequest) (*typesv1.Grant, string) {
					req.Task = "sales-report"
					r, err := w.Create(t.Context(), w.caller("alice"), req)
					if err != nil {
						t.Fatal(err)
					}
					return r.GetGrant(), r.GetToken()
				}
				other, _ := token(&apiv1.CreateGrantRequest{})
				own, first := token(&apiv1.CreateGrantRequest{})
				_, second := token(&apiv1.CreateGrantRequest{WorkloadToken: "nightly", SubjectToken: first})
				_, third := token(&apiv1.CreateGrantRequest{WorkloadToken: "helper", SubjectToken: second})
				aside, _ := token(&apiv1.CreateGrantRequest{WorkloadToken: "nightly", SubjectToken: "alice"})
				w.mustOpen(third, "sales-report")
				if _, _, err := w.Revoke(t.Context(), w.caller("alice"), own.GetId(), "enough"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for _, dead := range []string{first, second} {
					_, err := w.open(dead, "sales-report")
					no(t, err, "bad-token", "enough")
				}
				if run { // else the second agent's is found over once the first's was
					_, err := w.open(third, "sales-report")
					no(t, err, "bad-token", "in exchange for it is over: revoked by alice: enough")
				}
				for _, g := range []*typesv1.Grant{other, aside} {
					if s := w.stored(g.GetId()); s.GetState() == over {
						t.Errorf("%s is over: %s", g.GetId(), s.GetEndReason())
					}
				}
			})
		})
	}
}

// strict has the binding ask by another rule than that of company.
const strict = `
kind: ApprovalRule
metadata: {name: both}
spec: {all: [{group: leads, atLeast: 1}, {group: security, atLeast: 1}], distinct: true, timeout: 15m, require: [reason]}
---
kind: Binding
metadata: {name: analysts-schema}
spec: {subjects: [{group: analysts}], tasks: [schema-change], approval: {scope: grant, rule: both}}
`

func TestRequestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		do     func(t *testing.T, w *world, r *apiv1.RequestGrantResponse)
		state  typesv1.GrantState
		reason string
	}{
		"refused": {func(t *testing.T, w *world, r *apiv1.RequestGrantResponse) {
			if _, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), false, "not now", nil); err != nil {
				t.Fatal(err)
			}
		}, refused, "refused by bob: not now"},
		"nobody answers": {func(*testing.T, *world, *apiv1.RequestGrantResponse) { time.Sleep(15 * time.Minute) }, refused, "nobody answered"},
		"withdrawn": {func(t *testing.T, w *world, r *apiv1.RequestGrantResponse) {
			if _, err := w.holds.Withdraw(t.Context(), approve.Caller{Subject: w.tokens["alice"]}, r.GetHold().GetId()); err != nil {
				t.Fatal(err)
			}
		}, over, "withdrawn"},
		"revoked": {func(t *testing.T, w *world, r *apiv1.RequestGrantResponse) {
			if _, _, err := w.Revoke(t.Context(), w.caller("alice"), r.GetGrant().GetId(), "changed my mind"); err != nil {
				t.Fatal(err)
			}
		}, over, "changed my mind"},
		"binding gone": {func(_ *testing.T, w *world, _ *apiv1.RequestGrantResponse) { w.remove("binding", "analysts-schema") }, over, "does not offer"},
		"asks others now": {func(_ *testing.T, w *world, _ *apiv1.RequestGrantResponse) {
			w.apply(strict)
		}, over, `asks by approval rule "both" now`},
		"yes of those asked before": {func(t *testing.T, w *world, r *apiv1.RequestGrantResponse) {
			synctest.Wait()
			w.mu.Lock()
			clear(w.changed) // this replica's Run has not heard of it
			w.mu.Unlock()
			w.apply(strict)
			_, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), true, "", nil)
			if fault.CodeOf(err) != codes.FailedPrecondition {
				t.Errorf("a yes by a rule that is not the binding's any more: %v", err)
			}
			time.Sleep(15 * time.Minute)
		}, refused, "nobody answered"},
		"yes without ground": {func(t *testing.T, w *world, r *apiv1.RequestGrantResponse) {
			synctest.Wait()
			w.mu.Lock()
			clear(w.changed) // this replica's Run has not heard of it
			w.mu.Unlock()
			w.remove("binding", "analysts-schema")
			_, err := w.holds.Review(t.Context(), w.reviewer(), r.GetHold().GetId(), true, "", nil)
			if fault.CodeOf(err) != codes.FailedPrecondition {
				t.Errorf("a yes without ground: %v", err)
			}
			time.Sleep(15 * time.Minute)
		}, refused, "nobody answered"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.start()
				r, err := w.Request(t.Context(), w.caller("alice"), &apiv1.RequestGrantRequest{Task: "schema-change", Reason: "new column"})
				if err != nil {
					t.Fatal(err)
				}
				c.do(t, w, r)
				synctest.Wait()
				g := w.stored(r.GetGrant().GetId())
				if g.GetState() != c.state || !strings.Contains(g.GetEndReason(), c.reason) {
					t.Errorf("grant is %s: %q", g.GetState(), g.GetEndReason())
				}
				if _, err := w.open("alice", "schema-change"); err == nil {
					t.Error("and still opens")
				}
				h, err := w.holds.Get(t.Context(), w.reviewer(), r.GetHold().GetId())
				if err != nil || approve.Waiting(h) {
					t.Errorf("the hold still waits: %v, %v", h, err)
				}
			})
		})
	}
}

func FuzzParseToken(f *testing.F) {
	token, err := newToken(newGrantID())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("pst_" + strings.Repeat("a", 49))
	f.Add("pst_join_0.0.0")
	f.Fuzz(func(t *testing.T, token string) {
		id, err := parseToken(token)
		if err != nil {
			return
		}
		if !strings.HasPrefix(token, "pst_"+id[2:]) || len(token) != 53 {
			t.Errorf("%q names %q", token, id)
		}
		if again, err := newToken(id); err != nil || again[:20] != token[:20] {
			t.Errorf("%q: %v", id, err)
		}
	})
}

// A grant that came back with a backup is of an epoch that no node has any more.
func TestOpenAfterARestore(t *testing.T) {
	w := newWorld(t)
	before := w.mustOpen("alice", "sales-report")
	if _, err := w.store.NewEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.publish()
	after := w.mustOpen("alice", "sales-report")
	now := w.current().Version()
	if v := after.GetMinVersion(); after.GetId() != before.GetId() || v.GetEpoch() != now.Epoch || v.GetRevision() != now.Revision || v.GetEpoch() == before.GetMinVersion().GetEpoch() {
		t.Errorf("grant %v, policy %s", after, now)
	}
}
