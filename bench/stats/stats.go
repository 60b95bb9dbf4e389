// Package stats turns samples into figures: medians, ratios that are paired inside a
// round, and whether a difference between two runs is one.
package stats

import (
	"math"
	"math/rand/v2"
	"slices"
)

// A Figure is what several rounds gave.
type Figure struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Rounds int     `json:"rounds"`
}

// Of makes a figure of one value a round; none gives the zero Figure.
func Of(values []float64) Figure {
	if len(values) == 0 {
		return Figure{}
	}
	return Figure{Median: Median(values), Min: slices.Min(values), Max: slices.Max(values), Rounds: len(values)}
}

// Spread is how far apart the extremes are, as a share of the median.
func (f Figure) Spread() float64 {
	if f.Median == 0 {
		return 0
	}
	return (f.Max - f.Min) / f.Median
}

// Median of values; the mean of the middle two where their number is even.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// Drift is how much values that were taken at even intervals grew from the first to the
// last, as a share of their mean: the line of least squares through them, either way.
func Drift(values []float64) float64 {
	n := float64(len(values))
	if n < 2 {
		return math.NaN()
	}
	mean := 0.0
	for _, v := range values {
		mean += v / n
	}
	var xy, xx float64
	for i, v := range values {
		x := float64(i) - (n-1)/2
		xy += x * (v - mean)
		xx += x * x
	}
	return math.Abs(xy/xx*(n-1)) / mean
}

// Paired divides what was measured in the same round; rounds that have not both are
// left out. The keys are rounds.
func Paired(of, over map[int]float64) []float64 {
	var out []float64
	for _, round := range rounds(of) {
		if d := over[round]; d != 0 {
			out = append(out, of[round]/d)
		}
	}
	return out
}

func rounds(m map[int]float64) []int {
	var out []int
	for r := range m {
		out = append(out, r)
	}
	slices.Sort(out)
	return out
}

// Bootstrap is the 95 % interval of median(a)/median(b), by resampling both.
func Bootstrap(a, b []float64, seed uint64) (low, high float64) {
	const draws = 4000
	if len(a) == 0 || len(b) == 0 {
		return math.NaN(), math.NaN()
	}
	r := rand.New(rand.NewPCG(seed, 1))
	draw := func(from, to []float64) float64 {
		for i := range to {
			to[i] = from[r.IntN(len(from))]
		}
		return Median(to)
	}
	x, y := make([]float64, len(a)), make([]float64, len(b))
	ratios := make([]float64, 0, draws)
	for range draws {
		if d := draw(b, y); d != 0 {
			ratios = append(ratios, draw(a, x)/d)
		}
	}
	slices.Sort(ratios)
	if len(ratios) == 0 {
		return math.NaN(), math.NaN()
	}
	return ratios[len(ratios)*25/1000], ratios[len(ratios)*975/1000]
}
