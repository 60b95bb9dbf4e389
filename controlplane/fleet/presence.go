package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/publish"
	"github.com/posterngate/postern/controlplane/store"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// presence is what a replica tells of a node.
type presence struct {
	Replica   string    `json:"replica"`
	Process   string    `json:"process,omitempty"`
	Joined    time.Time `json:"joined"`
	Seen      time.Time `json:"seen"`
	Connected bool      `json:"connected"`
	Status    []byte    `json:"status"` // apiv1.NodeStatus
}

// written is what this replica has told last.
type written struct {
	presence
	at   time.Time
	told *apiv1.NodeStatus // what Status says
}

func (p *presence) sighting() publish.Sighting {
	return publish.Sighting{Process: p.Process, Joined: p.Joined, Seen: p.Seen, Connected: p.Connected}
}

// alive reports whether a replica that lives has the node's stream and has told so lately.
// What a store that was put back to a backup says of its time is of another epoch.
func (f *Fleet) alive(p *presence, told *apiv1.NodeStatus) bool {
	return p.Connected && f.cfg.Now().Sub(p.Seen) < silent && slices.Contains(f.others(), p.Replica) &&
		told.GetVersion().GetEpoch() == f.Version().Epoch
}

func (p *presence) status() (*apiv1.NodeStatus, bool) {
	told := &apiv1.NodeStatus{}
	return told, proto.Unmarshal(p.Status, told) == nil
}

func (f *Fleet) presence(node postern.NodeName) *presence {
	e, ok := f.cache.Get(store.Key{Kind: kindPresence, Name: string(node)})
	if !ok {
		return nil
	}
	return decodePresence(e)
}

func decodePresence(e store.Entry) *presence {
	p := &presence{}
	if json.Unmarshal(e.Value, p) != nil {
		return nil
	}
	return p
}

// Last is what was heard of a node last, by any replica; false where nothing was.
func (f *Fleet) Last(node postern.NodeName) (publish.Sighting, bool) {
	mine, ok := f.cfg.Hub.Last(node)
	if ok && mine.Connected {
		return mine, true
	}
	p := f.presence(node)
	switch {
	case p == nil:
		return mine, ok
	case ok && mine.Joined.After(p.Joined):
		return mine, true
	}
	s := p.sighting()
	told, ok := p.status()
	s.Connected = ok && f.alive(p, told)
	return s, true
}

// Nodes is the fleet as all replicas know it, in order of name.
func (f *Fleet) Nodes() []*apiv1.NodeStatus {
	all := f.cfg.Hub.Nodes()
	for _, n := range all {
		if n.GetConnected() {
			continue
		}
		p := f.presence(postern.NodeName(n.GetName()))
		if p == nil || n.GetLastSeen() != nil && n.GetLastSeen().AsTime().After(p.Seen) {
			continue
		}
		told, ok := p.status()
		if !ok {
			continue
		}
		n.Release, n.Version, n.Rejections, n.Report, n.Lag = told.GetRelease(), told.GetVersion(), told.GetRejections(), told.GetReport(), told.GetLag()
		n.LastSeen, n.Connected = timestamppb.New(p.Seen), f.alive(p, told)
	}
	return all
}

// NodeFor picks a connected node that serves the resource now and takes new sessions:
// the one with the fewest sessions. It is false where there is none.
func (f *Fleet) NodeFor(resource postern.ResourceName) (postern.NodeName, bool) {
	var best *apiv1.NodeStatus
	for _, n := range f.Nodes() {
		r := n.GetReport()
		if !n.GetConnected() || n.GetRole() != "" || r.GetDraining() || !slices.Contains(r.GetResources(), string(resource)) {
			continue
		}
		if best == nil || r.GetSessions() < best.GetReport().GetSessions() {
			best = n
		}
	}
	return postern.NodeName(best.GetName()), best != nil
}

// WallFor picks a connected wall that keeps the resource: the first by name. It is false
// where there is none.
func (f *Fleet) WallFor(resource postern.ResourceName) (postern.NodeName, bool) {
	for _, n := range f.Nodes() {
		if n.GetConnected() && n.GetRole() == postern.RoleWall && slices.Contains(n.GetReport().GetResources(), string(resource)) {
			return postern.NodeName(n.GetName()), true
		}
	}
	return "", false
}

