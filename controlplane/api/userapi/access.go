package userapi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// maxStatement bounds the statement of an Explain, in bytes.
const maxStatement = 1 << 20

// Signer signs the list of endpoints.
type Signer interface {
	SignList(list []byte) ([]byte, error)
}

// Logins tells how people sign in.
type Logins interface {
	Options() []*apiv1.LoginIssuer
}

// AccessConfig is what Access needs; all is required.
type AccessConfig struct {
	Hub    Hub
	Logins Logins
	Grants func(ctx context.Context, c *authz.Caller) ([]*typesv1.Grant, error) // the caller's own
	Signer Signer
	// SSHHostCAs certify the SSH host keys of nodes, as in an authorized_keys file.
	SSHHostCAs func() string
	Now        func() time.Time
}

// Access answers AccessService: what the caller may do.
type Access struct{ cfg AccessConfig }

var _ api.AccessServiceHandler = (*Access)(nil)

// NewAccess makes an Access.
func NewAccess(cfg AccessConfig) *Access { return &Access{cfg} }

// request is what is known of how the caller asks.
func (a *Access) request(c *authz.Caller) policy.Request {
	return policy.Request{Time: a.cfg.Now(), Address: c.Address}
}

// WhoAmI implements apiv1connect.AccessServiceHandler.
func (a *Access) WhoAmI(ctx context.Context, _ *connect.Request[apiv1.WhoAmIRequest]) (*connect.Response[apiv1.WhoAmIResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	sub, err := noun.Subject(c.Subject)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.WhoAmIResponse{Subject: sub, Roles: c.RoleNames()}
	if !c.Expires.IsZero() {
		resp.ExpireTime = timestamppb.New(c.Expires)
	}
	return connect.NewResponse(resp), nil
}

// LoginOptions implements apiv1connect.AccessServiceHandler.
func (a *Access) LoginOptions(context.Context, *connect.Request[apiv1.LoginOptionsRequest]) (*connect.Response[apiv1.LoginOptionsResponse], error) {
	return connect.NewResponse(&apiv1.LoginOptionsResponse{Issuers: a.cfg.Logins.Options()}), nil
}

// ListTasks implements apiv1connect.AccessServiceHandler.
func (a *Access) ListTasks(ctx context.Context, _ *connect.Request[apiv1.ListTasksRequest]) (*connect.Response[apiv1.ListTasksResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	grants, err := a.cfg.Grants(ctx, c)
	if err != nil {
		return nil, err
	}
	now := a.cfg.Hub.Snapshot()
	resp := &apiv1.ListTasksResponse{}
	for _, o := range now.Offers(c.Subject, a.request(c)) {
		offer := &apiv1.TaskOffer{
			Task: string(o.Task), Purpose: o.Purpose, Binding: o.Binding,
			Terms: terms(o.Approval, now), Duration: duration(o.Duration), Protocols: map[string]string{},
		}
		for _, r := range o.Resources {
			offer.Resources = append(offer.Resources, string(r))
			if res, ok := now.Resource(r); ok {
				offer.Protocols[string(r)] = res.GetSpec().GetProtocol()
			}
		}
		for _, g := range grants {
			if g.GetTask() == offer.GetTask() && g.GetState() == typesv1.GrantState_GRANT_STATE_ACTIVE && g.GetEndTime().AsTime().After(a.cfg.Now()) {
				offer.Grant = proto.CloneOf(g)
				offer.Grant.TokenHash = nil
			}
		}
		resp.Tasks = append(resp.Tasks, offer)
	}
	return connect.NewResponse(resp), nil
}

// terms says who must say yes and to what, such as "1 of leads must approve each statement".
func terms(a *postern.Approval, now *policy.Snapshot) string {
	if a == nil {
		return "at once"
	}
	text := now.ApprovalText(a)
	if len(a.Verbs) > 0 {
		text += " with " + strings.Join(a.Verbs, ", ")
	}
	return text
}

// duration is d as people write it: 1h, not 1h0m0s.
func duration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Explain implements apiv1connect.AccessServiceHandler: a node says what would happen,
// for only a node has the catalogue and the parser.
func (a *Access) Explain(ctx context.Context, r *connect.Request[apiv1.ExplainRequest]) (*connect.Response[apiv1.ExplainResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	if n := len(r.Msg.GetStatement()); n == 0 || n > maxStatement {
		return nil, fault.Invalid(fault.Violation{Field: "statement", Reason: fmt.Sprintf("is required, of at most %d bytes", maxStatement)})
	}
	name, on, _ := strings.Cut(r.Msg.GetTask(), ".")
	now, task := a.cfg.Hub.Snapshot(), postern.TaskName(name)
	// What a task allows is for those who may take it, and for those who may read policy.
	other := r.Msg.GetSubject()
	if other != nil && !c.Has(authz.Viewer) {
		return nil, fault.New(codes.PermissionDenied, "what would happen to somebody else is told to those who may read all of policy")
	}
	offer, err := now.Offer(c.Subject, task, a.request(c))
	if err != nil && !c.Has(authz.Viewer) {
		return nil, err
	}
	resource, err := now.ResourceOf(task, postern.ResourceName(on))
	if err != nil {
		return nil, err
	}
	node, ok := a.cfg.Hub.NodeFor(resource)
	if !ok {
		return nil, fault.New(codes.Unavailable, "no node that reaches resource %q is connected", resource)
	}
	sub, err := noun.Subject(c.Subject)
	if err != nil {
		return nil, err
	}
	who := c.Subject
	if other != nil {
		sub, who = other, noun.SubjectOf(other)
		offer, _ = now.Offer(who, task, a.request(c)) // who is offered nothing is asked nothing
	}
	res, err := a.cfg.Hub.Command(ctx, node, &nodev1.Command{Kind: &nodev1.Command_Explain{Explain: &nodev1.Explain{
		Subject: sub, Task: name, Resource: string(resource), Statement: r.Msg.GetStatement(), Approval: noun.Approval(offer.Approval),
		Alternatives: noun.Alternatives(now.Alternatives(who, task, resource, a.request(c))),
	}}})
	if err != nil {
		return nil, err
	}
	if res.GetExplanation() == nil {
		return nil, fault.New(codes.Unavailable, "node %q could not explain: %s", node, res.GetError())
	}
	return connect.NewResponse(&apiv1.ExplainResponse{Explanation: res.GetExplanation(), Node: string(node)}), nil
}

// ListEndpoints implements apiv1connect.AccessServiceHandler. Which resources a node
// reaches is told only of those that the caller may use, or read about.
func (a *Access) ListEndpoints(ctx context.Context, r *connect.Request[apiv1.ListEndpointsRequest]) (*connect.Response[apiv1.ListEndpointsResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	usable := make(map[string]bool)
	for _, o := range a.cfg.Hub.Snapshot().Offers(c.Subject, a.request(c)) {
		for _, res := range o.Resources {
			usable[string(res)] = true
		}
	}
	list := &apiv1.EndpointList{Time: timestamppb.New(a.cfg.Now()), SshHostCa: a.cfg.SSHHostCAs()}
	for _, n := range a.cfg.Hub.Nodes() {
		if !n.GetConnected() || n.GetReport().GetDraining() || len(n.GetEndpoints()) == 0 {
			continue
		}
		e := &apiv1.NodeEndpoint{Node: n.GetName(), Region: n.GetRegion(), Addresses: n.GetEndpoints(), Sessions: n.GetReport().GetSessions()}
		for _, res := range n.GetReport().GetResources() {
			if usable[res] || c.Has(authz.Viewer) {
				e.Resources = append(e.Resources, res)
			}
		}
		if want := r.Msg.GetResource(); want != "" && !slices.Contains(e.GetResources(), want) {
			continue
		}
		list.Nodes = append(list.Nodes, e)
	}
	slices.SortFunc(list.Nodes, func(a, b *apiv1.NodeEndpoint) int { return strings.Compare(a.GetNode(), b.GetNode()) })
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(list)
	if err != nil {
		return nil, err
	}
	signature, err := a.cfg.Signer.SignList(raw)
	if err != nil {
		return nil, fmt.Errorf("sign the list of endpoints: %w", err)
	}
	return connect.NewResponse(&apiv1.ListEndpointsResponse{List: raw, Signature: signature, Endpoints: list}), nil
}
