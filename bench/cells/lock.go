package cells

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"connectrpc.com/connect"

	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/parts"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/stats"
	"github.com/posterngate/postern/bench/targets"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/run"
)

const (
	// locked is who is locked out; the proof of other cells is alice's.
	locked = "alice"
	// farAway is the round trip from the control plane to the far node.
	farAway = 150 * time.Millisecond
)

// lockCell measures from the call that locks a subject to the end of what their session
// does: of its socket, and at a node far from the control plane of what it runs at the
// server.
func lockCell(ctx context.Context, e *Env, out *result.Cell) error {
	t, err := e.Targets.Get(targets.Postern)
	if err != nil {
		return err
	}
	far, err := e.House.Far(farAway)
	if err != nil {
		return err
	}
	defer func() { _ = far.Stop() }()
	farTarget := *t
	farTarget.Where = targets.At(far.PG, t.Where.User, t.Where.Password)
	ada, err := e.House.API("ada")
	if err != nil {
		return err
	}
	lock, err := parse(fmt.Sprintf("kind: Lock\nmetadata: {name: bench-cut}\nspec: {subject: %s, reason: to be measured}", locked))
	if err != nil {
		return err
	}
	once := func(ctx context.Context, t *targets.Target, over func(context.Context, net.Conn) error) (time.Duration, error) {
		c, err := e.open(ctx, t)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		began := time.Now()
		call := run.New(ctx) // which is answered when the farthest node has it
		call.Go("lock", func(ctx context.Context) error {
			_, err := ada.Policy.Create(ctx, connect.NewRequest(&apiv1.CreateRequest{Object: lock}))
			return err
		})
		err = over(ctx, c)
		took := time.Since(began)
		if err := errors.Join(call.Wait(), err); err != nil {
			return 0, err
		}
		_, err = ada.Policy.Delete(ctx, connect.NewRequest(&apiv1.DeleteRequest{Kind: "lock", Name: "bench-cut"}))
		return took, err
	}
	several := func(times int, t *targets.Target, over func(context.Context, net.Conn) error) func(context.Context) (map[string]float64, error) {
		return func(ctx context.Context) (map[string]float64, error) {
			var took []float64
			for range times {
				d, err := once(ctx, t, over)
				if err != nil {
					return nil, err
				}
				took = append(took, float64(d)/float64(time.Millisecond))
			}
			slices.Sort(took)
			return map[string]float64{"p50_ms": stats.Median(took), "p99_ms": took[len(took)-1]}, nil
		}
	}
	err = e.interleave(ctx, out, []job{
		{workload: "lock", target: "session", run: several(changes, t, closed)},
		{workload: "lock", target: "far", run: several(fewChanges, &farTarget, e.gone)},
	})
	if err != nil {
		return err
	}
	// The lock's end reaches the node a moment after the call.
	c, err := e.open(ctx, t)
	if err != nil {
		return err
	}
	_ = c.Close()
	out.Proof = append(out.Proof, "each session was cut off by the lock, and could come back after it")
	out.Notes = append(out.Notes, fmt.Sprintf("from the API call to the end of the client's socket, %d locks a round; at the far node, %s of round trip from the control plane, to the end of the session at the server, %d locks a round; p99 is the worst of them",
		changes, farAway, fewChanges))
	return e.prove(ctx, out, t)
}

// closed waits for the last words, and then the end.
func closed(_ context.Context, c net.Conn) error {
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.Copy(io.Discard, c); err != nil {
		return fmt.Errorf("the session was not closed: %w", err)
	}
	return nil
}

// gone waits until the server has no session of the far node's any more.
func (e *Env) gone(ctx context.Context, c net.Conn) error {
	if err := closed(ctx, c); err != nil {
		return err
	}
	for until := time.Now().Add(10 * time.Second); ; {
		rows, err := e.House.PG.Exec(ctx, house.Database, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'postern/%' AND usename = '"+house.Account+"'")
		if err != nil {
			return err
		}
		if rows[0][0] == "0" {
			return nil
		}
		if time.Now().After(until) {
			return errors.New("the session at the server goes on")
		}
	}
}

// open logs in and waits until that is let in again.
func (e *Env) open(ctx context.Context, t *targets.Target) (net.Conn, error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for late := time.After(15 * time.Second); ; {
		c, err := parts.Connect(ctx, t.Where)
		if err == nil {
			h, err := c.Hijack()
			if err != nil {
				return nil, err
			}
			return h.Conn, nil
		}
		select {
		case <-late:
			return nil, fmt.Errorf("log in: %w", err)
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-tick.C:
		}
	}
}
