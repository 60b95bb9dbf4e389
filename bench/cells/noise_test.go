package cells

import (
	"slices"
	"testing"

	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/targets"
)

// sampled is a cell of direct and another, by rounds, and what others used in each.
func sampled(direct []float64, others ...float64) *result.Cell {
	c := &result.Cell{ID: "P1"}
	for i, v := range direct {
		for _, target := range []string{targets.Direct, targets.Postern} {
			s := result.Sample{Round: i + 1, Workload: "prepared c=8", Target: target, Values: map[string]float64{"tps": v}}
			if i < len(others) {
				s.Others = others[i]
			}
			c.Samples = append(c.Samples, s)
		}
	}
	return c
}

func TestNoise(t *testing.T) {
	for _, c := range []struct {
		name  string
		cell  *result.Cell
		noisy bool
	}{
		{"quiet", sampled([]float64{100, 110, 95}, .05, .1, 0), false},
		{"direct spreads", sampled([]float64{100, 130, 95}), true},
		{"others in one round", sampled([]float64{100, 100, 100}, 0, .2, 0), true},
		{"one round spreads over nothing", sampled([]float64{100}), false},
	} {
		if noise(c.cell); (len(c.cell.Noisy) > 0) != c.noisy {
			t.Errorf("%s: %v", c.name, c.cell.Noisy)
		}
	}
}

func TestCellsHaveDistinctNames(t *testing.T) {
	var ids []string
	for _, c := range All() {
		if c.ID == "" || c.Title == "" || c.run == nil || slices.Contains(ids, c.ID) {
			t.Errorf("cell %q %q", c.ID, c.Title)
		}
		ids = append(ids, c.ID)
	}
}
