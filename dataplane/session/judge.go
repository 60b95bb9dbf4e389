package session

import (
	"context"
	"fmt"
	"time"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// Run judges every live session anew at each change of policy and as time passes, and
// ends those whose right is gone. When ctx is done it ends them all.
func (k *Keeper) Run(ctx context.Context) error {
	changed, stop := k.cfg.Snapshots.Subscribe()
	defer stop()
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	g := run.New(ctx)
	defer func() { _ = g.Wait() }()
	for {
		k.reconsider()
		k.endIdle()
		k.sweepPools(g)
		select {
		case <-ctx.Done():
			k.KillAll("the node is stopping")
			k.endPools(g)
			return ctx.Err()
		case <-changed:
		case <-tick.C:
		}
	}
}

func (k *Keeper) reconsider() {
	for _, s := range k.live() {
		if r := k.judge(s); r != nil {
			s.Kill(r)
		}
	}
}

// unkeptFor is how long records may not be kept before sessions end in which nothing runs:
// room is made again within it where there is any.
const unkeptFor = time.Second

// endIdle ends sessions in which nothing runs while nothing can be recorded: whatever they
// asked would be refused, and they hold what others could use at another node.
func (k *Keeper) endIdle() {
	why := k.cfg.Records.Healthy()
	now := k.cfg.Now()
	switch {
	case why == nil:
		k.unkept = time.Time{}
		return
	case k.unkept.IsZero():
		k.unkept = now
	}
	if now.Sub(k.unkept) < unkeptFor {
		return
	}
	for _, s := range k.live() {
		if s.idle() {
			s.Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "this session could not be recorded any more, so it was ended", Hint: "connect again: another node may answer; tell the operators", Cause: why})
		}
	}
}

// judge says why a live session must end, or nil.
func (k *Keeper) judge(s *Session) *postern.Refusal {
	now := k.cfg.Now()
	snap := k.cfg.Snapshots.Current()
	if r := k.over(s.grant, now); r != nil {
		return r
	}
	if r := k.restored(s.grant); r != nil {
		return r
	}
	terms, ok := snap.Terms(s.grant.Task)
	if !ok {
		return &postern.Refusal{Code: postern.CodeKilled, Reason: fmt.Sprintf("task %q is no longer served here", s.grant.Task)}
	}
	if s.terms.Own && !terms.Unrestricted {
		// Nothing was held fixed in it, under which statements could now be judged.
		return &postern.Refusal{Code: postern.CodeKilled, Reason: fmt.Sprintf("task %q no longer allows everything", s.grant.Task), Hint: "connect again"}
	}
	if err := k.fresh(terms, true); err != nil {
		r := postern.AsRefusal(err)
		r.Code = postern.CodeKilled
		return r
	}
	if err := s.loanEnded(); err != nil {
		return &postern.Refusal{Code: postern.CodeKilled, Reason: "the credential behind this session has ended", Hint: "connect again", Cause: err}
	}
	if terms.Session > 0 && now.Sub(s.client.Time) > terms.Session {
		return &postern.Refusal{Code: postern.CodeKilled, Reason: fmt.Sprintf("task %q allows sessions of %s", s.grant.Task, terms.Session), Rule: string(s.grant.Task) + policy.LimitsSuffix}
	}
	if r := s.reconsider(snap, now); r != nil && !hole.Is("session-unjudged") {
		r.Code = postern.CodeKilled
		return r
	}
	return nil
}
