package task

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// retryAfter is how long Run waits after the store failed.
const retryAfter = time.Second

// Run ends grants when their time is over or their ground has gone, within a second of
// the change, and forgets those that are long over. Every replica runs it: two that do
// the same at once do no harm.
func (s *Service) Run(ctx context.Context) error {
	return run.All(ctx,
		run.Part{Name: "follow grants", Run: s.cache.Run},
		run.Part{Name: "end grants", Run: func(ctx context.Context) error {
			for ctx.Err() == nil {
				if err := s.tend(ctx); err != nil && ctx.Err() == nil {
					s.cfg.Logger.WarnContext(ctx, "grants are not looked after; retrying", "error", err)
					run.Pause(ctx, retryAfter)
				}
			}
			return ctx.Err()
		}},
	)
}

// known is a grant as it was looked at last.
type known struct {
	revision int64
	grant    *typesv1.Grant
}

// tend looks after all grants until something fails.
func (s *Service) tend(ctx context.Context) error {
	changed, stop := s.cfg.Changed()
	defer stop()
	moved, cancel := s.cache.Subscribe()
	defer cancel()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.cache.Ready():
	}
	seen := map[string]known{}
	all := true
	for {
		if _, err := s.policy(); err != nil {
			// Without policy every grant would seem to have no ground.
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
				continue
			}
		}
		next, err := s.pass(ctx, seen, all)
		if err != nil {
			return err
		}
		timer := time.NewTimer(keep)
		if !next.IsZero() {
			timer.Reset(next.Sub(s.cfg.Now()))
		}
		all = false
		select {
		case <-ctx.Done():
		case <-moved:
		case <-changed:
			all = true
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// pass ends and forgets what is due, and says when the next is. It asks whether a grant
// still has its ground where the grant is new to it, or of all. A grant with which something
// fails does not keep it from the others.
func (s *Service) pass(ctx context.Context, seen map[string]known, all bool) (time.Time, error) {
	var next time.Time
	here := map[string]bool{}
	counts := map[who]count{}
	past := map[who][]known{}
	var failed run.Failures
	for e := range s.cache.View().All(Kind) {
		here[e.Name] = true
		k, ok := seen[e.Name]
		fresh := !ok || k.revision != e.Revision
		if fresh {
			g, err := decode(e)
			if err != nil {
				failed.Add(err)
				continue
			}
			k = known{e.Revision, g}
		}
		due, err := s.look(ctx, k, fresh || all)
		failed.Add(err)
		if err == nil {
			seen[e.Name] = k
		}
		w := who{k.grant.GetSubject().GetName(), k.grant.GetSubject().GetWorkload()}
		n := counts[w]
		switch now := s.cfg.Now(); {
		case Live(k.grant, now) || waiting(k.grant):
			n.live++
		case now.Before(k.grant.GetEndTime().AsTime()):
			n.ended++
		default:
			past[w] = append(past[w], k)
		}
		counts[w] = n
		if !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	for _, over := range past {
		failed.Add(s.forgetOldest(ctx, over))
	}
	if all {
		failed.Add(s.forgetClosed(ctx))
	}
	s.counts.Store(&counts)
	for name := range seen {
		if !here[name] {
			delete(seen, name)
		}
	}
	return next, failed.Err()
}

// look does what is due for one grant, and says when it must be looked at again; zero
// is once it has changed.
func (s *Service) look(ctx context.Context, k known, ground bool) (time.Time, error) {
	g, now := k.grant, s.cfg.Now()
	system := audit.Entry{Actor: "system"}
	given, err := s.givenOver(g)
	if err != nil {
		return time.Time{}, err
	}
	closed, err := s.closed(g)
	if err != nil {
		return time.Time{}, err
	}
	snapshot, err := s.policy()
	if err != nil {
		return time.Time{}, err
	}
	end, why := until(g, snapshot)
	switch {
	case g.GetState() == typesv1.GrantState_GRANT_STATE_ACTIVE && !now.Before(end):
		return time.Time{}, s.end(ctx, g.GetId(), system, why)
	case (g.GetState() == typesv1.GrantState_GRANT_STATE_ACTIVE || waiting(g)) && closed:
		return time.Time{}, s.end(ctx, g.GetId(), system, closedText(g.GetBound()))
	case g.GetState() == typesv1.GrantState_GRANT_STATE_ACTIVE && given != "":
		return time.Time{}, s.end(ctx, g.GetId(), system, given)
	case g.GetState() == typesv1.GrantState_GRANT_STATE_ACTIVE, waiting(g):
		if ground {
			why, err := s.unfounded(ctx, g, nil)
			if err != nil {
				return time.Time{}, err
			}
			if why != "" {
				return time.Time{}, s.end(ctx, g.GetId(), system, why)
			}
		}
		if waiting(g) {
			return time.Time{}, nil // its hold has an end
		}
		return end, nil
	}
	due := last(g)
	if !now.Before(due) { // it counts no more as one that ended before its time
		due = due.Add(keep)
	}
	if now.Before(due) {
		return due, nil
	}
	return time.Time{}, s.forget(ctx, k)
}

// last is when a grant was over at the latest.
func last(g *typesv1.Grant) time.Time {
	if g.GetEndTime() != nil {
		return g.GetEndTime().AsTime()
	}
	return g.GetCreateTime().AsTime()
}

// forgetOldest forgets, of one subject's grants whose time is over, all but the newest.
func (s *Service) forgetOldest(ctx context.Context, over []known) error {
	if len(over) <= maxKept {
		return nil
	}
	slices.SortFunc(over, func(a, b known) int { return last(b.grant).Compare(last(a.grant)) })
	for _, k := range over[maxKept:] {
		if err := s.forget(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// forget removes a grant that is long over, where it was opened, and the pointers to it.
func (s *Service) forget(ctx context.Context, k known) error {
	g := k.grant
	if err := s.forgetOpenings(ctx, g.GetId()); err != nil {
		return err
	}
	ops := []store.Op{{Key: grantKey(g.GetId()), Delete: true, If: k.revision}}
	snapshot, err := s.policy()
	if err != nil {
		return err
	}
	for _, kind := range []string{takenKind, askedKind} {
		e, err := s.cfg.Store.Get(ctx, pointer(kind, snapshot, noun.SubjectOf(g.GetSubject()), postern.TaskName(g.GetTask())))
		switch {
		case err == nil && string(e.Value) == g.GetId():
			ops = append(ops, store.Op{Key: e.Key, Delete: true, If: e.Revision})
		case err != nil && !errors.Is(err, store.ErrNotFound):
			return err
		}
	}
	if _, err := s.cfg.Store.Commit(ctx, ops...); err != nil && !store.IsConflict(err) {
		return err
	}
	return nil
}
