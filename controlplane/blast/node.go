package blast

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// ofNode is a node with its keys and its disk, and what its memory adds. Nothing of it
// ends by itself: who has the key renews the certificate.
func (s *Service) ofNode(ctx context.Context, name postern.NodeName) (*apiv1.GetBlastResponse, error) {
	node, err := s.cfg.Node(ctx, name)
	if err != nil {
		return nil, err
	}
	if node == nil {
		return nil, fault.New(codes.NotFound, "no node %.60q is enrolled", name)
	}
	wall := node.GetSpec().GetRole() == postern.RoleWall
	kind := "node"
	if wall {
		kind = "wall"
	}
	resp := &apiv1.GetBlastResponse{Thing: kind + " " + string(name) + ", its keys and its disk", Stops: []string{lock("node", string(name))}}
	if reason, by, ok := s.cfg.Snapshot().Locked("", "", "", "", name, s.cfg.Now()); ok {
		return dead(resp.GetThing(), fmt.Sprintf("%s (lock %s)", reason, by)), nil
	}
	loans, err := s.cfg.Loans(ctx, func(l *credential.Lent) bool { return l.Node == name && l.Live })
	if err != nil {
		return nil, err
	}
	serves := s.serves(node)
	renew := &apiv1.Reach{Act: Renew, Terms: []string{"until the node itself renews, which ends what was stolen; who renews first shuts the node out, and the audit log tells of its next try"}}
	told := &apiv1.Reach{Act: Policy, Terms: []string{"resources " + list(serves) + ", the tasks that reach them, their masks, and every lock"}}
	resp.Reaches = []*apiv1.Reach{renew, told}
	purpose := credential.PurposeCatalog
	if wall {
		purpose = credential.PurposeAdmin
	} else {
		resp.Reaches = append(resp.Reaches,
			&apiv1.Reach{Act: Pose, Addresses: slices.Sorted(maps.Values(node.GetSpec().GetEndpoints())), Terms: []string{"a client comes: what it shows is the thief's", "by other names too, those of other nodes among them: who renews says what it is to be certified for, and the audit log tells of it (node.renew)"}},
			&apiv1.Reach{Act: Record, Terms: []string{"in this node's name, of sessions of whomever it says"}})
	}
	for _, r := range serves {
		if one := s.borrows(r, purpose, loans); one != nil {
			resp.Reaches = append(resp.Reaches, one)
			resp.Stops = append(resp.Stops, s.rotation(r, purpose)...)
		}
	}
	for _, l := range loans {
		if l.Purpose != credential.PurposeSession {
			continue
		}
		one := s.login(&l)
		one.Act = Borrow
		one.Terms = append(one.Terms, fmt.Sprintf("knowing grant %s, which is in the node's memory and not on its disk", l.Grant))
		resp.Reaches = append(resp.Reaches, one)
		if l.Source == "sealed" {
			resp.Stops = append(resp.Stops, "postern rotate "+quoted(l.Where))
		}
	}
	slices.Sort(resp.Stops[1:])
	resp.Stops = slices.Compact(resp.Stops)
	if !wall {
		resp.Notes = []string{
			"recordings in its name may be made up, but whose grant they name is held against what is known: postern sessions verify says where that is another's, or one that no client has opened at this node",
			"what is spooled on its disk is sealed to the recording key: the disk alone shows nothing of it",
			"whoever knows the id of a live grant besides that a client has opened at this node can borrow the login of its task, at the resources that this node serves, and be vouched for as its subject where they are told who asks; a grant that others use elsewhere is of no use to it",
		}
	}
	return last(resp), nil
}

// serves are the resources that a node may have.
func (s *Service) serves(node *typesv1.Node) []postern.ResourceName {
	var out []postern.ResourceName
	snap := s.cfg.Snapshot()
	for _, r := range snap.Resources() {
		if res, ok := snap.Resource(r); ok && s.cfg.Serves(node, res) {
			out = append(out, r)
		}
	}
	return out
}

func list(names []postern.ResourceName) string {
	var out []string
	for _, n := range names {
		out = append(out, string(n))
	}
	if len(out) == 0 {
		return "(none)"
	}
	return strings.Join(out, ", ")
}

func (s *Service) credentialOf(r postern.ResourceName, purpose string) *typesv1.CredentialRef {
	res, _ := s.cfg.Snapshot().Resource(r)
	if purpose == credential.PurposeAdmin {
		return res.GetSpec().GetLevel().GetAdmin()
	}
	return res.GetSpec().GetCatalog()
}

// borrows is the credential of a resource that a node gets for the asking; nil where there
// is none.
func (s *Service) borrows(r postern.ResourceName, purpose string, loans []credential.Lent) *apiv1.Reach {
	if s.credentialOf(r, purpose) == nil {
		return nil
	}
	one := &apiv1.Reach{Act: Borrow, Addresses: s.targets(r), Resource: string(r), Rights: anything(), Terms: []string{"the credential for purpose " + purpose}}
	if i := slices.IndexFunc(loans, func(l credential.Lent) bool { return l.Resource == r && l.Purpose == purpose }); i >= 0 {
		one.Account, one.Lease = loans[i].Account, string(loans[i].ID)
	}
	return one
}

// rotation is what makes a borrowed password worthless once the node is locked out.
func (s *Service) rotation(r postern.ResourceName, purpose string) []string {
	if secret := s.credentialOf(r, purpose).GetSealed(); secret != "" {
		return []string{"postern rotate " + quoted(secret)}
	}
	return nil
}

// anything is all that the account may at the server: Postern is not in front of it.
func anything() []*apiv1.BlastRight { return []*apiv1.BlastRight{{Verb: policy.Anything}} }
