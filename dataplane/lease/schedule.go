package lease

import (
	"container/heap"
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	renewers       = 8                // renewals at once
	renewTimeout   = 10 * time.Second // of one renewal
	retryLeast     = time.Second      // between renewals that failed
	releaseTimeout = 5 * time.Second  // of all releases when the node stops
)

// plan is when to look at a lease again.
type plan struct {
	at    time.Time
	renew bool // else it ends then
	index int  // in the heap, from 1; 0 is not in it
}

// planned is a heap of leases, the next one first.
type planned []*Lease

func (p planned) Len() int           { return len(p) }
func (p planned) Less(i, j int) bool { return p[i].plan.at.Before(p[j].plan.at) }
func (p planned) Swap(i, j int) {
	p[i], p[j] = p[j], p[i]
	p[i].plan.index, p[j].plan.index = i+1, j+1
}
func (p *planned) Push(x any) {
	l := x.(*Lease)
	*p = append(*p, l)
	l.plan.index = len(*p)
}
func (p *planned) Pop() any {
	last := len(*p) - 1
	l := (*p)[last]
	(*p)[last] = nil
	*p = (*p)[:last]
	l.plan.index = 0
	return l
}

func (p *planned) remove(l *Lease) {
	if l.plan.index > 0 {
		heap.Remove(p, l.plan.index-1)
	}
}

// schedule plans the next look at l; b.mu is held.
func (b *Book) schedule(l *Lease, renewAt *timestamppb.Timestamp) {
	end := l.end()
	if at := renewAt.AsTime(); renewAt.IsValid() && at.Before(end) {
		b.plan(l, at, true)
		return
	}
	b.plan(l, end, false)
}

func (b *Book) plan(l *Lease, at time.Time, renew bool) {
	b.plans.remove(l)
	l.plan.at, l.plan.renew = at, renew
	heap.Push(&b.plans, l)
	if b.plans[0] == l {
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}

// Run renews leases and ends those that expire, until ctx is done; then it gives back
// what is left.
func (b *Book) Run(ctx context.Context) error {
	g := run.New(ctx)
	slots := make(chan struct{}, renewers)
	for ctx.Err() == nil {
		l, renew, wait := b.next()
		if l == nil {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-b.wake:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		if !renew {
			l.finish(l.expired())
			continue
		}
		select {
		case <-ctx.Done():
		case slots <- struct{}{}:
			g.Go("renew", func(ctx context.Context) error {
				defer func() { <-slots }()
				b.renew(ctx, l)
				return nil
			})
		}
	}
	err := g.Wait()
	b.giveBack(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	return ctx.Err()
}

// next takes a lease that is due out of the plan, or says how long nothing is.
func (b *Book) next() (l *Lease, renew bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.plans) == 0 {
		return nil, false, time.Hour
	}
	first := b.plans[0]
	if wait := first.plan.at.Sub(b.now()); wait > 0 {
		return nil, false, wait
	}
	heap.Pop(&b.plans)
	return first, first.plan.renew, 0
}

// renew asks once for more time, and plans what is next.
func (b *Book) renew(ctx context.Context, l *Lease) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	resp, err := b.cfg.Control.RenewLease(ctx, &nodev1.RenewLeaseRequest{Lease: string(l.id)})
	if err != nil && final(err) {
		l.finish(&postern.Refusal{
			Code: postern.CodeKilled, Reason: "the credential for resource \"" + string(l.resource) + "\" was revoked",
			Hint: "connect again", Cause: err,
		})
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leases[l.id] != l {
		return // it ended meanwhile
	}
	if err != nil || !resp.GetExpireTime().IsValid() {
		b.cfg.Logger.WarnContext(ctx, "lease was not renewed", slog.String("lease", string(l.id)), slog.Any("error", err))
		left := l.end().Sub(b.now())
		if again := max(left/8, retryLeast); again < left {
			b.plan(l, b.now().Add(again), true)
		} else {
			b.plan(l, l.end(), false)
		}
		return
	}
	l.mu.Lock()
	l.expires = resp.GetExpireTime().AsTime()
	l.mu.Unlock()
	b.schedule(l, resp.GetRenewTime())
}

// final reports whether the control plane knows that the lease is over.
func final(err error) bool {
	var r *postern.Refusal
	if errors.As(err, &r) {
		return r.Code == postern.CodeKilled || r.Code == postern.CodeDenied || r.Code == postern.CodeNoGrant
	}
	switch fault.CodeOf(err) {
	case codes.FailedPrecondition, codes.PermissionDenied, codes.NotFound:
		return true
	default:
		return false
	}
}

// giveBack ends everything: here for certain, at the control plane if it answers soon.
func (b *Book) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	b.mu.Lock()
	b.closed = true
	left := make([]*Lease, 0, len(b.leases))
	for _, l := range b.leases {
		left = append(left, l)
	}
	b.mu.Unlock()
	for _, l := range left {
		l.finish(errStopped)
	}
	g := run.New(ctx)
	slots := make(chan struct{}, renewers)
	for _, l := range left {
		slots <- struct{}{}
		g.Go("release", func(ctx context.Context) error {
			defer func() { <-slots }()
			if err := l.Release(ctx); err != nil {
				b.cfg.Logger.WarnContext(ctx, "lease was not given back; it ends when it is not renewed", slog.String("lease", string(l.id)), slog.Any("error", err))
			}
			return nil
		})
	}
	_ = g.Wait()
}
