package cells

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
	"github.com/posterngate/postern/pkg/pgbench"
	"github.com/posterngate/postern/pkg/run"
)

// selectOnly is what pgbench -S runs, in a script of its own so that pgbench asks the
// server for nothing else.
const selectOnly = "\\set aid random(1, 100000 * :scale)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"

// person reads one row of a table of which a column may be masked.
const person = "\\set id random(1, 100000)\nSELECT id, name, email FROM people WHERE id = :id;\n"

var personShape = shape{name: "prepared c=8", script: person, mode: "prepared", clients: 8}

// A shape is one way to run a script.
type shape struct {
	name    string
	script  string
	mode    string
	clients int
	connect bool // anew for each transaction
}

func point() []Cell {
	shapes := func(mode string, clients ...int) (out []shape) {
		for _, c := range clients {
			out = append(out, shape{name: fmt.Sprintf("%s c=%d", mode, c), script: selectOnly, mode: mode, clients: c})
		}
		return out
	}
	return []Cell{
		{ID: "P1", Title: "pgbench -S, prepared, 8 clients", Quick: true,
			run: pgbenchCell(shapes("prepared", 8), targets.Direct, targets.PgBouncer, targets.Postern, targets.Pool)},
		{ID: "P2", Title: "pgbench -S, simple and extended, 8 clients", Quick: true,
			run: pgbenchCell(append(shapes("simple", 8), shapes("extended", 8)...), targets.Direct, targets.PgBouncer, targets.Postern, targets.Pool)},
		{ID: "P3", Title: "pgbench -S, prepared, 32 and 128 clients",
			run: pgbenchCell(shapes("prepared", 32, 128), targets.Direct, targets.PgBouncer, targets.Postern, targets.Pool)},
		{ID: "P5", Title: "latency with 1 and 8 clients",
			run: pgbenchCell(shapes("prepared", 1, 8), targets.Direct, targets.PgBouncer, targets.Postern, targets.Pool)},
		{ID: "P6", Title: "against a proxy that decodes every message",
			run: pgbenchCell(shapes("prepared", 8), targets.Direct, targets.HAProxy, targets.Splice, targets.Naive, targets.Postern)},
		{ID: "P10", Title: "clients by TLS, 8 of them",
			run: pgbenchCell(shapes("prepared", 8), targets.Direct, targets.BouncerTLS, targets.PlainTLS, targets.PoolTLS)},
		{ID: "P16", Title: "one row by key, masked and not, 8 clients",
			run: pgbenchCell([]shape{personShape}, targets.Direct, targets.Postern, targets.Masked)},
		{ID: "ladder", Title: "what each part costs: one row by key, 8 clients",
			run: pgbenchCell([]shape{personShape},
				targets.Direct, targets.Splice, targets.Scan, targets.Judge, targets.Postern, targets.Masked, targets.TLS)},
	}
}

// kept says what is compared with a pooler. In rounds of a second a fresh process of the
// server spends a tenth of its time on beginning, on mapping the table that is in memory
// already, and on ending.
const kept = "pgbouncer keeps its connections to the server for those who come next, and so does a task with `reuse: pool`: pool is compared with it; " +
	"postern opens one for each session, as those do who come without a gateway, and is compared with direct"

// pgbenchCell runs shapes against targets.
func pgbenchCell(shapes []shape, names ...string) func(context.Context, *Env, *result.Cell) error {
	return func(ctx context.Context, e *Env, out *result.Cell) error {
		all, err := e.targets(names...)
		if err != nil {
			return err
		}
		if slices.Contains(names, targets.Pool) || slices.Contains(names, targets.PoolTLS) {
			out.Notes = append(out.Notes, kept)
		}
		var jobs []job
		for _, t := range all {
			if err := e.prove(ctx, out, t); err != nil {
				return err
			}
			for _, s := range shapes {
				j, err := e.pgbench(out, t, s)
				if err != nil {
					return err
				}
				jobs = append(jobs, j)
			}
		}
		return e.interleave(ctx, out, jobs)
	}
}

