// Package report shows a result: as text, as Markdown, as the README's table and as a
// plot. It computes nothing that is not in the result.
package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/posterngate/postern/bench/goals"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/stats"
	"github.com/posterngate/postern/bench/targets"
)

// order of targets in tables: what has no gateway first, the node last.
var order = []string{targets.Direct, targets.Trust, targets.PgBouncer, targets.BouncerTLS, targets.HAProxy, targets.Splice, targets.Naive, targets.Scan, targets.Judge}

func byTarget(a, b string) int {
	rank := func(t string) int {
		if i := slices.Index(order, t); i >= 0 {
			return i
		}
		return len(order)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
}

// columns of tables, in their order; other metrics follow by name.
var columns = []string{"tps", "p50_us", "p99_us", "p999_us", "mb_s", "rows_s", "gateway_us", "gateway_floors", "server_us", "client_us", "control_us", "gateway_ms_mb", "server_ms_mb", "client_ms_mb", "control_ms_mb", "rss_mb", "allocs_op", "gc_us_op"}

// number writes a figure with as many digits as it has worth.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 10000:
		return fmt.Sprintf("%.0f", v)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

func figure(f stats.Figure) string {
	switch f.Rounds {
	case 0:
		return "-"
	case 1:
		return number(f.Median)
	}
	return fmt.Sprintf("%s [%s %s]", number(f.Median), number(f.Min), number(f.Max))
}

func metrics(c *result.Cell, workload string) []string {
	seen := map[string]bool{}
	for _, s := range c.Samples {
		if s.Workload == workload {
			for m := range s.Values {
				seen[m] = true
			}
		}
	}
	all := slices.Sorted(maps.Keys(seen))
	slices.SortStableFunc(all, func(a, b string) int {
		rank := func(m string) int {
			if i := slices.Index(columns, m); i >= 0 {
				return i
			}
			return len(columns)
		}
		return cmp.Compare(rank(a), rank(b))
	})
	return all
}

// Text writes everything for a terminal.
func Text(w io.Writer, r *result.Run, reports []goals.Report) {
	m := r.Machine
	fmt.Fprintf(w, "commit %s, %s, %d x %s, kernel %s, %s, %s\n", r.Commit, r.Began.Format("2006-01-02"), m.Cores, m.CPU, m.Kernel, m.System, m.Go)
	fmt.Fprintf(w, "mode %s, %d rounds of %g s, seed %d, took %s; figures are median [least most]\n", r.Mode, r.Rounds, r.Seconds, r.Seed, r.Took)
	fmt.Fprintf(w, "floors: TCP hop %.1f µs, Unix hop %.1f µs, 64 KiB over TCP %.1f µs, system call %.2f µs, SHA-256 of 16 KiB %.1f µs\n",
		r.Floors.TCPHop/1e3, r.Floors.UnixHop/1e3, r.Floors.TCP64K/1e3, r.Floors.Syscall/1e3, r.Floors.SHA16K/1e3)
	for _, c := range r.Cells {
		textCell(w, c)
	}
	for _, s := range r.Skipped {
		fmt.Fprintln(w, s)
	}
	textGoals(w, reports)
}

func textCell(w io.Writer, c *result.Cell) {
	fmt.Fprintf(w, "\n%s  %s\n", c.ID, c.Title)
	if c.Failed != "" {
		fmt.Fprintf(w, "  NO NUMBER: %s\n", c.Failed)
		return
	}
	for _, workload := range c.Workloads() {
		all := metrics(c, workload)
		t := tabwriter.NewWriter(w, 2, 2, 2, ' ', 0)
		fmt.Fprintf(t, "  %s\t%s\n", workload, strings.Join(all, "\t"))
		for _, target := range slices.SortedFunc(slices.Values(c.Targets(workload)), byTarget) {
			row := []string{"  " + target}
			for _, metric := range all {
				row = append(row, figure(c.Figure(workload, target, metric)))
			}
			fmt.Fprintln(t, strings.Join(row, "\t"))
		}
		_ = t.Flush()
	}
	for _, p := range c.Proof {
		fmt.Fprintf(w, "  proven: %s\n", p)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(w, "  note: %s\n", n)
	}
	for _, n := range c.Noisy {
		fmt.Fprintf(w, "  NOISY: %s\n", n)
	}
}

func textGoals(w io.Writer, reports []goals.Report) {
	fmt.Fprintln(w, "\ngoals")
	for _, r := range reports {
		must := ""
		if r.Goal.Must {
			must = " (must hold)"
		}
		fmt.Fprintf(w, "%-4s %-12s %s%s: %s\n", r.Goal.ID, r.Status, r.Goal.What, must, r.Goal.Goal)
		for _, a := range r.Answers {
			if a.Status == goals.NotRun || a.Status == goals.NotHere {
				continue
			}
			line := fmt.Sprintf("     %-12s %s %s%s, wanted %s", a.Status, a.Check.Name(), figure(a.Figure), a.Check.Unit, a.Check.Bound())
			if a.Check.Scale != "" {
				line += " (scaled to the reference machine)"
			}
			if a.Why != "" {
				line += ": " + a.Why
			}
			fmt.Fprintln(w, line)
		}
		if r.Goal.Without != "" {
			fmt.Fprintf(w, "     not measured: %s\n", r.Goal.Without)
		}
	}
}
