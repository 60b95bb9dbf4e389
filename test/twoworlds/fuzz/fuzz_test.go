package fuzz

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/posterngate/postern/test/e2e/house"
	"github.com/posterngate/postern/test/twoworlds"
	"github.com/posterngate/postern/test/twoworlds/generate"
)

// Variables of the long form, which goes on with the seeds that a file has not had yet.
const (
	tallyVar      = "TRUTH_TALLY"      // the file; the long form is run where it is set
	statementsVar = "TRUTH_STATEMENTS" // how many there are to be in all, at each level
	seedVar       = "TRUTH_SEED"       // the first seed
	minutesVar    = "TRUTH_MINUTES"    // after which no round begins
)

const (
	connections = 4
	round       = 4000   // statements of one seed
	longForm    = 60_000 // from here on every construct is reached rareEnough times
	rareEnough  = 1000
)

func TestMain(m *testing.M) { house.Main(m) }

func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestNoDifference: nothing that a generated statement does tells the worlds apart. One
// in five is sqlsmith's. At level native, which sends less through the same rewriter, and
// at level result, which refuses most, there are fewer.
func TestNoDifference(t *testing.T) {
	const n, seed = 2000, 1
	w := twoworlds.Start(t, Options(twoworlds.Source, twoworlds.Native, twoworlds.Result))
	smith := Sqlsmith(t, Smithy(t), seed, n/5)
	for _, c := range []struct {
		level twoworlds.Level
		part  int
	}{{twoworlds.Source, 1}, {twoworlds.Native, 5}, {twoworlds.Result, 8}} {
		t.Run(c.level.Short(), func(t *testing.T) {
			r := &Report{}
			fuzzed(t, w, c.level, r, seed, n/c.part, smith[:len(smith)/c.part])
			if c.level != twoworlds.Result {
				worth(t, r)
			}
		})
	}
}

// TestTally is the long form: round after round, each a seed, until there are enough.
func TestTally(t *testing.T) {
	file := os.Getenv(tallyVar)
	if file == "" {
		return // make truth-fuzz
	}
	tally, err := OpenTally(file)
	if err != nil {
		t.Fatal(err)
	}
	most, minutes := number(t, statementsVar, 20000), number(t, minutesVar, 24*60)
	began, levels := time.Now(), []twoworlds.Level{twoworlds.Source, twoworlds.Native}
	w, smithy := twoworlds.Start(t, Options(levels...)), Smithy(t)
	for seed := uint64(number(t, seedVar, 1)); !t.Failed() && time.Since(began) < time.Duration(minutes)*time.Minute; seed++ { //nolint:gosec // a seed
		enough, smith := true, []generate.Statement(nil)
		for _, l := range levels {
			if tally.Sum(l).Sent >= most {
				continue
			}
			if enough = false; tally.Has(seed, l) {
				continue
			}
			if smith == nil {
				smith = Sqlsmith(t, smithy, seed, round/5)
			}
			r := &Report{}
			fuzzed(t, w, l, r, seed, round, smith)
			if err := tally.Add(seed, l, r); err != nil {
				t.Fatal(err)
			}
		}
		if enough {
			break
		}
	}
	for _, l := range levels {
		sum := tally.Sum(l)
		t.Logf("%s in all: %s\n%s", l.Short(), sum, sum.Counts())
		if sum.Sent > 0 {
			worth(t, sum)
		}
	}
}

// fuzzed sends n statements: those of sqlsmith, and the rest of our own.
func fuzzed(t *testing.T, w *twoworlds.Worlds, l twoworlds.Level, all *Report, seed uint64, n int, smith []generate.Statement) {
	t.Helper()
	began := time.Now()
	theirs, ours := &Report{}, &Report{}
	if l == twoworlds.Native {
		smith = unsampled(smith)
	}
	half := len(smith) / 2
	sources := map[string]Source{}
	for i := range connections {
		sources[fmt.Sprintf("seed %d.%d", seed, i)] = Generated(seed*connections+uint64(i), (n-len(smith))/connections) //nolint:gosec // small
	}
	sources[fmt.Sprintf("seed %d, varied", seed)] = Varied(seed, n/10, 4)
	send(t, w, l, theirs, map[string]Source{"sqlsmith": Listed(smith[:half]), "sqlsmith's second half": Listed(smith[half:])})
	send(t, w, l, ours, sources)
	t.Logf("%s at %s, seed %d, %s\nours: %s\nsqlsmith: %s\nrefused:\n%s\n%s", l.Short(), w.PG[0].Version, seed, time.Since(began).Round(time.Second),
		ours, theirs, ours.Reasons(), theirs.Reasons())
	for _, r := range []*Report{ours, theirs} {
		all.Add(r)
		all.Failures = append(all.Failures, r.Failures...)
	}
}

func send(t *testing.T, w *twoworlds.Worlds, l twoworlds.Level, r *Report, sources map[string]Source) {
	t.Helper()
	f := Fuzzer{Worlds: w, Level: l, Report: r}
	if err := f.Run(t.Context(), t, sources); err != nil {
		t.Error(err)
	}
	for i := range r.Failures {
		t.Error(r.Failures[i].String())
	}
}

// worth makes sure that the comparison says something.
func worth(t *testing.T, r *Report) {
	t.Helper()
	if share(r.Admitted, r.Sent) < 70 {
		t.Errorf("only %d of %d statements were admitted", r.Admitted, r.Sent)
	}
	if share(r.Masked, r.Admitted) < 50 {
		t.Errorf("only %d of %d admitted statements concern a masked column", r.Masked, r.Admitted)
	}
	if share(r.Unsteady, r.Sent) > 2 {
		t.Errorf("%d of %d statements were unsteady", r.Unsteady, r.Sent)
	}
	least := 1
	if r.Sent >= longForm {
		least = rareEnough
	}
	for name, n := range r.Constructs {
		if n < least {
			t.Errorf("%s was admitted only %d times", name, n)
		}
	}
}
