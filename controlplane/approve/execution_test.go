package approve

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// execution is what a node is about to run.
type execution struct{ grant, resource, statement, parameter string }

func (e execution) parameters() []*typesv1.Parameter {
	switch e.parameter {
	case "none":
		return nil
	case "null":
		return []*typesv1.Parameter{{}}
	}
	return []*typesv1.Parameter{{Value: &e.parameter}}
}

// digest is as a node makes it, of what it runs itself.
func (e execution) digest(subject string) []byte {
	var params []postern.Param
	for _, p := range e.parameters() {
		params = append(params, postern.Param{Value: p.GetValue(), Null: p.Value == nil})
	}
	d := postern.HoldDigest(subject, postern.GrantID(e.grant), "purge-order", postern.ResourceName(e.resource), postern.ScopeStatement, e.statement, params)
	return d[:]
}

// question is a hold as this test knows it, from what it did and saw.
type question struct {
	execution
	rule string
	end  time.Time
	yes  []Caller
	over bool // refused, withdrawn or used
}

// granted judges the answers without the code under test: by trying everybody.
func (q *question) granted() bool {
	in := func(c Caller, group string) bool { return slices.Contains(c.Subject.Groups, group) }
	for i, a := range q.yes {
		if q.rule == "leads" && in(a, "leads") {
			return true
		}
		for j, b := range q.yes {
			for k, c := range q.yes {
				if q.rule == "two" && i != j && i != k && j != k && in(a, "leads") && in(b, "leads") && in(c, "security") {
					return true
				}
			}
		}
	}
	return false
}

