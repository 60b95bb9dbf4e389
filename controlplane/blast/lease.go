package blast

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// ofLease is a credential on loan, in the hands of somebody who reaches the resource past
// every node.
func (s *Service) ofLease(ctx context.Context, id postern.LeaseID) (*apiv1.GetBlastResponse, error) {
	loans, err := s.cfg.Loans(ctx, func(l *credential.Lent) bool { return l.ID == id })
	if err != nil {
		return nil, err
	}
	if len(loans) == 0 {
		return nil, fault.New(codes.NotFound, "the ledger has no lease %.60q", id)
	}
	l := &loans[0]
	resp := &apiv1.GetBlastResponse{Thing: fmt.Sprintf("the credential that is lent to %s for %s on %s", l.Node, orElse(string(l.Task), l.Purpose), l.Resource)}
	one := s.login(l)
	// A static password outlives every loan of it.
	static := one.GetEndTime() == nil
	if !static && !l.Live {
		return dead(resp.GetThing(), "the lease is over ("+l.State+")"), nil
	}
	resp.Reaches = []*apiv1.Reach{one}
	if l.Session != "" && l.Live && l.Purpose == credential.PurposeSession {
		resp.Stops = append(resp.Stops, "postern sessions kill "+string(l.Session)+" --reason stolen")
	}
	if l.Grant != "" && l.Live {
		resp.Stops = append(resp.Stops, lock("grant", string(l.Grant)))
	}
	switch {
	case l.Source == "sealed":
		resp.Stops = []string{"postern rotate " + quoted(l.Where)}
		resp.Notes = append(resp.Notes, "the account is static: its password is the same for every session, and outlives the loan")
	case static:
		resp.Stops = []string{"postern rotate " + quoted(vaultName(l.Where))}
		resp.Notes = append(resp.Notes, "the account is static: its password lies in Vault, and outlives the loan")
	}
	resp.Notes = append(resp.Notes, "the gateway neither sees nor records what is done with it")
	return last(resp), nil
}

// vaultName is a place in Vault as rotate takes it.
func vaultName(where string) string {
	return strings.Replace(strings.Replace(where, "/data/", "/", 1), "/static-creds/", "/", 1)
}

// login is what the account of a lease may at the resource itself: at level native what
// its task makes of it there, and elsewhere whatever the account may.
func (s *Service) login(l *credential.Lent) *apiv1.Reach {
	one := &apiv1.Reach{Act: Login, Addresses: s.targets(l.Resource), Task: string(l.Task), Resource: string(l.Resource), Account: l.Account, Lease: string(l.ID), Rights: anything()}
	if l.Made {
		one.EndTime = at(l.Until)
	}
	if l.Purpose != credential.PurposeSession {
		return one
	}
	if w, native := s.cfg.Snapshot().Wall(l.Task, l.Resource); native {
		one.Rights = walled(&w)
	}
	return one
}

// walled is what a wall lets a login do, by the names at the target.
func walled(w *policy.Wall) []*apiv1.BlastRight {
	var out []*apiv1.BlastRight
	for _, v := range w.Views {
		right := &apiv1.BlastRight{Verb: string(sql.Select), Object: v.Rule.View.Schema + "." + strconv.Quote(v.Rule.View.Name), Masks: map[string]string{}}
		for _, c := range v.Rule.Columns {
			right.Columns = append(right.Columns, c.Name)
			if c.Mask != nil {
				right.Masks[c.Name] = c.Mask.Name
			}
		}
		if v.Filtered {
			right.Terms = []string{"the rows of this session's subject, in a view of its own beside it"}
		}
		out = append(out, right)
	}
	for _, t := range w.Tables {
		add := func(verb sql.Verb, is bool, columns []string) {
			if is {
				out = append(out, &apiv1.BlastRight{Verb: string(verb), Object: t.String(), Columns: slices.Clone(columns)})
			}
		}
		add(sql.Select, len(t.Select) > 0, t.Select)
		add(sql.Insert, len(t.Insert) > 0, t.Insert)
		add(sql.Update, len(t.Update) > 0, t.Update)
		add(sql.Delete, t.Delete, nil)
		add(sql.Truncate, t.Truncate, nil)
	}
	for _, f := range w.Functions {
		out = append(out, &apiv1.BlastRight{Verb: Call, Object: f.String()})
	}
	return out
}

// targets are where a resource itself listens.
func (s *Service) targets(r postern.ResourceName) []string {
	res, ok := s.cfg.Snapshot().Resource(r)
	if !ok {
		return nil
	}
	e := res.GetSpec().GetEndpoint()
	return []string{net.JoinHostPort(e.GetHost(), strconv.Itoa(int(e.GetPort())))}
}
