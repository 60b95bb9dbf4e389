package cells

import (
	"context"
	"fmt"
	"time"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/child"
	"github.com/posterngate/postern/bench/parts"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
)

func loginCells() []Cell {
	return []Cell{
		{ID: "P11", Title: "a connection for each statement, 4 clients", run: loginCell},
		{ID: "P13", Title: "memory of sessions that do nothing", run: idleCell},
	}
}

func loginCell(ctx context.Context, e *Env, out *result.Cell) error {
	var jobs []job
	for workload, names := range map[string][]string{
		"plain": {targets.Direct, targets.Trust, targets.PgBouncer, targets.Postern, targets.Pool},
		"tls":   {targets.BouncerTLS, targets.PlainTLS, targets.PoolTLS},
	} {
		all, err := e.targets(names...)
		if err != nil {
			return err
		}
		for _, t := range all {
			if err := e.prove(ctx, out, t); err != nil {
				return err
			}
			j, err := e.pgbench(out, t, shape{name: workload, script: selectOnly, mode: "simple", clients: 4, connect: true})
			if err != nil {
				return err
			}
			jobs = append(jobs, j)
		}
	}
	out.Notes = append(out.Notes, "postern is without reuse: each connection is a login at the server, and at the node a grant and a lease beside; pool is with `reuse: pool`")
	return e.interleave(ctx, out, jobs)
}

// idleSessions is how many sessions are held.
const idleSessions = 400

// idleCell measures resident memory in a gateway that was just started: what it has held
// once it keeps.
func idleCell(ctx context.Context, e *Env, out *result.Cell) error {
	all, err := e.targets(targets.PgBouncer, targets.Postern, targets.PlainTLS)
	if err != nil {
		return err
	}
	var jobs []job
	for _, t := range all {
		if err := e.prove(ctx, out, t); err != nil {
			return err
		}
		jobs = append(jobs, job{workload: "idle", target: t.Name, restarts: true, run: func(ctx context.Context) (map[string]float64, error) {
			return e.idle(ctx, t.Name)
		}})
	}
	out.Notes = append(out.Notes, fmt.Sprintf("%d sessions, each of which has run a statement; resident memory of a gateway that was started for it", idleSessions))
	return e.interleave(ctx, out, jobs)
}

func (e *Env) idle(ctx context.Context, name string) (map[string]float64, error) {
	t, err := e.fresh(ctx, name)
	if err != nil {
		return nil, err
	}
	hold := func(n int) (*child.Child, error) {
		c, err := parts.Start(e.Dir+"/idle.log", "idle", parts.Idle{Where: t.Where, Sessions: n, SQL: probe}, &struct{}{})
		e.sent[t.Task] += int64(n)
		return c, err
	}
	few, err := hold(10) // what the first sessions cost is not that of a session
	if err != nil {
		return nil, err
	}
	defer few.Stop()
	before, err := e.rested(ctx, t)
	if err != nil {
		return nil, err
	}
	many, err := hold(idleSessions)
	if err != nil {
		return nil, err
	}
	defer many.Stop()
	after, err := e.rested(ctx, t)
	if err != nil {
		return nil, err
	}
	if t.Node && e.Profile != "" {
		if err := save(ctx, e.House.Node.Debug, "/debug/pprof/heap?gc=1", e.profileName("idle", name)); err != nil {
			return nil, err
		}
	}
	return map[string]float64{"kb_session": float64(after-before) / 1024 / idleSessions, "rss_mb": float64(after) / (1 << 20)}, nil
}

// fresh starts a gateway anew.
func (e *Env) fresh(ctx context.Context, name string) (*targets.Target, error) {
	t, err := e.Targets.Get(name)
	if err != nil {
		return nil, err
	}
	if !t.Node {
		e.Targets.Forget(name)
		return e.Targets.Get(name)
	}
	if err := e.settle(ctx); err != nil {
		return nil, err
	}
	if err := e.House.RestartNode(); err != nil {
		return nil, fmt.Errorf("start the node anew: %w", err)
	}
	return e.Targets.Get(name)
}

// rested is the gateway's resident memory once it has done what it had to do.
func (e *Env) rested(ctx context.Context, t *targets.Target) (int64, error) {
	if err := e.settle(ctx); err != nil {
		return 0, err
	}
	select {
	case <-time.After(300 * time.Millisecond):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return account.RSS(t.Roots...), nil
}
