package stats

import (
	"math"
	"testing"
)

func TestMedianAndSpread(t *testing.T) {
	if m := Median([]float64{3, 1, 2}); m != 2 {
		t.Errorf("odd: %v", m)
	}
	if m := Median([]float64{4, 1, 3, 2}); m != 2.5 {
		t.Errorf("even: %v", m)
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("the median of nothing is a number")
	}
	if f := Of([]float64{10, 12, 8}); f != (Figure{10, 8, 12, 3}) || f.Spread() != 0.4 {
		t.Errorf("%+v, spread %v", f, f.Spread())
	}
}

func TestDriftIsOfTheLine(t *testing.T) {
	for name, c := range map[string]struct {
		values []float64
		want   float64
	}{
		"even":            {[]float64{5, 5, 5, 5}, 0},
		"from 90 to 110":  {[]float64{90, 95, 100, 105, 110}, .2},
		"down":            {[]float64{110, 105, 100, 95, 90}, .2},
		"a saw about 100": {[]float64{99, 101, 101, 99}, 0},
		"one is no line":  {[]float64{1}, math.NaN()},
	} {
		if got := Drift(c.values); math.Abs(got-c.want) > 1e-12 || math.IsNaN(got) != math.IsNaN(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestRatiosArePairedInsideRounds(t *testing.T) {
	// The machine was half as fast in round 2; the ratio is the same.
	got := Paired(map[int]float64{1: 50, 2: 25, 3: 40}, map[int]float64{1: 100, 2: 50, 4: 7})
	if len(got) != 2 || got[0] != 0.5 || got[1] != 0.5 {
		t.Errorf("ratios %v, want 0.5 for rounds 1 and 2", got)
	}
}

func TestBootstrapSeesADifferenceAndNoise(t *testing.T) {
	old := []float64{100, 101, 99, 100, 102}
	if low, high := Bootstrap([]float64{120, 121, 119, 122, 120}, old, 7); low <= 1 || high < low {
		t.Errorf("a fifth more: [%v %v]", low, high)
	}
	if low, high := Bootstrap([]float64{99, 103, 100, 98, 101}, old, 7); low > 1 || high < 1 {
		t.Errorf("the same: [%v %v]", low, high)
	}
}
