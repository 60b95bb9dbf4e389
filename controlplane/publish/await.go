package publish

import (
	"context"
	"time"

	"github.com/posterngate/postern/pkg/postern"
)

// awaitPoll is how often Await looks.
const awaitPoll = 5 * time.Millisecond

// Await waits until every node that is connected to this replica enforces the version,
// or ctx is done. It tells which do, and when each confirmed that, or later.
func (h *Hub) Await(ctx context.Context, v postern.Version) map[postern.NodeName]time.Time {
	tick := time.NewTicker(awaitPoll)
	defer tick.Stop()
	for {
		confirmed, all := h.enforcing(v)
		if all {
			return confirmed
		}
		select {
		case <-ctx.Done():
			return confirmed
		case <-tick.C:
		}
	}
}

// nodesWait bounds how long who has changed policy waits for nodes.
const nodesWait = 250 * time.Millisecond

// Enforced waits until Snapshot has a version, or ctx is done, and then for a moment until
// the nodes that are connected to this replica enforce it: so that nobody who has changed
// something finds it as it was a moment later.
func (h *Hub) Enforced(ctx context.Context, v postern.Version) error {
	if err := h.Compiled(ctx, v); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, nodesWait)
	defer cancel()
	tick := time.NewTicker(awaitPoll)
	defer tick.Stop()
	for !h.allEnforce(v) {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// allEnforce reports whether all connected nodes enforce a version; it stops at the first
// that does not.
func (h *Hub) allEnforce(v postern.Version) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pull()
	h.nudge()
	published := h.covered.Covers(v)
	for _, s := range h.nodes {
		if !s.enforces(v, published) {
			return false
		}
	}
	return published
}

// enforces reports whether the node enforces a version, which may be published already. One
// that has confirmed all that it was sent enforces everything that is. The caller holds the
// Hub's mu.
func (s *stream) enforces(v postern.Version, published bool) bool {
	quiet := s.target != nil && s.status.behind.IsZero() && len(s.unacked) == 0
	return s.status.version.Covers(v) || published && quiet
}

// enforcing is which nodes enforce a version, and whether all do.
func (h *Hub) enforcing(v postern.Version) (confirmed map[postern.NodeName]time.Time, all bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pull()
	h.nudge()
	published := h.covered.Covers(v)
	confirmed, all = map[postern.NodeName]time.Time{}, published
	for name, s := range h.nodes {
		if !s.enforces(v, published) {
			all = false
			continue
		}
		confirmed[name] = s.status.confirmed
		if s.status.confirmed.IsZero() {
			confirmed[name] = s.status.joined // with what it has
		}
	}
	return confirmed, all
}
