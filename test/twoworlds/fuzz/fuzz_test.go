package fuzz

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/posterngate/postern/test/e2e/house"
	"github.com/posterngate/postern/test/twoworlds"
)

// Variables of the long form: how many statements at level source, and the first seed.
const (
	statementsVar = "TRUTH_STATEMENTS"
	seedVar       = "TRUTH_SEED"
)

const (
	connections = 4
	longForm    = 50_000 // from here on every construct is reached rareEnough times
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
// in five is sqlsmith's, and at level result, which refuses most, there are fewer.
func TestNoDifference(t *testing.T) {
	n, seed := number(t, statementsVar, 2000), number(t, seedVar, 1)
	w := twoworlds.Start(t, Options(twoworlds.Source, twoworlds.Result))
	smith := Sqlsmith(t, Smithy(t), uint64(seed), n/5) //nolint:gosec // a seed
	for _, c := range []struct {
		level twoworlds.Level
		part  int
	}{{twoworlds.Source, 1}, {twoworlds.Result, 8}} {
		t.Run(c.level.Short(), func(t *testing.T) {
			began := time.Now()
			theirs := &Report{}
			list := smith[:len(smith)/c.part]
			half := len(list) / 2
			fuzzed(t, w, c.level, theirs, map[string]Source{"sqlsmith": Listed(list[:half]), "sqlsmith's second half": Listed(list[half:])})
			ours := &Report{}
			sources := map[string]Source{}
			for i := range connections {
				s := uint64(seed + i) //nolint:gosec // a seed
				sources[fmt.Sprintf("seed %d", s)] = Generated(s, (n-n/5)/c.part/connections)
			}
			fuzzed(t, w, c.level, ours, sources)
			t.Logf("%s at %s, %s\nours: %s\nsqlsmith: %s\nadmitted:\n%s\nrefused:\n%s\n%s", c.level.Short(), w.PG[0].Version, time.Since(began).Round(time.Second),
				ours, theirs, ours.Counts(), ours.Reasons(), theirs.Reasons())
			ours.Add(theirs)
			if c.level == twoworlds.Source {
				worth(t, ours)
			}
		})
	}
}

func fuzzed(t *testing.T, w *twoworlds.Worlds, l twoworlds.Level, r *Report, sources map[string]Source) {
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
