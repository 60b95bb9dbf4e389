package gate

import (
	"fmt"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Reconsider says why the session may not go on under a policy, or nil: it may not begin
// so, the people whom it asks have not let it in, or something that runs in it would not be
// let through any more. What runs is judged once by each policy, and by none older than the
// one it was last judged by; a session that waits for people is not judged for that. All of
// it is as of one moment.
func (g *Gate) Reconsider(snap *policy.Snapshot, now time.Time) *postern.Refusal {
	if r := g.barred(snap, now); r != nil {
		return r
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for x := g.running; x != nil; x = x.before {
		if x.judged.SameRules(snap) || x.judged.Version().Covers(snap.Version()) {
			continue
		}
		if r := g.ended(snap, now, x); r != nil {
			return r
		}
		x.judged = snap
	}
	return nil
}

// barred refuses where a policy does not let the session itself go on. Locks and rules do
// not change within a snapshot; its Keeper looks at what does, such as conditions on time.
func (g *Gate) barred(s *policy.Snapshot, now time.Time) *postern.Refusal {
	d := s.DecideConnect(g.standing(nil, now))
	if d.Verdict == postern.VerdictDeny {
		return Refuse(d)
	}
	g.mu.Lock()
	open, yes := g.open, g.letIn
	g.mu.Unlock()
	if d.Approval != nil && open {
		if why := unasked(s, d.Approval, yes); why != "" {
			return &postern.Refusal{
				Reason: "this session needs a yes now that it does not have: " + why, Rule: d.Rule,
				Hint: "connect again: people will be asked",
			}
		}
	}
	g.cleared.Store(s)
	return nil
}

// ended refuses where what runs would not be let through any more.
func (g *Gate) ended(s *policy.Snapshot, now time.Time, x *execution) *postern.Refusal {
	q := g.standing(x.ad.facts, now)
	if x.ad.estimate != nil {
		q.EstimatedRows = &x.ad.estimate.rows
	}
	d := s.Decide(q)
	switch d.Verdict {
	case postern.VerdictAllow:
		return nil
	case postern.VerdictHold:
		why := unasked(s, d.Approval, x.yes)
		if why == "" {
			return nil
		}
		return &postern.Refusal{Reason: "what runs here needs a yes now that it does not have: " + why, Rule: d.Rule, Hint: "connect again: people will be asked"}
	case postern.VerdictDeny:
	}
	r := Refuse(d)
	r.Reason = "what runs here is not allowed any more: " + r.Reason
	return r
}

// standing is a query about what was let in already: what it has used was counted then.
func (g *Gate) standing(facts policy.Facts, now time.Time) policy.Query {
	q := g.query(facts)
	q.Request.Time = now
	q.Usage = policy.Usage{Age: now.Sub(g.cfg.Grant.Start)}
	return q
}

// unasked says why a yes, nil where nobody was asked, is not that of the people whom policy
// asks now; nothing where it is.
func unasked(s *policy.Snapshot, now *postern.Approval, yes *typesv1.Hold) string {
	rule, ok := s.Rule(now.Rule)
	switch {
	case !ok:
		return fmt.Sprintf("the approval rule %q cannot be used here", now.Rule)
	case yes == nil || yes.GetRule() != now.Rule:
		return fmt.Sprintf("nobody was asked by the approval rule %q", now.Rule)
	}
	return policy.Unmet(rule, yes)
}

// track notes that x runs.
func (g *Gate) track(x *execution) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x.judged, x.before, x.after = x.ad.snapshot, g.running, nil
	if x.before != nil {
		x.before.after = x
	}
	g.running = x
}

// untrack notes that x has ended.
func (g *Gate) untrack(x *execution) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x.after != nil {
		x.after.before = x.before
	} else {
		g.running = x.before
	}
	if x.before != nil {
		x.before.after = x.after
	}
	x.before, x.after, x.judged, x.yes = nil, nil, nil, nil
}
