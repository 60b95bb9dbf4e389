package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// Offers lists every task that bindings offer to the subject now, each on its best
// terms, sorted by task. Who is locked is offered nothing.
func (s *Snapshot) Offers(sub postern.Subject, req Request) []Offer {
	if l, _ := s.locked(&sub, "", "", "", req.Time); l != nil {
		return nil
	}
	best := map[postern.TaskName]Offer{}
	for _, b := range s.bindings {
		if b.offers(&sub, req) != nil {
			continue
		}
		for _, name := range b.tasks {
			t := s.tasks[name]
			if t == nil {
				continue
			}
			o := b.offer(t)
			if have, ok := best[name]; !ok || better(o, have) {
				best[name] = o
			}
		}
	}
	out := make([]Offer, 0, len(best))
	for _, name := range slices.Sorted(maps.Keys(best)) {
		out = append(out, best[name])
	}
	return out
}

// Offer is the best offer of one task: one that asks nobody first, one that asks later
// next, one that asks for the grant last; then by name of the binding. An error is a
// *postern.Refusal that says what to do.
func (s *Snapshot) Offer(sub postern.Subject, t postern.TaskName, req Request) (Offer, error) {
	if reason, lock, ok := s.LockedFor(&sub, "", "", "", req.Time); ok {
		return Offer{}, &postern.Refusal{Code: postern.CodeKilled, Rule: LockPrefix + lock, Reason: reason, Hint: "ask the operators of this gateway"}
	}
	offers := s.Offers(sub, req)
	if i := slices.IndexFunc(offers, func(o Offer) bool { return o.Task == t }); i >= 0 {
		return offers[i], nil
	}
	no := &postern.Refusal{Code: postern.CodeNoGrant, Rule: string(t), Reason: fmt.Sprintf("no binding offers task %q to %s", t, sub.Name)}
	for _, b := range s.bindings {
		if !slices.Contains(b.tasks, t) || !matches(b.subjects, &sub) {
			continue
		}
		why := b.offers(&sub, req)
		if why == nil {
			why = fmt.Errorf("the task has errors and is not served")
		}
		no.Rule, no.Reason, no.Detail = b.name, fmt.Sprintf("binding %q does not offer task %q now", b.name, t), why.Error()
		break
	}
	if len(offers) == 0 {
		no.Hint = "no task is offered to you; ask the operators of this gateway"
		return Offer{}, no
	}
	names := make([]string, len(offers))
	for i, o := range offers {
		names[i] = string(o.Task)
	}
	no.Hint = "your tasks: " + some(names)
	return Offer{}, no
}

// maxAlternatives bounds what a node is told of.
const maxAlternatives = 16

// Alternatives are the tasks beside t that the subject is offered on a resource now: those
// that ask nobody first, none that is for one job alone, and no more than a node is told of.
func (s *Snapshot) Alternatives(sub postern.Subject, t postern.TaskName, r postern.ResourceName, req Request) (out []postern.Alternative) {
	for _, o := range s.Offers(sub, req) {
		if o.Task == t || o.Bound != nil || !slices.Contains(o.Resources, r) {
			continue
		}
		out = append(out, postern.Alternative{Task: o.Task, Asks: o.Approval != nil && o.Approval.Scope == postern.ScopeGrant})
	}
	slices.SortStableFunc(out, func(a, b postern.Alternative) int {
		switch {
		case a.Asks == b.Asks:
			return 0
		case a.Asks:
			return 1
		}
		return -1
	})
	return out[:min(len(out), maxAlternatives)]
}

// A Chance is an offer, and the condition on which its binding makes it; empty for none.
type Chance struct {
	Offer
	When string
}

// Chances lists whatever Offers may be, from anywhere and for whatever reason that is
// given: of each task the best offer that has no condition, and better ones that have
// one; by task. Who is locked has none.
func (s *Snapshot) Chances(sub postern.Subject, now time.Time) []Chance {
	if l, _ := s.locked(&sub, "", "", "", now); l != nil {
		return nil
	}
	sure := map[postern.TaskName]Offer{}
	var all []Chance
	for _, b := range s.bindings {
		if !matches(b.subjects, &sub) || b.over(now) {
			continue
		}
		for _, name := range b.tasks {
			t := s.tasks[name]
			if t == nil {
				continue
			}
			o := b.offer(t)
			all = append(all, Chance{Offer: o, When: conditionText(b.when)})
			if have, ok := sure[name]; b.when == nil && (!ok || better(o, have)) {
				sure[name] = o
			}
		}
	}
	all = slices.DeleteFunc(all, func(c Chance) bool {
		best, ok := sure[c.Task]
		return ok && c.Binding != best.Binding && (c.When == "" || !better(c.Offer, best))
	})
	slices.SortStableFunc(all, func(a, b Chance) int { return strings.Compare(string(a.Task), string(b.Task)) })
	return all
}

// offers says why the binding offers nothing to the subject now; nil where it does.
func (b *binding) offers(sub *postern.Subject, req Request) error {
	if !matches(b.subjects, sub) {
		return fmt.Errorf("it is not for this subject")
	}
	if b.over(req.Time) {
		return fmt.Errorf("it ended at %s", b.expires.UTC().Format("2006-01-02 15:04 MST"))
	}
	if b.when == nil {
		return nil
	}
	ok, err := b.when.holds(&variables{subject: sub, request: req})
	switch {
	case err != nil:
		return fmt.Errorf("only when %s; it could not be evaluated: %w", b.when.source, err)
	case !ok:
		return fmt.Errorf("only when %s", b.when.source)
	}
	return nil
}

// over reports whether the binding has ended; where no time is given it may have.
func (b *binding) over(now time.Time) bool {
	return !b.expires.IsZero() && (now.IsZero() || !now.Before(b.expires))
}

func (b *binding) offer(t *task) Offer {
	return Offer{
		Task: t.name, Binding: b.name, Purpose: t.terms.Purpose,
		Resources: slices.Sorted(maps.Keys(t.reach)),
		Approval:  b.approval, Duration: t.terms.Duration, Expires: b.expires, Bound: b.bound,
	}
}

// better orders offers of one task; bindings come by name, so that equals stay.
func better(a, b Offer) bool { return asks(a.Approval) < asks(b.Approval) }

// asks ranks how soon people are asked.
func asks(a *postern.Approval) int {
	switch {
	case a == nil:
		return 0
	case a.Scope == postern.ScopeStatement && len(a.Verbs) > 0:
		return 1
	case a.Scope == postern.ScopeStatement:
		return 2
	case a.Scope == postern.ScopeSession:
		return 3
	}
	return 4
}

// BoundClaims are the claims by which bindings of a task, which may pick the subject,
// tell its jobs from each other; sorted.
func (s *Snapshot) BoundClaims(sub postern.Subject, t postern.TaskName) []string {
	var out []string
	for _, b := range s.bindings {
		if c := b.bound.GetClaim(); c != "" && slices.Contains(b.tasks, t) && matches(b.subjects, &sub) {
			out = append(out, c)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
