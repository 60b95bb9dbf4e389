package cells

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/parts"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/stats"
	"github.com/posterngate/postern/bench/targets"
	"github.com/posterngate/postern/pkg/pgbench"
	"github.com/posterngate/postern/pkg/run"
)

// window is how long each part of a soak runs before it is looked at.
const window = 20 * time.Second

// steady is the load of a soak: well below what the node can do, so that what grows is
// the node's and not a queue's.
var steady = []struct {
	target string
	shape
	rate int // transactions a second, all clients together
}{
	{targets.Masked, shape{name: "prepared c=4", script: person, mode: "prepared", clients: 4}, 400},
	{targets.PlainTLS, shape{name: "simple c=2", script: selectOnly, mode: "simple", clients: 2}, 200},
	{targets.Postern, shape{name: "connect c=1", script: selectOnly, mode: "extended", clients: 1, connect: true}, 5},
}

func soakCells() []Cell {
	return []Cell{{ID: "R1", Title: "mixed load for a long time: by key and in bulk, masked, by TLS, sessions that come and go", Soak: true, run: soak}}
}

// soak runs the steady load window by window. Memory and latencies are compared within
// the run, behind its first fifth, in which caches fill.
func soak(ctx context.Context, e *Env, out *result.Cell) error {
	n := int(e.Soak / window)
	if n < 15 {
		return fmt.Errorf("%s are %d windows of %s, and 15 is the least that tells a slope", e.Soak, n, window)
	}
	on := map[string]*targets.Target{}
	for _, l := range steady {
		t, err := e.Targets.Get(l.target)
		if err != nil {
			return err
		}
		if err := e.prove(ctx, out, t); err != nil {
			return err
		}
		on[l.target] = t
	}
	masked := on[targets.Masked]
	bulk, err := parts.Start(e.Dir+"/soak.log", "bulk", parts.Bulk{Where: masked.Where, SQL: copyAll}, &struct{}{})
	if err != nil {
		return err
	}
	defer bulk.Stop()
	memory, control, p99 := make([]float64, 0, n), make([]float64, 0, n), make([]float64, 0, n)
	for i := range n {
		w := account.Others()
		g := run.New(ctx)
		var latencies *pgbench.Transactions
		done := make([]int, len(steady))
		for k, l := range steady {
			g.Go(l.name, func(ctx context.Context) error {
				tx, err := e.steadily(ctx, on[l.target], l.shape, l.rate)
				if err != nil {
					return fmt.Errorf("%s %s: %w", l.name, l.target, err)
				}
				if done[k] = tx.Done; k == 0 {
					latencies = tx
				}
				return nil
			})
		}
		var read parts.Read
		g.Go("bulk", func(context.Context) error { return bulk.Ask("1ns", &read) })
		if err := g.Wait(); err != nil {
			return err
		}
		if latencies == nil {
			return errors.New("pgbench said nothing")
		}
		for k, l := range steady {
			e.sent[on[l.target].Task] += int64(done[k])
		}
		e.count(masked, read)
		memory = append(memory, float64(account.RSS(masked.Roots...))/(1<<20))
		control = append(control, float64(account.RSS(e.House.Control.PID()))/(1<<20))
		p99 = append(p99, float64(latencies.Percentile(.99))/float64(time.Microsecond))
		out.Samples = append(out.Samples, result.Sample{Round: i + 1, Workload: "window", Target: targets.Postern, Others: w.Share(),
			Values: map[string]float64{"rss_mb": memory[i], "control_rss_mb": control[i], "p99_us": p99[i]}})
		fmt.Fprintf(e.Log, "     window %d of %d: node %.0f MB, control plane %.0f MB, p99 %.0f us\n", i+1, n, memory[i], control[i], p99[i])
	}
	warm, sixth := n/5, max(2, n/6)
	out.Samples = append(out.Samples, result.Sample{Round: 1, Workload: "whole", Target: targets.Postern, Values: map[string]float64{
		"rss_drift_percent":         100 * stats.Drift(memory[warm:]),
		"control_rss_drift_percent": 100 * stats.Drift(control[warm:]),
		"p99_last_over_first":       stats.Median(p99[n-sixth:]) / stats.Median(p99[warm:warm+sixth]),
	}})
	return nil
}

// steadily runs one shape for a window, so many transactions a second.
func (e *Env) steadily(ctx context.Context, t *targets.Target, s shape, rate int) (*pgbench.Transactions, error) {
	file, err := e.script("soak-"+s.mode+"-"+t.Name, s.script)
	if err != nil {
		return nil, err
	}
	p := pgbench.Run{Program: e.House.PG.Pgbench, Env: t.Where.Env(), Script: file, Mode: s.mode, Clients: s.clients, Each: rate * int(window/time.Second) / s.clients,
		Scale: house.Scale, Reconnect: s.connect, Rate: rate}
	tx, err := p.Do(ctx, e.Dir)
	if err != nil {
		return nil, err
	}
	if tx.Failed > 0 || tx.Done != p.Each*p.Clients {
		return nil, fmt.Errorf("%d of %d transactions were done, %d failed", tx.Done, p.Each*p.Clients, tx.Failed)
	}
	return tx, nil
}
