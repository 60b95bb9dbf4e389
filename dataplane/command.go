package dataplane

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// report says what runs here.
func (n *Node) report() *nodev1.NodeReport {
	bytes, age := n.spool.Stats()
	r := &nodev1.NodeReport{
		Sessions: int64(len(n.keeper.Live())), SpoolBytes: bytes, SpoolAge: durationpb.New(age),
		Leases: int64(n.leases.Len()), Draining: n.keeper.Draining(), RecordingsAside: int64(n.spool.Aside()),
	}
	for _, name := range n.policy.Current().Resources() {
		r.Resources = append(r.Resources, string(name))
	}
	slices.Sort(r.Resources)
	for _, t := range n.keeper.Troubles() {
		r.Troubles = append(r.Troubles, &nodev1.ResourceTrouble{Resource: string(t.Resource), Error: t.Error, SinceTime: timestamppb.New(t.Since), LastTime: timestamppb.New(t.Last)})
	}
	return r
}

// command does what the control plane asks for.
func (n *Node) command(ctx context.Context, c *nodev1.Command) *nodev1.CommandResult {
	switch c := c.GetKind().(type) {
	case *nodev1.Command_KillSession:
		return &nodev1.CommandResult{Done: n.keeper.Kill(postern.SessionID(c.KillSession.GetSession()), c.KillSession.GetReason())}
	case *nodev1.Command_EndSignIn:
		n.keeper.SignedOut(c.EndSignIn.GetTokenHash())
		return &nodev1.CommandResult{}
	case *nodev1.Command_CancelQuery:
		return &nodev1.CommandResult{Done: n.keeper.CancelLocal(c.CancelQuery.GetKey())}
	case *nodev1.Command_Drain:
		n.keeper.Drain()
		if d := c.Drain.GetTimeout(); d != nil {
			time.AfterFunc(d.AsDuration(), func() { n.keeper.KillAll("the node is being drained") })
		}
		return &nodev1.CommandResult{Done: true}
	case *nodev1.Command_ReturnBudget:
		return &nodev1.CommandResult{Done: n.budgets.Return(ctx, postern.GrantID(c.ReturnBudget.GetGrant()))}
	case *nodev1.Command_ListConnections:
		return &nodev1.CommandResult{Done: true, Connections: n.keeper.Connections(postern.ResourceName(c.ListConnections.GetResource()))}
	case *nodev1.Command_FindRecordings:
		r := &nodev1.CommandResult{Done: true}
		for _, id := range c.FindRecordings.GetSessions() {
			if n.spool.Has(postern.SessionID(id)) {
				r.Recordings = append(r.Recordings, id)
			}
			if n.spool.IsAside(postern.SessionID(id)) {
				r.RecordingsAside = append(r.RecordingsAside, id)
			}
		}
		return r
	case *nodev1.Command_Explain:
		e, err := n.explain(ctx, c.Explain)
		if err != nil {
			return &nodev1.CommandResult{Error: postern.AsRefusal(err).Reason}
		}
		return &nodev1.CommandResult{Done: true, Explanation: e}
	}
	return &nodev1.CommandResult{Error: "this release of the node does not know the command"}
}
