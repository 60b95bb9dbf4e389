package generate

import (
	"slices"
	"testing"
)

// Some thousand statements have every construct, none of them rarely, and most of them
// concern masked columns; a seed gives the same ones each time.
func TestNothingStarves(t *testing.T) {
	const n, least = 8000, 8000 / 50
	g, again := New(3), New(3)
	counts, masked := map[string]int{}, 0
	for range n {
		s := g.Next()
		if !slices.Equal(s.Texts, again.Next().Texts) {
			t.Fatal("a seed gives other statements the second time")
		}
		if s.Masked {
			masked++
		}
		for _, c := range s.Constructs {
			counts[c]++
		}
	}
	for c, k := range counts {
		if k < least {
			t.Errorf("%s: %d of %d statements", c, k, n)
		}
	}
	if len(counts) < 70 || masked < n/2 {
		t.Errorf("%d constructs, %d statements with masked columns", len(counts), masked)
	}
}