// pgbench makes the job of one shape on one target. Rounds last as long as asked by the
// number of transactions, which the last round tells.
func (e *Env) pgbench(out *result.Cell, t *targets.Target, s shape) (job, error) {
	file, err := e.script(fmt.Sprintf("%s-%s-%d-%s", out.ID, s.mode, s.clients, t.Name), s.script)
	if err != nil {
		return job{}, err
	}
	key := s.name + " " + t.Name + " " + s.script
	runFor := func(ctx context.Context, each int) (*pgbench.Transactions, error) {
		p := pgbench.Run{Program: e.House.PG.Pgbench, Env: t.Where.Env(), Script: file, Mode: s.mode, Clients: s.clients, Each: each, Scale: house.Scale, Reconnect: s.connect}
		tx, err := p.Do(ctx, e.Dir)
		if err != nil {
			return nil, err
		}
		if tx.Failed > 0 || tx.Done != each*s.clients {
			return nil, fmt.Errorf("%d of %d transactions were done, %d failed", tx.Done, each*s.clients, tx.Failed)
		}
		e.sent[t.Task] += int64(tx.Done)
		e.rates[key] = tx.Rate
		return tx, nil
	}
	var login metrics // what a short run of the node costs: its logins, mostly
	short := max(100, 800/s.clients)
	if s.connect {
		short = 5
	}
	warm := func(ctx context.Context) error {
		if _, err := runFor(ctx, short); err != nil { // what is new to the node is met here
			return err
		}
		before, err := e.usage(ctx, t)
		if err != nil {
			return err
		}
		if _, err := runFor(ctx, short); err != nil {
			return err
		}
		after, err := e.usage(ctx, t)
		login = after.minus(before)
		return err
	}
	return job{workload: s.name, target: t.Name, warm: warm, run: func(ctx context.Context) (map[string]float64, error) {
		if err := e.settle(ctx); err != nil {
			return nil, err
		}
		each := max(2*short, int(e.rates[key]*e.Seconds)/s.clients)
		var tx *pgbench.Transactions
		var values map[string]float64
		for try := range tries {
			before, err := e.usage(ctx, t)
			if err != nil {
				return nil, err
			}
			watch := e.watch(ctx, t, s.connect)
			tx, err = runFor(ctx, each<<try)
			values = watch(tx)
			if err != nil {
				return nil, err
			}
			after, err := e.usage(ctx, t)
			if err != nil {
				return nil, err
			}
			if used := after.minus(before); t.Node && !s.connect {
				values["allocs_op"] = (used.mallocs - login.mallocs) / float64(tx.Done-short*s.clients)
				values["gc_us_op"] = used.pauses * 1e6 / float64(tx.Done)
			}
			if tx.Steady {
				break
			}
		}
		if !tx.Steady {
			return nil, errors.New("the clients were never all at work; rounds must be longer")
		}
		us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
		values["tps"] = tx.Rate
		if s.connect {
			values["login_ms"] = 1000 * float64(s.clients) / tx.Rate
			return values, nil // pgbench's latencies begin after the login
		}
		values["p50_us"], values["p99_us"], values["p999_us"] = us(tx.Percentile(.5)), us(tx.Percentile(.99)), us(tx.Percentile(.999))
		return values, nil
	}}, nil
}

// tries is how often a run is made longer because its clients were never all at work.
const tries = 4

// sampleEvery is how often the gateway's CPU time is looked at during a run.
const sampleEvery = 10 * time.Millisecond

// watch accounts for one run of pgbench. Logins are not part of what gateway and server
// used: only the time counts in which every client was at work. The control plane takes
// records in after that, so its figure is of the whole run. With logins in each
// transaction they are what is measured.
func (e *Env) watch(ctx context.Context, t *targets.Target, logins bool) func(*pgbench.Transactions) map[string]float64 {
	type reading struct {
		at              time.Time
		gateway, server time.Duration
	}
	pids := account.Family(t.Roots...)
	var series []reading
	control := e.House.Control.PID()
	control0, server0 := account.Total(control), account.Total(e.postgres)
	g := run.New(ctx)
	stop := make(chan struct{})
	g.Go("sampler", func(ctx context.Context) error {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return nil
			case <-ctx.Done():
				return nil
			case now := <-tick.C:
				series = append(series, reading{now, account.Sum(pids), account.Sum(account.Children(e.postgres))})
			}
		}
	})
	return func(tx *pgbench.Transactions) map[string]float64 {
		close(stop)
		_ = g.Wait()
		values := map[string]float64{}
		if tx == nil {
			return values
		}
		per := func(d time.Duration, ops float64) float64 { return float64(d) / float64(time.Microsecond) / ops }
		values["client_us"] = per(tx.ClientCPU, float64(tx.Done))
		if len(t.Roots) > 0 {
			values["rss_mb"] = float64(account.RSS(t.Roots...)) / (1 << 20)
		}
		if t.Node {
			values["control_us"] = per(account.Total(control)-control0, float64(tx.Done))
		}
		series = slices.DeleteFunc(series, func(r reading) bool { return r.at.Before(tx.Begin) || r.at.After(tx.End) })
		if len(series) < 2 {
			return values
		}
		first, last := series[0], series[len(series)-1]
		n := tx.Between(first.at, last.at)
		values["server_us"] = per(last.server-first.server, n)
		if logins { // and so are the server's processes, which come and go
			values["server_us"] = per(account.Total(e.postgres)-server0, float64(tx.Done))
		}
		if len(t.Roots) > 0 {
			values["gateway_us"] = per(last.gateway-first.gateway, n)
			values["gateway_floors"] = values["gateway_us"] * 1000 / (2 * e.floors.TCPHop)
		}
		return values
	}
}
