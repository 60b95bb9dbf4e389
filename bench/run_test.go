package main

import (
	"slices"
	"testing"

	"github.com/posterngate/postern/bench/cells"
	"github.com/posterngate/postern/bench/goals"
	"github.com/posterngate/postern/bench/result"
)

func ids(t *testing.T, args ...string) []string {
	t.Helper()
	o, err := parse(args)
	if err != nil {
		t.Fatal(err)
	}
	chosen, err := o.choose()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range chosen {
		out = append(out, c.ID)
	}
	return out
}

func TestModesChooseTheirCells(t *testing.T) {
	if got := ids(t, "--mode", "quick"); !slices.Equal(got, []string{"P1", "P2", "P7", "P14", "P15"}) {
		t.Errorf("quick: %v", got)
	}
	if got := ids(t, "--mode", "soak"); !slices.Equal(got, []string{"R1"}) {
		t.Errorf("soak: %v", got)
	}
	standard, full := ids(t), ids(t, "--mode", "full")
	for _, id := range standard {
		if !slices.Contains(full, id) {
			t.Errorf("full leaves %s out", id)
		}
	}
	if slices.Contains(standard, "H1-more") || !slices.Contains(full, "H1-more") || !slices.Contains(standard, "C1-1000") || slices.Contains(full, "R1") {
		t.Errorf("standard %v, full %v", standard, full)
	}
	if got := ids(t, "--cell", "c3,P1"); !slices.Equal(got, []string{"C3", "P1"}) {
		t.Errorf("by name: %v", got)
	}
	for _, bad := range [][]string{{"--cell", "P99"}, {"--mode", "fast"}} {
		o, err := parse(bad)
		if err == nil {
			_, err = o.choose()
		}
		if err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}

// TestEveryCheckHasACell holds the goals to the cells: a check of a cell that is none
// would never be answered.
func TestEveryCheckHasACell(t *testing.T) {
	all, err := goals.Load(goalsYAML)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range all {
		for _, c := range g.Checks {
			if !slices.ContainsFunc(cells.All(), func(have cells.Cell) bool { return have.ID == c.Cell }) {
				t.Errorf("goal %s asks cell %s, which is none", g.ID, c.Cell)
			}
		}
	}
}

func TestVerdict(t *testing.T) {
	of := func(statuses ...goals.Status) []goals.Report {
		var r goals.Report
		for _, s := range statuses {
			r.Answers = append(r.Answers, goals.Answer{Status: s})
		}
		return []goals.Report{r}
	}
	for _, c := range []struct {
		name    string
		run     *result.Run
		reports []goals.Report
		want    int
	}{
		{"all met", &result.Run{}, of(goals.Met, goals.NotHere), pass},
		{"what was not run does not count", &result.Run{}, of(goals.Met, goals.NotRun, goals.NoCell), pass},
		{"one inconclusive", &result.Run{}, of(goals.Met, goals.Inconclusive), inconclusive},
		{"a missed one wins over it", &result.Run{}, of(goals.Inconclusive, goals.Missed), missed},
		{"a cell without a number", &result.Run{Cells: []*result.Cell{{ID: "C1", Failed: "no proof"}}}, of(goals.Met), missed},
	} {
		if got := verdict(c.run, c.reports); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
