package enrol

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/conf"
	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/postern"
)

// taken refuses a renewal that wants a name which the node had not and another one has: whoever
// took a node could have it certified for the hosts of others. Nodes that share a name, behind one
// balancer say, say so when they are enrolled, which somebody has let them do.
func (s *Service) taken(ctx context.Context, name postern.NodeName, had, wanted map[string]string) error {
	own := covered(had)
	added := slices.DeleteFunc(covered(wanted), func(host string) bool { return slices.Contains(own, host) || conf.Loopback(host) })
	if len(added) == 0 {
		return nil
	}
	entries, _, err := s.cfg.Store.List(ctx, nodeKind, "", 0)
	if err != nil {
		return fmt.Errorf("renew %s: %w", name, err)
	}
	for _, e := range entries {
		if e.Key.Name == string(name) {
			continue
		}
		o, err := store.DecodeObject(e)
		if err != nil {
			return fmt.Errorf("renew %s: the names of node %s: %w", name, e.Key.Name, err)
		}
		for _, host := range covered(o.GetNode().GetSpec().GetEndpoints()) {
			if i := slices.IndexFunc(added, func(want string) bool { return overlap(want, host) }); i >= 0 {
				return fault.New(codes.PermissionDenied, "endpoints: %s is covered by the certificate of node %s; where both are to have it, enrol %s anew: postern nodes enrol %s", added[i], e.Key.Name, name, name)
			}
		}
	}
	return nil
}

// covered are the names that a node with these endpoints is certified for.
func covered(endpoints map[string]string) (names []string) {
	for protocol, address := range endpoints {
		host, _, _ := net.SplitHostPort(address) // what is none was refused
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		ip := net.ParseIP(host)
		if ip != nil {
			host = ip.String()
		}
		names = append(names, host)
		if ip == nil && protocol == string(postern.HTTP) {
			names = append(names, "*."+host)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// overlap reports whether two names, or all of one label below them, have one in common.
func overlap(a, b string) bool {
	_, aboveA, _ := strings.Cut(a, ".")
	_, aboveB, _ := strings.Cut(b, ".")
	return a == b || a == "*."+aboveB || b == "*."+aboveA
}
