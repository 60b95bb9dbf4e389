package cells

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/bench/door"
	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/postgres"
	"github.com/posterngate/postern/dataplane/gate"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/pgbench"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/sql/worker"
)

func policyCells() []Cell {
	return []Cell{{ID: "P14", Title: "one decision, known and new, and how often it is known", Quick: true, run: decisionCell}}
}

// How often each kind of decision is made in a round.
const (
	knownTimes = 200_000
	newTimes   = 100
)

// decisionCell measures the gate and the analyser in this process, on the server's own
// catalogue, and the hit rate on the engine in a process of its own.
func decisionCell(ctx context.Context, e *Env, out *result.Cell) error {
	g := run.New(ctx)
	defer func() {
		g.Stop()
		_ = g.Wait()
	}()
	plain, err := e.judge(ctx, g, house.TaskPass)
	if err != nil {
		return err
	}
	masked, err := e.judge(ctx, g, house.TaskMasked)
	if err != nil {
		return err
	}
	jobs := []job{
		{workload: "decision", target: "cached", run: func(ctx context.Context) (map[string]float64, error) {
			st, err := plain.statement(ctx, "SELECT abalance FROM pgbench_accounts WHERE aid = $1")
			if err != nil {
				return nil, err
			}
			return perCall(knownTimes, func(int) error { _, err := plain.gate.Prepare(ctx, st); return err })
		}},
		{workload: "decision", target: "miss canonical", run: plain.misses(
			"SELECT /* n */ p.id, p.name, b.note FROM people p JOIN big b ON b.id = p.id WHERE p.id = %d AND b.name LIKE 'n%%' AND p.country = 'DE'", false)},
		{workload: "decision", target: "miss rewritten", run: masked.misses(
			"SELECT p.id, p.email, b.note FROM people p JOIN big b ON b.id = p.id WHERE p.id = %d AND b.name LIKE 'n%%' AND p.country = 'DE'", true)},
	}
	t, err := e.Targets.Get(targets.Judge)
	if err != nil {
		return err
	}
	if err := e.prove(ctx, out, t); err != nil {
		return err
	}
	jobs = append(jobs, e.hits("pgbench", t, func(ctx context.Context) error {
		file, err := e.script("hits", selectOnly)
		if err != nil {
			return err
		}
		_, err = pgbench.Run{Program: e.House.PG.Pgbench, Env: t.Where.Env(), Script: file, Mode: "simple", Clients: 2, Each: 2500, Scale: house.Scale}.Do(ctx, e.Dir)
		return err
	}))
	kept, err := dial(ctx, t.Where)
	if err != nil {
		return err
	}
	defer func() { _ = kept.Close(ctx) }()
	jobs = append(jobs, e.hits("orm", t, func(ctx context.Context) error { return e.replayORM(ctx, kept) }),
		e.hits("orm, each time on a new connection", t, func(ctx context.Context) error {
			c, err := dial(ctx, t.Where)
			if err != nil {
				return err
			}
			defer func() { _ = c.Close(ctx) }()
			return e.replayORM(ctx, c)
		}))
	out.Notes = append(out.Notes, fmt.Sprintf("the trace of %d statements is replayed with other literals on a connection that is kept, as pools do", ormStatements))
	return e.interleave(ctx, out, jobs)
}

// A decider is one session's gate in this process.
type decider struct {
	engine  *postgres.Engine
	session engine.Session
	gate    *gate.Gate
	next    int // so that each text is new
}

func (e *Env) judge(ctx context.Context, g *run.Group, task string) (*decider, error) {
	pg, log := e.House.PG, slog.New(slog.DiscardHandler)
	objects, err := object.ParseYAML(strings.NewReader(house.Policy(pg.Host, strconv.Itoa(pg.Port))))
	if err != nil {
		return nil, err
	}
	snapshot, rejected := policy.Compile(postern.Version{Epoch: "bench", Revision: 1}, objects)
	if len(rejected) > 0 {
		return nil, fmt.Errorf("the policy does not compile: %v", rejected)
	}
	parser := worker.New(worker.Config{Processes: 1})
	g.Go("parser", parser.Run)
	d := door.New(door.Config{Host: pg.Host, Port: pg.Port, Account: house.Account, Password: e.House.Password, Database: house.Database, Judge: snapshot, Resource: "bench", Logger: log})
	s, err := d.Open(ctx, engine.Claim{Protocol: postern.Postgres, Permission: task + ".bench"})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(g.Context(), func() { s.Close(nil) })
	return &decider{engine: postgres.New(postgres.Config{AllowPlaintext: true, Parser: parser, Logger: log}), session: s, gate: door.Gate(s)}, nil
}

