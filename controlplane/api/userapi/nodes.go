package userapi

import (
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Hub is the fleet as it is now.
type Hub interface {
	// Nodes are all nodes that were heard of.
	Nodes() []*apiv1.NodeStatus
	// Version is the newest version that was published.
	Version() postern.Version
	// Snapshot is the policy that it was compiled from.
	Snapshot() *policy.Snapshot
	// Command has a node do something, and waits for the result.
	Command(ctx context.Context, node postern.NodeName, cmd *nodev1.Command) (*nodev1.CommandResult, error)
	// NodeFor is a connected node that can serve a resource.
	NodeFor(resource postern.ResourceName) (postern.NodeName, bool)
	// WallFor is a connected wall that reaches a resource.
	WallFor(resource postern.ResourceName) (postern.NodeName, bool)
}

// Enroller makes the one-time tokens with which nodes enrol, and audits that it did.
type Enroller interface {
	CreateJoinToken(ctx context.Context, by, address string, req *apiv1.CreateJoinTokenRequest) (*apiv1.CreateJoinTokenResponse, error)
}

// Nodes answers NodeAdminService.
type Nodes struct {
	hub   Hub
	enrol Enroller
	cache *store.Cache
}

var _ api.NodeAdminServiceHandler = (*Nodes)(nil)

// NewNodes makes a Nodes. The cache holds the kind "node", for the labels to which
// roles may be scoped.
func NewNodes(hub Hub, enrol Enroller, cache *store.Cache) *Nodes { return &Nodes{hub, enrol, cache} }

// labels are those that a node enrolled with; none where it is unknown.
func (n *Nodes) labels(name string) map[string]string {
	e, ok := n.cache.Get(store.Key{Kind: "node", Name: name})
	if !ok {
		return nil
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return nil
	}
	return object.Meta(o).GetLabels()
}

// CreateJoinToken implements apiv1connect.NodeAdminServiceHandler.
func (n *Nodes) CreateJoinToken(ctx context.Context, r *connect.Request[apiv1.CreateJoinTokenRequest]) (*connect.Response[apiv1.CreateJoinTokenResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	_, exists := n.cache.Get(store.Key{Kind: "node", Name: r.Msg.GetName()})
	why := ""
	switch {
	case !c.HasFor(authz.Admin, r.Msg.GetLabels()):
		why = "does not reach a node with these labels"
	case exists && !c.HasFor(authz.Admin, n.labels(r.Msg.GetName())): // whose name would go over
		why = "does not reach the node that has this name"
	case r.Msg.GetRole() == postern.RoleWall && !c.Has(authz.Admin): // which borrows admin credentials
		why = "has a scope, and walls are for admins of everything"
	}
	if why != "" {
		return nil, fault.New(codes.PermissionDenied, "your role admin %s", why).WithKind("denied")
	}
	resp, err := n.enrol.CreateJoinToken(ctx, c.Subject.Name, c.Address, r.Msg)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(resp), nil
}

// ListNodes implements apiv1connect.NodeAdminServiceHandler.
func (n *Nodes) ListNodes(ctx context.Context, _ *connect.Request[apiv1.ListNodesRequest]) (*connect.Response[apiv1.ListNodesResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	v := n.hub.Version()
	resp := &apiv1.ListNodesResponse{Version: &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision}}
	for _, s := range n.hub.Nodes() {
		if c.HasFor(authz.Viewer, n.labels(s.GetName())) {
			resp.Nodes = append(resp.Nodes, n.readable(c, s))
		}
	}
	slices.SortFunc(resp.Nodes, func(a, b *apiv1.NodeStatus) int { return strings.Compare(a.GetName(), b.GetName()) })
	return connect.NewResponse(resp), nil
}

// readable is a node's status without what it says of resources that the caller may not read.
func (n *Nodes) readable(c *authz.Caller, s *apiv1.NodeStatus) *apiv1.NodeStatus {
	now := n.hub.Snapshot()
	hidden := func(t *nodev1.ResourceTrouble) bool {
		res, ok := now.Resource(postern.ResourceName(t.GetResource()))
		return !ok || !c.HasFor(authz.Viewer, res.GetMetadata().GetLabels())
	}
	if slices.ContainsFunc(s.GetReport().GetTroubles(), hidden) {
		s = proto.CloneOf(s)
		s.Report.Troubles = slices.DeleteFunc(s.GetReport().GetTroubles(), hidden)
	}
	return s
}

// DrainNode implements apiv1connect.NodeAdminServiceHandler.
func (n *Nodes) DrainNode(ctx context.Context, r *connect.Request[apiv1.DrainNodeRequest]) (*connect.Response[apiv1.DrainNodeResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	name := r.Msg.GetName()
	if err := object.CheckName(name); err != nil {
		return nil, fault.Invalid(fault.Violation{Field: "name", Reason: err.Error()})
	}
	if t := r.Msg.GetTimeout(); t != nil && (!t.IsValid() || t.AsDuration() < 0) {
		return nil, fault.Invalid(fault.Violation{Field: "timeout", Reason: "is not a duration, or is negative"})
	}
	if !c.HasFor(authz.Operator, n.labels(name)) {
		return nil, fault.New(codes.PermissionDenied, "your role does not reach node %q", name).WithKind("denied")
	}
	res, err := n.hub.Command(ctx, postern.NodeName(name), &nodev1.Command{Kind: &nodev1.Command_Drain{Drain: &nodev1.Drain{Timeout: r.Msg.GetTimeout()}}})
	if err != nil {
		return nil, err
	}
	if !res.GetDone() {
		return nil, fault.New(codes.FailedPrecondition, "node %q did not drain: %s", name, res.GetError())
	}
	return connect.NewResponse(&apiv1.DrainNodeResponse{}), nil
}
