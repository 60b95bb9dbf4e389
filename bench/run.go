package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/cells"
	"github.com/posterngate/postern/bench/floor"
	"github.com/posterngate/postern/bench/house"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
)

// options are the flags of run.
type options struct {
	cells   string
	mode    string
	rounds  int
	seconds float64
	seed    uint64
	out     string
	nodeBin string
	profile string
	minutes float64
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("bench run", flag.ContinueOnError)
	f.StringVar(&o.cells, "cell", "", "only these cells, by id, with commas between")
	f.StringVar(&o.mode, "mode", "standard", "quick, standard, full or soak: which cells, and how long")
	f.Float64Var(&o.minutes, "minutes", 30, "how long a soak takes")
	f.IntVar(&o.rounds, "rounds", 5, "rounds; fewer than 5 can neither pass nor fail a goal")
	f.Float64Var(&o.seconds, "seconds", 0, "seconds of each target in a round; by mode 0.3, 1 or 2")
	f.Uint64Var(&o.seed, "seed", 0, "of the order of targets; one is chosen where 0")
	f.StringVar(&o.out, "out", "", "write the result to this file and reports beside it")
	f.StringVar(&o.nodeBin, "node-bin", "", "a postern-node to measure instead of the checkout's")
	f.StringVar(&o.profile, "cpuprofile", "", "after the rounds, run what node and control plane do once more for 9 s and write CPU profiles of it, and of idle sessions one of the heap, to files of this name")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	length, ok := map[string]float64{"quick": 0.3, "standard": 1, "full": 2, "soak": 1}[o.mode]
	if !ok {
		return o, fmt.Errorf("--mode %s is not quick, standard, full or soak", o.mode)
	}
	if o.seconds <= 0 {
		o.seconds = length
	}
	if o.seed == 0 {
		o.seed = rand.Uint64()
	}
	return o, nil
}

// choose picks the cells.
func (o options) choose() ([]cells.Cell, error) {
	all := cells.All()
	if o.cells == "" {
		return slices.DeleteFunc(all, func(c cells.Cell) bool {
			return o.mode == "quick" && !c.Quick || o.mode != "full" && c.Full || (o.mode == "soak") != c.Soak
		}), nil
	}
	var out []cells.Cell
	for id := range strings.SplitSeq(o.cells, ",") {
		i := slices.IndexFunc(all, func(c cells.Cell) bool { return strings.EqualFold(c.ID, id) })
		if i < 0 {
			return nil, fmt.Errorf("there is no cell %q", id)
		}
		out = append(out, all[i])
	}
	return out, nil
}

func measure(ctx context.Context, args []string) (int, error) {
	o, err := parse(args)
	if err != nil {
		return wrong, err
	}
	chosen, err := o.choose()
	if err != nil {
		return wrong, err
	}
	log := os.Stderr
	fmt.Fprintf(log, "seed %d, %d rounds of %g s\n", o.seed, o.rounds, o.seconds)
	r := &result.Run{
		Schema: result.Schema, Began: time.Now().UTC().Truncate(time.Second), Mode: o.mode, Seed: o.seed, Rounds: o.rounds, Seconds: o.seconds,
		Commit: commit(ctx), Machine: account.Here(), Versions: map[string]string{},
	}
	if r.Floors, err = floor.Measure(); err != nil {
		return wrong, fmt.Errorf("floors: %w", err)
	}
	if err := run(ctx, o, chosen, r); err != nil {
		return wrong, err
	}
	r.Took = time.Since(r.Began).Round(time.Second).String()
	return conclude(r, o)
}

// run opens the house and measures.
func run(ctx context.Context, o options, chosen []cells.Cell, r *result.Run) (err error) {
	log := os.Stderr
	h, err := house.Open(ctx, house.Options{NodeBinary: o.nodeBin, Log: log})
	defer func() {
		if cerr := h.Close(); err == nil {
			err = cerr
		}
	}()
	if err != nil {
		return err
	}
	set := targets.New(h, log)
	defer set.Close()
	r.Versions = set.Versions(ctx)
	dir, err := os.MkdirTemp("", "postern-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	e := &cells.Env{House: h, Targets: set, Rounds: o.rounds, Seconds: o.seconds, Soak: time.Duration(o.minutes * float64(time.Minute)), Rand: rand.New(rand.NewPCG(o.seed, 0)), Dir: dir, Log: log, Profile: o.profile}
	if err := e.Prepare(r.Floors); err != nil {
		return err
	}
	for _, c := range chosen {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.Cells = append(r.Cells, e.Run(ctx, c))
	}
	r.Skipped = e.Skipped()
	return nil
}