// tell writes what this replica hears of its nodes, and that it lives.
func (f *Fleet) tell(ctx context.Context) error {
	select {
	case <-f.cache.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	tick := time.NewTicker(look)
	defer tick.Stop()
	var lived, cleaned time.Time
	for {
		now := f.cfg.Now()
		ops := f.news(now)
		if now.Sub(lived) >= period {
			ops = append(ops, store.Op{Key: store.Key{Kind: kindReplica, Name: f.id}, Value: f.life(now), If: store.AnyRevision})
			lived = now
		}
		if err := f.commit(ctx, ops); err != nil && ctx.Err() == nil {
			f.cfg.Logger.WarnContext(ctx, "what is heard of nodes was not written", "error", err)
		}
		if now.Sub(cleaned) >= garbage {
			cleaned = now
			if err := f.clean(ctx, now); err != nil && ctx.Err() == nil {
				f.cfg.Logger.WarnContext(ctx, "old commands were not removed", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			f.resign(ctx)
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// news is what has to be written now.
func (f *Fleet) news(now time.Time) []store.Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ops []store.Op
	for _, n := range f.cfg.Hub.Nodes() {
		name := postern.NodeName(n.GetName())
		s, ok := f.cfg.Hub.Last(name)
		had, told := f.written[name]
		switch {
		case !ok || !s.Connected && !told:
			continue
		case told && had.Connected == s.Connected && had.Joined.Equal(s.Joined) && now.Sub(had.at) < period && !moved(had.told, n):
			continue
		}
		status, err := proto.Marshal(n)
		if err != nil {
			continue
		}
		p := presence{Replica: f.id, Process: s.Process, Joined: s.Joined, Seen: s.Seen, Connected: s.Connected, Status: status}
		value, err := json.Marshal(p)
		if err != nil || len(value) > store.MaxValueBytes {
			continue
		}
		op := store.Op{Key: store.Key{Kind: kindPresence, Name: n.GetName()}, Value: value, If: store.AnyRevision}
		f.written[name] = written{p, now, n}
		if !s.Connected {
			delete(f.written, name)
			// It may have gone to another replica, which then has the word.
			e, ok := f.cache.Get(op.Key)
			if p := decodePresence(e); ok && p != nil && p.Replica != f.id {
				continue
			}
			op.If = e.Revision
		}
		ops = append(ops, op)
	}
	return ops
}

// moved reports whether something changed that others act on.
func moved(was, now *apiv1.NodeStatus) bool {
	a, b := was.GetReport(), now.GetReport()
	return a.GetDraining() != b.GetDraining() || !slices.Equal(a.GetResources(), b.GetResources()) || len(was.GetRejections()) != len(now.GetRejections()) ||
		a.GetRecordingsAside() != b.GetRecordingsAside() || len(a.GetTroubles()) != len(b.GetTroubles())
}

// commit writes as many at once as the store takes. Where one of them is not as it was,
// each goes alone, and those that are not are left out.
func (f *Fleet) commit(ctx context.Context, ops []store.Op) error {
	for part := range slices.Chunk(ops, store.MaxOps/4) {
		_, err := f.cfg.Store.Commit(ctx, part...)
		if !store.IsConflict(err) {
			if err != nil {
				return err
			}
			continue
		}
		for _, op := range part {
			if _, err := f.cfg.Store.Commit(ctx, op); err != nil && !store.IsConflict(err) {
				return err
			}
		}
	}
	return nil
}

func (f *Fleet) life(now time.Time) []byte {
	b, _ := json.Marshal(now) // a time always can
	return b
}

// others are the replicas that live, but for this one.
func (f *Fleet) others() []string {
	now := f.cfg.Now()
	var ids []string
	for e := range f.cache.View().All(kindReplica) {
		var seen time.Time
		if e.Name != f.id && json.Unmarshal(e.Value, &seen) == nil && now.Sub(seen) < silent {
			ids = append(ids, e.Name)
		}
	}
	return ids
}

// resign says that this replica stops.
func (f *Fleet) resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = f.cfg.Store.Commit(ctx, store.Op{Key: store.Key{Kind: kindReplica, Name: f.id}, Delete: true, If: store.AnyRevision})
}

// clean removes what replicas left that died.
func (f *Fleet) clean(ctx context.Context, now time.Time) error {
	var ops []store.Op
	for _, kind := range []string{kindReplica, kindCommand, kindAnswer} {
		entries, _, err := f.cfg.Store.List(ctx, kind, "", 0)
		if err != nil {
			return fmt.Errorf("list %s: %w", kind, err)
		}
		for _, e := range entries {
			var made struct{ Made time.Time }
			if kind == kindReplica {
				_ = json.Unmarshal(e.Value, &made.Made)
			} else {
				_ = json.Unmarshal(e.Value, &made)
			}
			if now.Sub(made.Made) > garbage && !strings.HasPrefix(e.Name, f.id) {
				ops = append(ops, store.Op{Key: e.Key, Delete: true, If: e.Revision})
			}
		}
	}
	return f.commit(ctx, ops)
}
