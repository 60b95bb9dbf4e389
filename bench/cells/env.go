// Package cells are what the suite measures, one cell a goal. A cell puts the same load
// on several targets in rounds, each in a new order, and shows first that what is
// measured does its work: no proof, no number.
package cells

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
)

// Noise, above which a cell can neither pass nor fail.
const (
	maxSpread = 0.25 // of what has no gateway, over the rounds
	maxOthers = 0.10 // of the machine in a round
)

// A Cell is one thing to measure.
type Cell struct {
	ID, Title string
	Quick     bool // part of the quick run
	Full      bool // part of the full run alone
	Soak      bool // part of a soak alone
	run       func(ctx context.Context, e *Env, out *result.Cell) error
}

// All are the cells, in the order in which they are run.
func All() []Cell {
	return slices.Concat(point(), bulkCells(), blastCells(), policyCells(), recordCells(), loginCells(), sshCells(), httpCells(), microCells(), controlCells(), soakCells())
}

// Env is what cells work with.
type Env struct {
	House   *house.House
	Targets *targets.Set
	Rounds  int
	Seconds float64       // of a round
	Soak    time.Duration // of cells that take long
	Rand    *rand.Rand
	Dir     string // for files
	Log     io.Writer
	Profile string // file for CPU profiles of the node; empty takes none

	postgres int
	floors   result.Floors
	skipped  []string
	rates    map[string]float64
	sent     map[string]int64 // statements by task, in this cell
	began    time.Time        // the cell
}

// Prepare finds what cells need.
func (e *Env) Prepare(floors result.Floors) (err error) {
	e.rates, e.floors = map[string]float64{}, floors
	e.postgres, err = e.House.PostgresPID()
	return err
}

// Skipped are the rivals that are not there.
func (e *Env) Skipped() []string { return e.skipped }

// Run measures one cell. What fails is in the result.
func (e *Env) Run(ctx context.Context, c Cell) *result.Cell {
	out := &result.Cell{ID: c.ID, Title: c.Title}
	e.sent, e.began = map[string]int64{}, time.Now()
	fmt.Fprintf(e.Log, "%-4s %s\n", c.ID, c.Title)
	err := c.run(ctx, e, out)
	if err == nil {
		err = e.proveRecords(out)
	}
	if err != nil {
		out.Failed, out.Samples = err.Error(), nil
		fmt.Fprintf(e.Log, "     no number: %v\n", err)
	}
	noise(out)
	fmt.Fprintf(e.Log, "     took %s\n", time.Since(e.began).Round(100*time.Millisecond))
	return out
}

// A job is one load on one target.
type job struct {
	workload, target string
	control          bool                            // it is the control plane that works
	restarts         bool                            // it starts the node anew, and profiles by itself
	warm             func(ctx context.Context) error // once, before the rounds
	run              func(ctx context.Context) (map[string]float64, error)
}

// interleave runs the jobs in rounds, each round in a new order.
func (e *Env) interleave(ctx context.Context, out *result.Cell, jobs []job) error {
	for _, j := range jobs {
		if j.warm == nil {
			continue
		}
		if err := j.warm(ctx); err != nil {
			return fmt.Errorf("%s %s: %w", j.workload, j.target, err)
		}
	}
	for round := 1; round <= e.Rounds; round++ {
		e.Rand.Shuffle(len(jobs), func(i, j int) { jobs[i], jobs[j] = jobs[j], jobs[i] })
		for _, j := range jobs {
			w := account.Others()
			values, err := j.run(ctx)
			if err != nil {
				return fmt.Errorf("%s %s: %w", j.workload, j.target, err)
			}
			out.Samples = append(out.Samples, result.Sample{Round: round, Workload: j.workload, Target: j.target, Others: w.Share(), Values: values})
		}
		fmt.Fprintf(e.Log, "     round %d of %d\n", round, e.Rounds)
	}
	return e.profile(ctx, jobs)
}

// targets starts those that are there, and notes the others.
func (e *Env) targets(names ...string) ([]*targets.Target, error) {
	var out []*targets.Target
	for _, name := range names {
		t, err := e.Targets.Get(name)
		var missing targets.Missing
		switch {
		case errors.As(err, &missing):
			e.skip(missing)
		case err != nil:
			return nil, err
		default:
			out = append(out, t)
		}
	}
	return out, nil
}

// skip notes a rival that is not there.
func (e *Env) skip(missing error) {
	if !slices.Contains(e.skipped, missing.Error()) {
		e.skipped = append(e.skipped, missing.Error())
		fmt.Fprintln(e.Log, missing.Error())
	}
}

// noise says why a cell can neither pass nor fail.
func noise(c *result.Cell) {
	for _, w := range c.Workloads() {
		for _, metric := range []string{"tps", "rps", "mb_s"} {
			if f := c.Figure(w, targets.Direct, metric); f.Rounds > 1 && f.Spread() > maxSpread {
				c.Noisy = append(c.Noisy, fmt.Sprintf("%s: direct spreads over %.0f %%", w, 100*f.Spread()))
			}
		}
	}
	sum, n := map[int]float64{}, map[int]float64{}
	for _, s := range c.Samples {
		sum[s.Round] += s.Others
		n[s.Round]++
	}
	worst := 0.0
	for r := range sum {
		worst = max(worst, sum[r]/n[r])
	}
	if worst > maxOthers {
		c.Noisy = append(c.Noisy, fmt.Sprintf("others used %.0f %% of the machine in a round", 100*worst))
	}
}

// script writes a pgbench script.
func (e *Env) script(name, text string) (string, error) {
	file := filepath.Join(e.Dir, name+".sql")
	return file, os.WriteFile(file, []byte(text), 0o644)
}
