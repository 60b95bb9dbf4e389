package session

import (
	"context"
	"time"

	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/gate"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Question is what somebody wants to know before they do it.
type Question struct {
	Subject   postern.Subject
	Protocol  postern.Protocol
	Task      postern.TaskName
	Resource  postern.ResourceName
	Statement string
	Approval  *postern.Approval // of the grant that would be
	// Alternatives are other tasks that the subject may have on the resource.
	Alternatives []postern.Alternative
}

// Build makes the Statement of a text as a session of the engine would.
type Build func(ctx context.Context, s engine.Session, text string) (*engine.Statement, error)

// Explain says what would happen to a statement of a subject who holds a grant for the
// task: it opens no session, records nothing, and reads only the resource's catalogue.
func (k *Keeper) Explain(ctx context.Context, q Question, build Build) (gate.Explanation, error) {
	snap := k.cfg.Snapshots.Current()
	res, terms, err := k.resolve(snap, engine.Claim{Protocol: q.Protocol}, q.Task, q.Resource)
	if err != nil {
		return gate.Explanation{}, err
	}
	now := k.cfg.Now()
	grant := &postern.Grant{ID: "explain", Subject: q.Subject, Task: q.Task, Start: now, End: now.Add(time.Minute), Approval: q.Approval, Alternatives: q.Alternatives}
	s := &Session{k: k, id: newID(), grant: grant, client: policy.Request{Time: now, Region: k.cfg.Region}}
	s.ctx, s.end = context.WithCancelCause(ctx)
	defer s.Close(nil)
	d := snap.DecideConnect(k.query(grant, res.name, s.client))
	if d.Verdict == postern.VerdictDeny {
		return gate.Explanation{Decision: d, Refusal: gate.Refuse(d)}, nil
	}
	s.terms = engineTerms(k, grant, q.Task, res, terms, d)
	g := gate.New(gate.Config{
		Session: s.id, Grant: grant, Task: q.Task, Resource: res.name, Node: k.cfg.Node, Request: s.request,
		Snapshots: k.cfg.Snapshots, Healthy: k.healthy(terms), Cache: k.cache, Budget: &budget.Budget{}, Now: k.cfg.Now, Logger: k.cfg.Logger,
	})
	st, err := build(ctx, s, q.Statement)
	if err != nil {
		return gate.Explanation{}, err
	}
	return g.Explain(ctx, st)
}
