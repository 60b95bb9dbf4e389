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

const (
	selectAll = "SELECT id, name, email, card, note, created FROM big"
	copyAll   = "COPY (SELECT id, name, email, card, note, created FROM big) TO STDOUT"
)

// A reading is one result that is read over and over.
type reading struct{ name, sql string }

func bulkCells() []Cell {
	return []Cell{
		{ID: "P7", Title: "SELECT and COPY of 100,000 rows, one client, plain and masked", Quick: true,
			run: bulkCell([]reading{{"select", selectAll}, {"copy", copyAll}}, targets.Direct, targets.PgBouncer, targets.Postern, targets.Masked)},
	}
}

func bulkCell(readings []reading, names ...string) func(context.Context, *Env, *result.Cell) error {
	return func(ctx context.Context, e *Env, out *result.Cell) error {
		all, err := e.targets(names...)
		if err != nil {
			return err
		}
		var jobs []job
		for _, t := range all {
			if err := e.prove(ctx, out, t); err != nil {
				return err
			}
			for _, r := range readings {
				j, stop, err := e.bulk(t, r)
				if err != nil {
					return fmt.Errorf("%s %s: %w", r.name, t.Name, err)
				}
				defer stop()
				jobs = append(jobs, j)
			}
		}
		return e.interleave(ctx, out, jobs)
	}
}

// bulk makes the job of one client that reads one result again and again. It stays
// connected over the rounds.
func (e *Env) bulk(t *targets.Target, r reading) (job, func(), error) {
	c, err := parts.Start(e.Dir+"/bulk.log", "bulk", parts.Bulk{Where: t.Where, SQL: r.sql}, &struct{}{})
	if err != nil {
		return job{}, nil, err
	}
	return job{
		workload: r.name, target: t.Name,
		warm: func(context.Context) error {
			var read parts.Read
			if err := c.Ask("1ns", &read); err != nil {
				return err
			}
			e.count(t, read)
			return nil
		},
		run: func(ctx context.Context) (map[string]float64, error) {
			if err := e.settle(ctx); err != nil {
				return nil, err
			}
			return e.readFor(t, c)
		},
	}, c.Stop, nil
}

func (e *Env) count(t *targets.Target, read parts.Read) { e.sent[t.Task] += int64(read.Queries) }

// readFor has the client read for a round. CPU times are those of just that time.
func (e *Env) readFor(t *targets.Target, c *child.Child) (map[string]float64, error) {
	control := e.House.Control.PID()
	gateway0, control0, server0, client0 := account.Total(t.Roots...), account.Total(control), account.Total(e.postgres), account.CPU(c.PID())
	var read parts.Read
	if err := c.Ask(time.Duration(e.Seconds*float64(time.Second)).String(), &read); err != nil {
		return nil, err
	}
	gateway := account.Total(t.Roots...) - gateway0
	e.count(t, read)
	mb := float64(read.Bytes) / 1e6
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) / mb }
	values := map[string]float64{
		"mb_s": mb / read.Took.Seconds(), "rows_s": float64(read.Rows) / read.Took.Seconds(), "mb": mb,
		"server_ms_mb": ms(account.Total(e.postgres) - server0), "client_ms_mb": ms(account.CPU(c.PID()) - client0),
	}
	if len(t.Roots) > 0 {
		values["gateway_ms_mb"] = ms(gateway)
		values["rss_mb"] = float64(account.RSS(t.Roots...)) / (1 << 20)
	}
	if t.Node {
		values["control_ms_mb"] = ms(account.Total(control) - control0)
	}
	return values, nil
}
