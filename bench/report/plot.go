package report

import (
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/stats"
	"github.com/posterngate/postern/bench/targets"
)

// A rung is one step of the ladder: what is added to the one before it.
type rung struct{ target, name string }

var ladder = []rung{
	{targets.Direct, "direct"}, {targets.Splice, "splice (io.Copy)"}, {targets.Scan, "scan (the engine alone)"}, {targets.Judge, "+ policy"},
	{targets.Postern, "+ recording (the node)"}, {targets.Masked, "+ mask"}, {targets.TLS, "+ TLS"},
}

// LadderCell is the id of the cell that the plot shows.
const LadderCell = "ladder"

// Sizes of the plot, in pixels.
const (
	plotWidth, plotLeft, plotRight = 860, 190, 250
	rowHeight, barHeight           = 40, 20
)

// Plot draws the ladder as SVG: throughput as a share of direct, paired inside rounds,
// with the least and the most as a line. False where the run has no ladder.
func Plot(w io.Writer, r *result.Run) bool {
	c := r.Cell(LadderCell)
	if c == nil || c.Failed != "" || len(c.Workloads()) == 0 {
		return false
	}
	var workload string
	for _, name := range c.Workloads() {
		if len(c.Metric(name, targets.Direct, "tps")) > 0 {
			workload = name
		}
	}
	most := 1.0
	figures := make([]stats.Figure, len(ladder))
	for i, l := range ladder {
		figures[i] = c.Ratio(workload, l.target, targets.Direct, "tps")
		most = max(most, figures[i].Max)
	}
	height := 60 + rowHeight*len(ladder) + 30
	scale := float64(plotWidth-plotLeft-plotRight) / most
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="13">`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<text x="12" y="24" font-size="16" fill="#111">What each part costs: %s</text>`+"\n", html.EscapeString(c.Title+", "+workload))
	fmt.Fprintf(&b, `<text x="12" y="44" fill="#555">throughput as a share of direct (bar: median, line: least to most); CPU of the gateway per statement</text>`+"\n")
	for i, l := range ladder {
		y := 60 + rowHeight*i
		f := figures[i]
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end" fill="#111">%s</text>`+"\n", plotLeft-10, y+barHeight-5, html.EscapeString(l.name))
		if f.Rounds == 0 {
			fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#999">not measured</text>`+"\n", plotLeft, y+barHeight-5)
			continue
		}
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", plotLeft, y, f.Median*scale, barHeight, colour(l.target))
		middle := y + barHeight/2
		fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%[3]d" stroke="#111"/>`+"\n", plotLeft+f.Min*scale, plotLeft+f.Max*scale, middle)
		said := fmt.Sprintf("%.2f, %s/s", f.Median, number(c.Figure(workload, l.target, "tps").Median))
		if cpu := c.Figure(workload, l.target, "gateway_us"); cpu.Rounds > 0 {
			said += fmt.Sprintf(", %s µs", number(cpu.Median))
		}
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" fill="#111">%s</text>`+"\n", plotLeft+max(f.Max, f.Median)*scale+8, y+barHeight-5, html.EscapeString(said))
	}
	foot := fmt.Sprintf("%d x %s, commit %s, %s", r.Machine.Cores, r.Machine.CPU, r.Commit, r.Began.Format("2006-01-02"))
	if len(c.Noisy) > 0 {
		foot += "; NOISY: " + c.Noisy[0]
	}
	fmt.Fprintf(&b, `<text x="12" y="%d" font-size="11" fill="#555">%s</text>`+"\n</svg>\n", height-12, html.EscapeString(foot))
	_, err := io.WriteString(w, b.String())
	return err == nil
}

func colour(target string) string {
	switch target {
	case targets.Direct, targets.Splice:
		return "#b0b7c3"
	case targets.Scan, targets.Judge:
		return "#7da7d9"
	}
	return "#2f6fb5"
}
