package result

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/posterngate/postern/bench/stats"
)

func sample(round int, target string, tps float64) Sample {
	return Sample{Round: round, Workload: "w", Target: target, Values: map[string]float64{"tps": tps}}
}

func TestRatiosOfACell(t *testing.T) {
	c := &Cell{ID: "P1", Samples: []Sample{
		sample(1, "direct", 100), sample(1, "postern", 50), sample(2, "postern", 30), sample(2, "direct", 50), sample(3, "postern", 1),
	}}
	if got := c.Ratio("w", "postern", "direct", "tps"); got != (stats.Figure{Median: .55, Min: .5, Max: .6, Rounds: 2}) {
		t.Errorf("ratio %+v", got)
	}
	if got := c.Figure("w", "postern", "tps"); got.Rounds != 3 || got.Median != 30 {
		t.Errorf("figure %+v", got)
	}
	if got := c.Figure("w", "postern", "p50_us"); got.Rounds != 0 {
		t.Errorf("a metric that was not measured: %+v", got)
	}
	if !reflect.DeepEqual(c.Targets("w"), []string{"direct", "postern"}) || c.Targets("other") != nil {
		t.Errorf("targets %v, %v", c.Targets("w"), c.Targets("other"))
	}
}

func TestAFileSaysTheSame(t *testing.T) {
	file := filepath.Join(t.TempDir(), "r.json")
	r := &Run{Schema: Schema, Seed: 7, Cells: []*Cell{{ID: "P1", Samples: []Sample{sample(1, "direct", 2)}, Noisy: []string{"others"}}}}
	if err := r.Write(file); err != nil {
		t.Fatal(err)
	}
	got, err := Read(file)
	if err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v, %v", got, err)
	}
	r.Schema++
	if err := r.Write(file); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(file); err == nil || !strings.Contains(err.Error(), "schema") {
		t.Errorf("a file of another schema: %v", err)
	}
}
