package fleet

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	// maxReceiptWait bounds the wait of Receipt for nodes.
	maxReceiptWait = 4 * time.Second
	// maxEnforced is how many nodes one answer tells of, so that the store takes it; of
	// the rest is said that they have not confirmed.
	maxEnforced = 1000
	// boundSlack is how much later than policy says a node that is cut off may see it.
	boundSlack = 2 * time.Second
)

// Receipt tells which nodes of the whole fleet enforce a version. It waits until all
// that are connected do, for wait at most, and a little longer for other replicas.
func (f *Fleet) Receipt(ctx context.Context, v postern.Version, wait time.Duration) *apiv1.Receipt {
	wait = min(wait, maxReceiptWait)
	var mu sync.Mutex
	enforced := map[postern.NodeName]int64{}
	take := func(some map[postern.NodeName]int64) {
		mu.Lock()
		defer mu.Unlock()
		for name, at := range some {
			enforced[name] = at
		}
	}
	g := run.New(ctx)
	g.Go("own nodes", func(ctx context.Context) error {
		take(f.enforced(ctx, v, wait))
		return nil
	})
	if others := f.others(); len(others) > 0 {
		g.Go("nodes of other replicas", func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, wait+time.Second)
			defer cancel()
			err := f.ask(ctx, command{Await: &v, Wait: wait}, others, func(a answer) (bool, error) {
				take(a.Enforced)
				return false, nil
			})
			if err != nil && ctx.Err() == nil {
				f.cfg.Logger.WarnContext(ctx, "other replicas were not asked what their nodes enforce", "error", err)
			}
			return nil // what is not known is pending
		})
	}
	_ = g.Wait() // neither part fails
	return f.receipt(v, enforced)
}

// enforced is what the nodes of this replica have confirmed.
func (f *Fleet) enforced(ctx context.Context, v postern.Version, wait time.Duration) map[postern.NodeName]int64 {
	ctx, cancel := context.WithTimeout(ctx, min(wait, maxReceiptWait))
	defer cancel()
	out := map[postern.NodeName]int64{}
	for name, at := range f.cfg.Hub.Await(ctx, v) {
		if len(out) < maxEnforced {
			out[name] = at.UnixMilli()
		}
	}
	return out
}

// receipt holds what is confirmed against all nodes that there are. One that is cut off
// ends its sessions when what it knows is too old for every task.
func (f *Fleet) receipt(v postern.Version, enforced map[postern.NodeName]int64) *apiv1.Receipt {
	now := f.cfg.Now()
	alone := f.cfg.Hub.Snapshot().Alone() + boundSlack
	r := &apiv1.Receipt{Version: &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision}, Time: timestamppb.New(now)}
	worst := now
	for _, n := range f.Nodes() {
		one := &apiv1.NodeReceipt{Node: n.GetName(), Region: n.GetRegion(), Connected: n.GetConnected(), LastSeen: n.GetLastSeen()}
		r.Nodes = append(r.Nodes, one)
		if at, ok := enforced[postern.NodeName(n.GetName())]; ok {
			one.EnforcedTime = timestamppb.New(time.UnixMilli(at))
			continue
		}
		by := now.Add(alone)
		if n.GetLastSeen() != nil && !n.GetConnected() {
			by = n.GetLastSeen().AsTime().Add(period + alone) // it may have been heard of by so much later
		}
		one.WorstCaseTime = timestamppb.New(by)
		if by.After(worst) {
			worst = by
		}
	}
	if worst.After(now) {
		r.WorstCaseTime = timestamppb.New(worst)
	}
	return r
}