func (d *decider) statement(ctx context.Context, text string) (*engine.Statement, error) {
	return d.engine.Explain(ctx, d.session, text)
}

// misses judges texts that nobody has seen.
func (d *decider) misses(format string, rewritten bool) func(context.Context) (map[string]float64, error) {
	return func(ctx context.Context) (map[string]float64, error) {
		statements := make([]*engine.Statement, newTimes)
		for i := range statements {
			d.next++
			st, err := d.statement(ctx, strings.Replace(fmt.Sprintf(format, d.next), "/* n */", fmt.Sprintf("/* %d */", d.next), 1))
			if err != nil {
				return nil, err
			}
			// Another context is another verdict: literals alone may be known already.
			st.Context += "\x00" + strconv.Itoa(d.next)
			statements[i] = st
		}
		return perCall(newTimes, func(i int) error {
			a, err := d.gate.Prepare(ctx, statements[i])
			if err != nil {
				return err
			}
			if a.Own || rewritten != strings.Contains(a.Forward, maskValue) {
				return fmt.Errorf("what is forwarded is not what was meant to be measured: %s", a.Forward)
			}
			return nil
		})
	}
}

// perCall is what one call takes and allocates. Background work of this process counts.
func perCall(times int, f func(i int) error) (map[string]float64, error) {
	if err := f(0); err != nil { // not yet known, not yet paged in
		return nil, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	for i := range times {
		if err := f(i); err != nil {
			return nil, err
		}
	}
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	// A fraction of an allocation is that of something else.
	allocs := (after.Mallocs - before.Mallocs) / uint64(times)
	return map[string]float64{"ns_op": float64(took) / float64(times), "allocs_op": float64(allocs)}, nil
}

// hits makes the job that runs a load through the engine and asks how many of its
// executions had to be judged. It is warmed by one run: every shape is met once.
func (e *Env) hits(name string, t *targets.Target, load func(context.Context) error) job {
	counts := func() (c door.Counts, err error) { return c, t.Child.Ask("counts", &c) }
	return job{workload: "hits", target: name, warm: load, run: func(ctx context.Context) (map[string]float64, error) {
		before, err := counts()
		if err != nil {
			return nil, err
		}
		if err := load(ctx); err != nil {
			return nil, err
		}
		after, err := counts()
		if err != nil {
			return nil, err
		}
		executed := float64(after.Admitted - before.Admitted)
		if executed == 0 {
			return nil, errors.New("nothing was executed")
		}
		return map[string]float64{"hit_percent": 100 * (1 - float64(after.Judged-before.Judged)/executed), "executed": executed}, nil
	}}
}

//go:embed orm.sql
var ormText string

const ormStatements = 500

var placeholder = regexp.MustCompile(`\{[a-z]+\}`)

// replayORM runs the trace with fresh literals, as drivers do that put values into the
// text: the harder case, for with parameters the texts would be the same.
func (e *Env) replayORM(ctx context.Context, c *pgx.Conn) error {
	var lines []string
	for line := range strings.Lines(ormText) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
			lines = append(lines, line)
		}
	}
	for i := range ormStatements {
		if err := one(ctx, c, e.Rand, lines[i%len(lines)]); err != nil {
			return err
		}
	}
	return nil
}

func one(ctx context.Context, c *pgx.Conn, r *rand.Rand, line string) error {
	sql := placeholder.ReplaceAllStringFunc(line, func(p string) string {
		n := r.IntN(house.PeopleRows) + 1
		switch p {
		case "{name}":
			return fmt.Sprintf("'name %d'", n)
		case "{like}":
			return fmt.Sprintf("'name %d%%'", n)
		case "{country}":
			return []string{"'DE'", "'FR'", "'US'"}[n%3]
		case "{when}":
			return fmt.Sprintf("'2025-01-01T00:00:%02d+00:00'", n%60)
		case "{small}":
			return strconv.Itoa(n%100 + 1)
		}
		return strconv.Itoa(n)
	})
	if _, err := text(ctx, c, sql); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}
