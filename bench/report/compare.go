package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/stats"
	"github.com/posterngate/postern/bench/targets"
)

// worth are the metrics that Compare looks at, and whether more is better.
var worth = map[string]bool{
	"tps": true, "mb_s": true, "rows_s": true, "gb_s_core": true, "hit_percent": true,
	"p50_us": false, "p99_us": false, "gateway_us": false, "gateway_ms_mb": false, "ns_op": false, "ns_row": false,
	"kb_session": false, "cpu_ms_mb": false, "p50_ms": false, "p99_ms": false, "rps": true, "control_us": false,
	"gateway_ms": false, "login_ms": false, "setup_ms": false,
}

// A Change is one metric of one target in two runs.
type Change struct {
	Cell, Workload, Target, Metric string
	Ratio, Low, High               float64 // new over old, with its 95 % interval
	Better, Sure                   bool    // Sure: the interval is on one side of 1
}

// Compare finds what changed between two runs. A rate is taken as a share of direct in
// the same round where the cell has one, so that the machine's mood drops out.
func Compare(old, now *result.Run) []Change {
	var out []Change
	for _, c := range now.Cells {
		o := old.Cell(c.ID)
		if o == nil || o.Failed != "" || c.Failed != "" {
			continue
		}
		for _, w := range c.Workloads() {
			for _, t := range c.Targets(w) {
				for _, m := range slices.Sorted(maps.Keys(worth)) {
					a, b := values(c, w, t, m), values(o, w, t, m)
					if t == targets.Direct || len(a) < 2 || len(b) < 2 || stats.Median(b) == 0 {
						continue
					}
					ch := Change{Cell: c.ID, Workload: w, Target: t, Metric: m, Ratio: stats.Median(a) / stats.Median(b)}
					ch.Low, ch.High = stats.Bootstrap(a, b, now.Seed)
					ch.Sure = ch.Low > 1 || ch.High < 1
					ch.Better = (ch.Ratio > 1) == worth[m]
					out = append(out, ch)
				}
			}
		}
	}
	return out
}

func values(c *result.Cell, workload, target, metric string) []float64 {
	of := c.Metric(workload, target, metric)
	if direct := c.Metric(workload, targets.Direct, metric); len(direct) > 0 {
		return stats.Paired(of, direct)
	}
	var out []float64
	for _, round := range slices.Sorted(maps.Keys(of)) { // in order, so that the interval is the same each time
		out = append(out, of[round])
	}
	return out
}

// Changes writes a comparison, and reports whether something got surely worse. A cell that
// is noisy in one of the runs can do neither; one that has no number any more got worse.
func Changes(w io.Writer, old, now *result.Run) (worse bool) {
	if old.Machine.CPU != now.Machine.CPU || old.Machine.Cores != now.Machine.Cores {
		fmt.Fprintf(w, "other machines: %d x %s, and %d x %s; only ratios mean something\n", old.Machine.Cores, old.Machine.CPU, now.Machine.Cores, now.Machine.CPU)
	}
	fmt.Fprintf(w, "%s -> %s; new over old, with the 95 %% interval; rates and latencies as shares of direct where there is one\n", old.Commit, now.Commit)
	t := tabwriter.NewWriter(w, 2, 2, 2, ' ', 0)
	for _, c := range Compare(old, now) {
		word := "same"
		switch {
		case c.Sure && c.Better:
			word = "better"
		case c.Sure:
			word = "WORSE"
		}
		if len(now.Cell(c.Cell).Noisy) > 0 || len(old.Cell(c.Cell).Noisy) > 0 {
			word += " (noisy)"
		}
		worse = worse || word == "WORSE"
		fmt.Fprintln(t, strings.Join([]string{c.Cell, c.Workload, c.Target, c.Metric, fmt.Sprintf("%.3f", c.Ratio), fmt.Sprintf("[%.3f %.3f]", c.Low, c.High), word}, "\t"))
	}
	_ = t.Flush()
	for _, c := range now.Cells {
		if o := old.Cell(c.ID); c.Failed != "" && o != nil && o.Failed == "" {
			fmt.Fprintf(w, "%s: WORSE: no number any more: %s\n", c.ID, c.Failed)
			worse = true
		}
	}
	return worse
}