// TestNothingRunsWithoutAYes: whatever happens in whatever order at two replicas, a node
// is let execute just where a model of this test's own says so: for a hold that was opened
// for this very grant, resource, statement and parameters, to which enough other people
// said yes, that is not over, refused, withdrawn or used, under a grant that lives and of a
// subject that is not locked.
func TestNothingRunsWithoutAYes(t *testing.T) {
	const more = "---\nkind: Resource\nmetadata: {name: ledger}\nspec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: 5432, database: ledger, tls: {mode: disable}}, credential: {sealed: rw}, catalog: {sealed: rw}}\n"
	open := strings.Replace(world, "names: [warehouse]", "names: [warehouse, ledger]", 1) + more
	owner := map[string]string{"g-1": "alice", "g-2": "alice", "g-3": "mallory"}
	people := []Caller{bob, person("carol", "leads"), person("dave", "security"), person("erin", "leads", "security"), person("alice", "leads", "security"), person("mallory", "leads"), person("eve")}
	ran, refused := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		f := newFixture(t)
		f.policy(open)
		now := time.Now()
		f.cfg.Now = func() time.Time { return now }
		other := f.replica()
		other.cfg.Now = f.cfg.Now
		at := func() *Service { return rapid.SampledFrom([]*Service{f.Service, other}).Draw(rt, "replica") }

		ends := map[string]time.Time{} // of grants that live
		locked := ""
		grant := func(id string) {
			ends[id] = now.Add(40 * time.Minute)
			f.save(&typesv1.Grant{
				Id: id, Subject: &typesv1.Subject{Name: owner[id], Email: owner[id] + "@example.com"}, Task: "purge-order", Reason: "OPS-7",
				State: typesv1.GrantState_GRANT_STATE_ACTIVE, EndTime: timestamppb.New(ends[id]),
			})
		}
		for id := range owner {
			grant(id)
		}
		lives := func(id string) bool { return now.Before(ends[id]) && locked != owner[id] }
		asked := map[string]*question{}
		var ids []string
		draw := func() execution {
			return execution{
				rapid.SampledFrom([]string{"g-1", "g-2", "g-3"}).Draw(rt, "grant"), rapid.SampledFrom([]string{"warehouse", "ledger"}).Draw(rt, "resource"),
				rapid.SampledFrom([]string{"DELETE 1", "DELETE 1 ", "DELETE 2"}).Draw(rt, "statement"), rapid.SampledFrom([]string{"none", "null", "", "7"}).Draw(rt, "parameter"),
			}
		}
		hold := func() string {
			if len(ids) == 0 {
				rt.Skip("no holds yet")
			}
			return rapid.SampledFrom(ids).Draw(rt, "hold")
		}
		answer := func(rt *rapid.T, id string, who Caller, yes bool) {
			q := asked[id]
			h, err := at().Review(t.Context(), who, id, yes, "because", nil)
			if err != nil {
				return
			}
			switch {
			case who.Subject.Name == owner[q.grant]:
				rt.Fatal("somebody answered their own hold")
			case q.over || !now.Before(q.end) || !lives(q.grant):
				rt.Fatalf("answered though %+v", q)
			case yes:
				q.yes = append(q.yes, who)
			default:
				q.over = true
			}
			if is := h.GetState() == typesv1.HoldState_HOLD_STATE_APPROVED; is != (yes && q.granted()) {
				rt.Fatalf("it is %s after %v", stateWord(h), q.yes)
			}
		}
		execute := func(rt *rapid.T, id string, e execution) {
			q := asked[id]
			may := !q.over && q.execution == e && q.granted() && now.Before(q.end) && lives(e.grant)
			_, err := at().Consume(t.Context(), "n1", id, e.digest(owner[e.grant]), "s-9")
			if (err == nil) != may {
				rt.Fatalf("%+v of %+v by %s: %v", e, q, id, err)
			}
			if err != nil {
				refused++
				return
			}
			q.over = true
			ran++
		}
		rt.Repeat(map[string]func(*rapid.T){
			"ask": func(rt *rapid.T) {
				e := draw()
				rule := rapid.SampledFrom([]string{"leads", "two"}).Draw(rt, "rule")
				h, err := at().OpenHold(t.Context(), "n1", &nodev1.OpenHoldRequest{
					Scope: "statement", Grant: e.grant, Resource: e.resource, Session: "s-1", Statement: e.statement, Parameters: e.parameters(), Rule: rule,
				})
				q := asked[h.GetId()]
				switch {
				case err != nil && lives(e.grant) && len(ids) < maxWaiting:
					rt.Fatal(err)
				case err != nil:
				case !lives(e.grant):
					rt.Fatalf("asked under a grant that is over: %+v", e)
				case q == nil:
					ids = append(ids, h.GetId())
					asked[h.GetId()] = &question{execution: e, rule: rule, end: h.GetExpireTime().AsTime()}
					if end := h.GetExpireTime().AsTime(); end.After(ends[e.grant]) {
						rt.Fatalf("it goes on to %s, and its grant to %s", end, ends[e.grant])
					}
				case q.execution != e || q.rule != rule || q.over:
					rt.Fatalf("%+v was answered with the hold of %+v", e, q)
				}
			},
			"answer": func(rt *rapid.T) {
				answer(rt, hold(), rapid.SampledFrom(people).Draw(rt, "who"), rapid.IntRange(0, 5).Draw(rt, "word") > 0)
			},
			"execute what was asked": func(rt *rapid.T) { id := hold(); execute(rt, id, asked[id].execution) },
			"execute what was not":   func(rt *rapid.T) { execute(rt, hold(), draw()) },
			"answer and execute": func(rt *rapid.T) {
				id := hold()
				for _, who := range people[:4] {
					answer(rt, id, who, true)
				}
				execute(rt, id, asked[id].execution)
			},
			"withdraw": func(rt *rapid.T) {
				id := hold()
				if _, err := at().Withdraw(t.Context(), rapid.SampledFrom(people).Draw(rt, "who"), id); err == nil {
					asked[id].over = true
				}
			},
			"end or renew a grant": func(rt *rapid.T) {
				id := rapid.SampledFrom([]string{"g-1", "g-2", "g-3"}).Draw(rt, "grant")
				if grant(id); rapid.Bool().Draw(rt, "end") {
					delete(ends, id)
					f.save(&typesv1.Grant{Id: id, Subject: &typesv1.Subject{Name: owner[id]}, Task: "purge-order", State: typesv1.GrantState_GRANT_STATE_OVER, EndTime: timestamppb.New(now.Add(time.Hour))})
				}
			},
			"lock": func(rt *rapid.T) {
				if locked = rapid.SampledFrom([]string{"", "", "alice", "mallory"}).Draw(rt, "who"); locked == "" {
					f.policy(open)
				} else {
					f.policy(open + fmt.Sprintf("---\nkind: Lock\nmetadata: {name: out}\nspec: {subject: %s, reason: away}\n", locked))
				}
			},
			"time": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 10).Draw(rt, "minutes")) * time.Minute)
			},
		})
	})
	if t.Logf("%d executions, %d refused", ran, refused); ran < 20 || refused < 20 {
		t.Error("this shows nothing")
	}
}
