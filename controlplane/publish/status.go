package publish

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// status is what is known of a node.
type status struct {
	region     string
	release    string
	version    postern.Version // the last that it confirmed
	confirmed  time.Time       // when it did
	behind     time.Time       // since when something that concerns it is not confirmed; zero where nothing is
	rejections []*nodev1.Rejection
	report     *nodev1.NodeReport
	process    string
	joined     time.Time
	seen       time.Time
}

// A Sighting is what a replica has heard of a node's process.
type Sighting struct {
	Process      string    // empty where the node names none
	Joined, Seen time.Time // when its stream was opened, and when it said something last
	Connected    bool
}

// Last is what this replica has heard of a node last; false where it has heard nothing.
func (h *Hub) Last(node postern.NodeName) (Sighting, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.nodes[node]; s != nil {
		return s.status.sighting(true), true
	}
	st, ok := h.gone[node]
	return st.sighting(false), ok
}

func (s status) sighting(connected bool) Sighting {
	return Sighting{Process: s.process, Joined: s.joined, Seen: s.seen, Connected: connected}
}

// Nodes is the fleet as this replica knows it, in order of name: every enrolled node,
// and every one that is connected.
func (h *Hub) Nodes() []*apiv1.NodeStatus {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[postern.NodeName]*apiv1.NodeStatus{}
	for n := range h.world.nodes {
		name := postern.NodeName(n.GetMetadata().GetName())
		st := h.gone[name]
		st.region = n.GetSpec().GetRegion()
		out := st.proto(name, h.now())
		out.Endpoints, out.Role = n.GetSpec().GetEndpoints(), n.GetSpec().GetRole()
		all[name] = out
	}
	for name := range h.gone {
		if all[name] == nil {
			delete(h.gone, name) // not enrolled any more
		}
	}
	for name, s := range h.nodes {
		st := s.status
		if st.behind.IsZero() && len(s.unacked) == 0 && s.target != nil {
			st.version = h.version // nothing of what came since concerns it
		}
		out := st.proto(name, h.now())
		out.Connected = true
		if known := all[name]; known != nil {
			out.Region, out.Endpoints, out.Role = known.GetRegion(), known.GetEndpoints(), known.GetRole()
		}
		all[name] = out
	}
	list := make([]*apiv1.NodeStatus, 0, len(all))
	for _, st := range all {
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b *apiv1.NodeStatus) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return list
}

func (s status) proto(name postern.NodeName, now time.Time) *apiv1.NodeStatus {
	out := &apiv1.NodeStatus{
		Name: string(name), Region: s.region, Release: s.release,
		Rejections: slices.Clone(s.rejections), Report: s.report,
	}
	if !s.version.IsZero() {
		out.Version = &typesv1.Version{Epoch: s.version.Epoch, Revision: s.version.Revision}
	}
	if !s.seen.IsZero() {
		out.LastSeen = timestamppb.New(s.seen)
	}
	if !s.behind.IsZero() {
		out.Lag = durationpb.New(max(0, now.Sub(s.behind)))
	}
	return out
}
