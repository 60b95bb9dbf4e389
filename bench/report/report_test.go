package report

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posterngate/postern/bench/goals"
	"github.com/posterngate/postern/bench/result"
)

// committed is the result from which the README's table was made.
const committed = "bench/results/full.json"

// TestReadmeIsInStep holds the README's table to the committed result.
func TestReadmeIsInStep(t *testing.T) {
	root := filepath.Join("..", "..")
	r, err := result.Read(filepath.Join(root, committed))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := Readme(string(readme), r, evaluated(t, r), committed)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(readme) {
		t.Errorf("the README's table is not that of %s: make bench-readme", committed)
	}
}

func evaluated(t *testing.T, r *result.Run) []goals.Report {
	t.Helper()
	b, err := os.ReadFile("../goals.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all, err := goals.Load(b)
	if err != nil {
		t.Fatal(err)
	}
	return goals.Evaluate(all, r)
}

func run(factor float64) *result.Run {
	c := &result.Cell{ID: LadderCell, Title: "ladder"}
	for round := 1; round <= 5; round++ {
		for i, l := range ladder {
			tps := 1000 / float64(i+1)
			if l.target == "postern" {
				tps *= factor
			}
			c.Samples = append(c.Samples, result.Sample{Round: round, Workload: "prepared c=8", Target: l.target, Values: map[string]float64{"tps": tps + float64(round), "gateway_us": 10}})
		}
	}
	return &result.Run{Schema: result.Schema, Rounds: 5, Cells: []*result.Cell{c}}
}

func TestPlotShowsEveryRung(t *testing.T) {
	var b bytes.Buffer
	if !Plot(&b, run(1)) {
		t.Fatal("no plot")
	}
	for _, l := range ladder {
		if !strings.Contains(b.String(), ">"+l.name+"<") {
			t.Errorf("%q is not in the plot", l.name)
		}
	}
	if Plot(&b, &result.Run{}) {
		t.Error("a run without a ladder was plotted")
	}
}

func TestCompareFindsWhatGotWorse(t *testing.T) {
	var b bytes.Buffer
	if !Changes(&b, run(1), run(0.5)) || !strings.Contains(b.String(), "WORSE") {
		t.Errorf("half as fast is not worse:\n%s", &b)
	}
	b.Reset()
	if Changes(&b, run(1), run(1)) {
		t.Errorf("the same is worse:\n%s", &b)
	}
}

func TestTextHoldsWhatFailedAndWhatHasNoCell(t *testing.T) {
	r := run(1)
	r.Cells = append(r.Cells, &result.Cell{ID: "P1", Title: "x", Failed: "a row was not masked"})
	var text, doc bytes.Buffer
	reports := evaluated(t, r)
	Text(&text, r, reports)
	Markdown(&doc, r, reports, "")
	for _, want := range []string{"a row was not masked", "no engine for MySQL yet"} {
		for name, got := range map[string]string{"text": text.String(), "markdown": doc.String()} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is missing", name, want)
			}
		}
	}
}
