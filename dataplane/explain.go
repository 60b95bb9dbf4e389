package dataplane

import (
	"context"
	"errors"
	"fmt"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/session"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/postern"
)

// explainer is an engine that can make a Statement without a client.
type explainer interface {
	Explain(ctx context.Context, s engine.Session, text string) (*engine.Statement, error)
}

func (n *Node) explain(ctx context.Context, req *nodev1.Explain) (*nodev1.Explanation, error) {
	r, ok := n.policy.Current().Resource(postern.ResourceName(req.GetResource()))
	if !ok {
		return nil, &postern.Refusal{Reason: fmt.Sprintf("resource %q is not served by this node", req.GetResource())}
	}
	protocol := postern.Protocol(r.GetSpec().GetProtocol())
	e, ok := n.engines[protocol].(explainer)
	if !ok {
		return nil, errors.New("dataplane: no engine that explains")
	}
	x, err := n.keeper.Explain(ctx, session.Question{
		Subject: noun.SubjectOf(req.GetSubject()), Protocol: protocol, Task: postern.TaskName(req.GetTask()),
		Resource: postern.ResourceName(req.GetResource()), Statement: req.GetStatement(), Approval: noun.ApprovalOf(req.GetApproval()),
		Alternatives: noun.AlternativesOf(req.GetAlternatives()),
	}, e.Explain)
	if err != nil {
		return nil, err
	}
	d := x.Decision
	out := &nodev1.Explanation{
		Verdict: d.Verdict.String(), Rule: d.Rule, Reason: d.Reason, Detail: d.Detail, Hint: d.Hint, Forward: x.Forward, Level: d.Level.String(),
		Masked: map[string]string{}, Relations: x.Relations,
		Version: &typesv1.Version{Epoch: d.Version.Epoch, Revision: d.Version.Revision},
	}
	if d.Approval != nil {
		out.Approval = d.Approval.Rule
	}
	if x.Refusal != nil {
		out.Verdict, out.Rule, out.Reason = postern.VerdictDeny.String(), x.Refusal.Rule, x.Refusal.Reason
		out.Detail, out.Hint = x.Refusal.Detail, x.Refusal.Hint
	}
	for _, t := range x.Touched {
		out.Columns = append(out.Columns, t.Column)
		if t.Mask != "" {
			out.Masked[t.Column] = t.Mask
		}
	}
	return out, nil
}
