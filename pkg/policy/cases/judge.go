package cases

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/ssh"
	"github.com/posterngate/postern/pkg/ssh/shell"
)

func (c *Case) request(now time.Time) policy.Request {
	return policy.Request{Time: now, Address: c.Address, Client: c.Client, Region: c.Region, Reason: c.Reason, Ticket: policy.Ticket(c.Reason)}
}

// can judges what a target asks for: under the task that is named, or under whichever
// allows most.
func (c *Case) can(s *policy.Snapshot, t *policy.Target, now time.Time) Outcome {
	judge := func(o policy.Offer) Outcome { return c.decide(s, o, t.Resource, t.Facts(), now) }
	if c.Task != "" {
		o, err := s.Offer(c.Subject.Subject(), postern.TaskName(c.Task), c.request(now))
		if err != nil {
			return refused(postern.TaskName(c.Task), err)
		}
		return judge(o)
	}
	best := Outcome{Verdict: "deny", Reason: fmt.Sprintf("no binding offers %s a task for it", c.Subject.Name)}
	for _, o := range s.Offers(c.Subject.Subject(), c.request(now)) {
		if !slices.Contains(o.Resources, t.Resource) {
			continue // why it would be refused says nothing
		}
		if got := judge(o); best.Task == "" || rank(got.Verdict) > rank(best.Verdict) {
			best = got
		}
	}
	return best
}

func rank(verdict string) int {
	return map[string]int{"hold": 1, "allow": 2}[verdict]
}

func refused(t postern.TaskName, err error) Outcome {
	r := postern.AsRefusal(err)
	return Outcome{Verdict: "deny", Rule: r.Rule, Reason: r.Reason, Task: t}
}

// grant is what the offer would become, were it taken now.
func (c *Case) grant(o policy.Offer, now time.Time) *postern.Grant {
	g := &postern.Grant{ID: "case", Subject: c.Subject.Subject(), Task: o.Task, Binding: o.Binding, Start: now, End: now.Add(o.Duration)}
	if o.Approval != nil && o.Approval.Scope != postern.ScopeGrant {
		g.Approval = o.Approval
	}
	return g
}

// decide asks as a node would: to connect, then for the statement.
func (c *Case) decide(s *policy.Snapshot, o policy.Offer, r postern.ResourceName, facts policy.Facts, now time.Time) Outcome {
	q := policy.Query{Grant: c.grant(o, now), Resource: r, Request: c.request(now)}
	connect := s.DecideConnect(q)
	if connect.Verdict == postern.VerdictDeny {
		return outcome(o, connect)
	}
	q.Facts = facts
	d := s.Decide(q)
	if d.Verdict == postern.VerdictAllow && connect.Verdict == postern.VerdictHold {
		d.Verdict, d.Rule, d.Approval, d.Reason = connect.Verdict, connect.Rule, connect.Approval, connect.Reason
	}
	return first(o, outcome(o, d))
}

// first puts the question whether the grant is given before all others.
func first(o policy.Offer, out Outcome) Outcome {
	if out.Verdict != "deny" && o.Approval != nil && o.Approval.Scope == postern.ScopeGrant {
		out.Verdict, out.Rule, out.Approval = "hold", o.Binding, o.Approval.Rule
		out.Reason = fmt.Sprintf("binding %q asks people to approve the grant", o.Binding)
	}
	return out
}

func outcome(o policy.Offer, d postern.Decision) Outcome {
	out := Outcome{Verdict: d.Verdict.String(), Rule: d.Rule, Reason: d.Reason, Task: o.Task, Masked: map[string]string{}}
	if d.Approval != nil {
		out.Approval = d.Approval.Rule
	}
	for _, ob := range d.Obligations {
		if ob.Table == nil {
			continue
		}
		for _, column := range ob.Table.Columns {
			if column.Mask != nil {
				out.Masked[ob.Table.Schema+"."+ob.Table.Table+"."+column.Name] = column.Mask.Name
			}
		}
	}
	return out
}

// statement judges a command line here, and puts SQL to whoever can tell what it does.
func (c *Case) statement(ctx context.Context, s *policy.Snapshot, now time.Time, explain Explain) (Outcome, error) {
	task := postern.TaskName(c.Task)
	o, err := s.Offer(c.Subject.Subject(), task, c.request(now))
	if err != nil {
		return refused(task, err), nil
	}
	name, err := s.ResourceOf(task, postern.ResourceName(c.Resource))
	if err != nil {
		return refused(task, err), nil
	}
	if r, ok := s.Resource(name); ok && r.GetSpec().GetProtocol() == string(postern.SSH) {
		facts := &ssh.Facts{Verb: ssh.Exec}
		if facts.Line, err = shell.Parse(c.Statement); err != nil {
			facts.Unknown = err.Error()
		}
		return c.decide(s, o, name, facts, now), nil
	}
	switch {
	case explain == nil:
		return Outcome{}, ErrNotRun
	case !c.At.IsZero():
		return Outcome{}, fmt.Errorf("at: a statement is judged by a node, at its own time; use can")
	}
	connect := s.DecideConnect(policy.Query{Grant: c.grant(o, now), Resource: name, Request: c.request(now)})
	if connect.Verdict == postern.VerdictDeny {
		return outcome(o, connect), nil
	}
	out, err := explain(ctx, c, task, name)
	if err != nil {
		return out, err
	}
	out.Task = task
	if out.Verdict == "allow" && connect.Verdict == postern.VerdictHold {
		out.Verdict, out.Rule, out.Approval, out.Reason = "hold", connect.Rule, connect.Approval.Rule, connect.Reason
	}
	return first(o, out), nil
}
