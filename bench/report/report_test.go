package report

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
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

func TestANoisyCellNeverGotWorse(t *testing.T) {
	var b bytes.Buffer
	noisy := run(0.5)
	noisy.Cells[0].Noisy = []string{"others"}
	if Changes(&b, run(1), noisy) || !strings.Contains(b.String(), "WORSE (noisy)") {
		t.Errorf("a noisy cell fails:\n%s", &b)
	}
}

func TestACellThatFailsNowGotWorse(t *testing.T) {
	var b bytes.Buffer
	broken := run(1)
	broken.Cells[0].Failed, broken.Cells[0].Samples = "a row was not masked", nil
	if !Changes(&b, run(1), broken) || !strings.Contains(b.String(), "a row was not masked") {
		t.Errorf("a cell without a number is no worse:\n%s", &b)
	}
	b.Reset()
	if Changes(&b, broken, run(1)) || Changes(&b, broken, broken) {
		t.Errorf("what had no number before got worse:\n%s", &b)
	}
}

func TestACostThatGrewIsWorse(t *testing.T) {
	now := run(1)
	for _, s := range now.Cells[0].Samples {
		if s.Target == "postern" {
			s.Values["gateway_us"] = 20
		}
	}
	for _, c := range Compare(run(1), now) {
		if c.Metric == "gateway_us" && c.Target == "postern" && (c.Better || !c.Sure || c.Ratio != 2) {
			t.Errorf("%+v", c)
		}
	}
	a, b := Compare(run(1), now), Compare(run(1), now)
	if !slices.Equal(a, b) {
		t.Error("the same files compare otherwise the second time")
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
