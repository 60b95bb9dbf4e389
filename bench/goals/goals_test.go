package goals

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/result"
)

func load(t *testing.T) []Goal {
	t.Helper()
	b, err := os.ReadFile("../goals.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all, err := Load(b)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestGoalsAreTheTable holds every goal to the table that was agreed, and every bound to
// the words of its goal.
func TestGoalsAreTheTable(t *testing.T) {
	b, err := os.ReadFile("testdata/table.md")
	if err != nil {
		t.Fatal(err)
	}
	var table [][3]string
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || strings.HasPrefix(cells[0], "---") || strings.TrimSpace(cells[0]) == "#" {
			continue
		}
		table = append(table, [3]string{strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])})
	}
	all := load(t)
	if len(table) != len(all) {
		t.Errorf("the table has %d goals and the file %d", len(table), len(all))
	}
	for i, g := range all {
		if i < len(table) && table[i] != [3]string{g.ID, g.What, g.Goal} {
			t.Errorf("goal %s is not the table's\n  have %q %q\n  want %q", g.ID, g.What, g.Goal, table[i])
		}
		if len(g.Checks) == 0 && g.Without == "" {
			t.Errorf("goal %s has no check and does not say why", g.ID)
		}
		for _, c := range g.Checks {
			if !stated(g.Goal, c) {
				t.Errorf("goal %s: %s %s does not stand in %q", g.ID, c.Name(), c.Bound(), g.Goal)
			}
		}
	}
}

var number = regexp.MustCompile(`\d+(\.\d+)?`)

// stated reports whether the bound is a number of the goal, 0 where it says none or loss.
func stated(goal string, c Check) bool {
	bound := c.AtLeast
	if bound == nil {
		bound = c.AtMost
	}
	want := fmt.Sprintf("%g", *bound)
	return slices.ContainsFunc(number.FindAllString(goal, -1), func(n string) bool {
		var f float64
		_, err := fmt.Sscan(n, &f)
		return err == nil && fmt.Sprintf("%g", f) == want
	})
}

func cell(noisy []string, rounds int, postern float64) *result.Run {
	c := &result.Cell{ID: "P1", Noisy: noisy}
	for r := 1; r <= rounds; r++ {
		for target, v := range map[string]float64{"direct": 1000, "pgbouncer": 500, "postern": postern, "pool": postern} {
			c.Samples = append(c.Samples, result.Sample{Round: r, Workload: "prepared c=8", Target: target, Values: map[string]float64{"tps": v}})
		}
	}
	return &result.Run{Machine: account.Machine{Cores: 2}, Cells: []*result.Cell{c}}
}

func TestVerdicts(t *testing.T) {
	p1 := load(t)[:1]
	for _, c := range []struct {
		name string
		run  *result.Run
		want Status
	}{
		{"met", cell(nil, 5, 600), Met},
		{"missed", cell(nil, 5, 400), Missed},
		{"a noisy cell can neither pass", cell([]string{"others"}, 5, 600), Inconclusive},
		{"nor fail", cell([]string{"others"}, 5, 400), Inconclusive},
		{"nor can few rounds", cell(nil, 4, 600), Inconclusive},
		{"another cell was run", &result.Run{}, NotRun},
		{"no proof, no number", &result.Run{Cells: []*result.Cell{{ID: "P1", Failed: "a row was not masked"}}}, Missed},
	} {
		if got := Evaluate(p1, c.run)[0].Status; got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAbsoluteFiguresAreScaled(t *testing.T) {
	ten := 10.0
	run := cell(nil, 5, 12)
	run.Floors.TCPHop = 2 * referenceHop
	cost := Check{Cell: "P1", Workload: "prepared c=8", Target: "postern", Metric: "tps", AtMost: &ten, Scale: "hop"}
	if a := answer(cost, run); a.Figure.Median != 6 || a.Status != Met {
		t.Errorf("a cost on a machine half as fast: %+v", a)
	}
	rate := Check{Cell: "P1", Workload: "prepared c=8", Target: "postern", Metric: "tps", AtLeast: &ten, Scale: "hop"}
	if a := answer(rate, run); a.Figure.Median != 24 {
		t.Errorf("a rate on a machine half as fast: %+v", a)
	}
}

func TestGoalsWithoutCellAreNamed(t *testing.T) {
	for _, r := range Evaluate(load(t), &result.Run{}) {
		if len(r.Goal.Checks) == 0 && r.Status != NoCell {
			t.Errorf("%s: %s", r.Goal.ID, r.Status)
		}
	}
}
