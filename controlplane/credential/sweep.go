package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// Run sweeps while this control plane leads: leases that were not renewed, whose grant
// is over or whose lending broke off are ended, and what a source would not end is
// tried again.
func (b *Broker) Run(ctx context.Context) error {
	return b.cfg.Store.Lead(ctx, "credential-sweeper", func(ctx context.Context, guard store.Op) error {
		s := sweeper{Broker: b, guard: guard, leases: store.NewCache(b.cfg.Store, b.cfg.Logger, Kind).WithoutStaleness(), ended: map[string]rest{}}
		return run.All(ctx, run.Part{Name: "follow the ledger", Run: s.leases.Run}, run.Part{Name: "sweep", Run: s.run})
	})
}

// A sweeper is one leader's. Most of the ledger has ended and waits to be forgotten: it
// follows what changes rather than read all of it again and again. What it knows may be
// old; it moves nothing that was moved since.
type sweeper struct {
	*Broker
	guard  store.Op
	leases *store.Cache
	ended  map[string]rest // leases that have ended, by name
}

// rest is an entry that needs no look while it has this revision.
type rest struct {
	revision int64
	since    time.Time
}

func (b *sweeper) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.leases.Ready():
	}
	tick := time.NewTicker(b.cfg.Sweep)
	defer tick.Stop()
	for {
		if err := b.sweep(ctx); err != nil && ctx.Err() == nil {
			b.cfg.Logger.WarnContext(ctx, "leases were not swept", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// sweep looks at every lease once. A source that does not answer is left alone for the rest of
// it: what others have lent must not wait for that.
func (b *sweeper) sweep(ctx context.Context) error {
	g := run.New(ctx)
	slots := make(chan struct{}, revokers)
	var silent sync.Map // sources
	over := map[postern.GrantID]bool{}
	var unread []error
	for e := range b.leases.View().All(Kind) {
		if r, ok := b.ended[e.Name]; ok && r.revision == e.Revision {
			continue
		}
		delete(b.ended, e.Name)
		one, err := decode(e)
		if err != nil {
			unread = append(unread, err)
			continue
		}
		if one.State == stateRevoked || one.State == stateExpired {
			b.ended[e.Name] = rest{e.Revision, one.Updated}
			continue
		}
		do := b.due(ctx, one, over)
		if do == nil {
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-g.Context().Done():
			return g.Wait()
		}
		if _, is := silent.Load(one.Source); is {
			<-slots
			continue
		}
		g.Go("sweep "+string(one.id), func(ctx context.Context) error {
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
			defer cancel()
			err := do(ctx, b.guard)
			if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
				silent.Store(one.Source, true)
			}
			if err != nil && !store.IsConflict(err) {
				b.cfg.Logger.WarnContext(ctx, "lease was not ended; it will be tried again", append(one.attrs(), slog.Any("error", err))...)
			}
			return nil
		})
	}
	return errors.Join(append(unread, g.Wait(), b.forget(ctx))...)
}

// forget drops what ended long ago, and of the rest all but the newest. What it cannot
// drop is found again by the next sweep.
func (b *sweeper) forget(ctx context.Context) error {
	names := slices.SortedFunc(maps.Keys(b.ended), func(x, y string) int { return b.ended[y].since.Compare(b.ended[x].since) })
	kept := 0
	for kept < min(len(names), maxEnded) && b.now().Sub(b.ended[names[kept]].since) <= keepEnded {
		kept++
	}
	for some := range slices.Chunk(names[kept:], store.MaxOps-1) {
		ops := []store.Op{b.guard}
		for _, name := range some {
			ops = append(ops, store.Op{Key: b.ledger.key(postern.LeaseID(name)), Delete: true, If: b.ended[name].revision})
			delete(b.ended, name)
		}
		if _, err := b.cfg.Store.Commit(ctx, ops...); err != nil && !store.IsConflict(err) {
			return fmt.Errorf("forget %d leases that ended: %w", len(some), err)
		}
	}
	return nil
}

// due is what must be done with a lease now, or nil.
func (b *Broker) due(ctx context.Context, one lease, over map[postern.GrantID]bool) func(context.Context, store.Op) error {
	now := b.now()
	end := func(why string) func(context.Context, store.Op) error {
		return func(ctx context.Context, guard store.Op) error { return b.end(ctx, &one, why, guard) }
	}
	switch one.State {
	case stateIntent, stateToken:
		if now.Sub(one.Updated) > issueTimeout {
			return end("lending broke off")
		}
	case stateActive:
		if !now.Before(one.Expires) && !hole.Is("lease-unswept") {
			return end("not renewed in time")
		}
		if why := b.orphaned(&one); why != "" {
			return end(why)
		}
		if one.Grant != "" && b.grantOver(ctx, one.Grant, over) {
			return end("its grant is over")
		}
	case stateRevoking:
		if !now.Before(one.NextTry) {
			return end(one.Reason)
		}
	case stateRevoked, stateExpired: // they are forgotten
	case stateIrrevocable: // stays for people to see
	}
	return nil
}

// orphaned says why nobody uses a lease that lives, or nothing. A process that is gone
// has no sessions; a node that is silent for too long has ended its own.
func (b *Broker) orphaned(one *lease) string {
	process, joined, seen := b.cfg.Last(one.Node)
	switch {
	case one.Process != "" && process != "" && process != one.Process && joined.After(one.Created):
		return "its node has been started anew"
	case !seen.IsZero() && seen.After(one.Created.Add(-awaySlack)) && b.now().Sub(seen) > b.alone(one):
		return "its node has been away for longer than it may go on alone"
	}
	return ""
}

// grantOver asks once a sweep for each grant. While the answer cannot be had, the
// lease's own end bounds it.
func (b *Broker) grantOver(ctx context.Context, id postern.GrantID, known map[postern.GrantID]bool) bool {
	if is, ok := known[id]; ok {
		return is
	}
	g, err := b.cfg.Policy.Grant(ctx, id)
	is := err == nil && over(g, b.now()) || err != nil && fault.CodeOf(err) == codes.NotFound
	known[id] = is
	return is
}

// end takes a lease to its end: first on file, then at the source, then on file again; just
// on file where the source has nothing of it.
// Where the source fails the lease stays REVOKING, and the error says why.
func (b *Broker) end(ctx context.Context, one *lease, why string, with ...store.Op) error {
	b.replies.drop(one.id)
	if one.spent() {
		return b.finish(ctx, one, why, with...)
	}
	if one.State != stateRevoking {
		// The sweeper leaves this try its time.
		if err := b.put(ctx, one, why, b.now().Add(revokeTimeout), with...); err != nil {
			return err
		}
	}
	if err := b.revoke(ctx, *one); err != nil {
		return errors.Join(err, b.putOff(ctx, one, err, with...))
	}
	return b.finish(ctx, one, one.Reason, with...)
}

// spent reports whether a lease ends by being on file as ended: it is lent, and its source
// has nothing of it.
func (l *lease) spent() bool { return l.State == stateActive && len(l.Handle) == 0 }

// finish writes that a lease has ended.
func (b *Broker) finish(ctx context.Context, one *lease, why string, with ...store.Op) error {
	to := stateRevoked
	if !b.now().Before(one.Expires) {
		to = stateExpired
	}
	err := b.ledger.move(ctx, one, to, func(l *lease) { l.Handle, l.Reason, l.Problem, l.NextTry = nil, why, "", time.Time{} }, with...)
	if err != nil {
		return err
	}
	b.cfg.Logger.InfoContext(ctx, "credential taken back", append(one.attrs(), slog.String("reason", one.Reason))...)
	return nil
}

// put writes that a lease must end, and when the sweeper may do it.
func (b *Broker) put(ctx context.Context, one *lease, why string, next time.Time, with ...store.Op) error {
	return b.ledger.move(ctx, one, stateRevoking, func(l *lease) { l.Reason, l.NextTry = why, next }, with...)
}

func (b *Broker) revoke(ctx context.Context, one lease) error {
	handle, err := b.ledger.open(ctx, one)
	if err != nil || handle == nil {
		return err
	}
	source := b.source(one.Source)
	if source == nil {
		return fmt.Errorf("this control plane has no source %q", one.Source)
	}
	return source.Revoke(ctx, handle)
}

// putOff writes when to try again, or gives up once the credential must have ended by
// itself long ago.
func (b *Broker) putOff(ctx context.Context, one *lease, problem error, with ...store.Op) error {
	// The try may have used up its time.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
	defer cancel()
	now := b.now()
	to := stateRevoking
	if now.After(one.Until.Add(overrun + giveUp)) {
		to = stateIrrevocable
	}
	err := b.ledger.move(ctx, one, to, func(l *lease) {
		l.Tries++
		l.Problem = problem.Error()
		l.NextTry = now.Add(min(5*time.Second<<min(l.Tries, 6), 5*time.Minute))
	}, with...)
	if err == nil && to == stateIrrevocable {
		b.cfg.Logger.ErrorContext(ctx, "credential could not be revoked: look at it by hand", append(one.attrs(), slog.Any("error", problem))...)
	}
	return err
}
