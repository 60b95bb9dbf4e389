package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestBenchIsShown: what was measured is told as a table, a way each.
func TestBenchIsShown(t *testing.T) {
	b := benched{Measured: []measured{
		{Way: "eu-1-a", Transactions: 30, Rate: []float64{10, 20}, P50: []float64{1, 2}, P99: []float64{3, 4}},
		{Way: "direct", Transactions: 60, Rate: []float64{20, 40}, P50: []float64{1, 1}, P99: []float64{2, 2}},
	}, Ratios: []float64{.5, .5}}
	var out bytes.Buffer
	b.text(&out)
	for _, want := range []string{"THROUGH ", "eu-1-a   30            15 [10 20]", "direct   60            30 [20 40]", "0.50 [0.50 0.50] of direct"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
