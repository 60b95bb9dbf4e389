package report

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/posterngate/postern/bench/goals"
	"github.com/posterngate/postern/bench/result"
)

// where says where and from what figures were taken, in one sentence.
func where(r *result.Run) string {
	m := r.Machine
	var versions []string
	for _, name := range []string{"postgresql", "pgbouncer", "haproxy"} {
		if v := r.Versions[name]; v != "" {
			v, _, _ = strings.Cut(v, " ")
			versions = append(versions, name+" "+v)
		}
	}
	return fmt.Sprintf("%d cores of %s, %s, kernel %s, %s, %s; commit %s, %s; client, gateway and server share the cores", m.Cores, m.CPU, m.System, m.Kernel, m.Go, strings.Join(versions, ", "), r.Commit, r.Began.Format("2006-01-02"))
}

// Markdown writes everything as a document.
func Markdown(w io.Writer, r *result.Run, reports []goals.Report, plot string) {
	fmt.Fprintf(w, "# Benchmark, %s\n\n%s. %d rounds of %g s in shuffled order, seed %d; figures are the median [least, most]; ratios are paired inside rounds.\n\n", r.Mode, where(r), r.Rounds, r.Seconds, r.Seed)
	fmt.Fprintf(w, "Floors of the machine: TCP hop of 120 bytes %.1f µs of CPU, Unix socket %.1f µs, 64 KiB over TCP %.1f µs, system call %.2f µs, SHA-256 of 16 KiB %.1f µs.\n\n",
		r.Floors.TCPHop/1e3, r.Floors.UnixHop/1e3, r.Floors.TCP64K/1e3, r.Floors.Syscall/1e3, r.Floors.SHA16K/1e3)
	fmt.Fprint(w, "## Goals\n\n")
	goalTable(w, reports)
	if plot != "" {
		fmt.Fprintf(w, "\n![what each part costs](%s)\n", plot)
	}
	for _, c := range r.Cells {
		markdownCell(w, c)
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "\n%s\n", s)
	}
}

func goalTable(w io.Writer, reports []goals.Report) {
	fmt.Fprint(w, "| goal | what | wanted | measured | |\n|---|---|---|---|---|\n")
	for _, r := range reports {
		var measured []string
		for _, a := range r.Answers {
			if a.Figure.Rounds > 0 {
				measured = append(measured, fmt.Sprintf("%s: %s%s", a.Check.Name(), figure(a.Figure), a.Check.Unit))
			} else if a.Why != "" && a.Status != goals.NotHere {
				measured = append(measured, a.Check.Name()+": "+a.Why)
			}
		}
		if r.Goal.Without != "" {
			measured = append(measured, "not measured: "+r.Goal.Without)
		}
		id := r.Goal.ID
		if r.Goal.Must {
			id = "**" + id + "**"
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s | %s |\n", id, cell(r.Goal.What), cell(r.Goal.Goal), cell(strings.Join(measured, "<br>")), r.Status)
	}
}

// cell keeps a text from ending a table's cell.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "\n", " ", "*", `\*`).Replace(s)
}

func markdownCell(w io.Writer, c *result.Cell) {
	fmt.Fprintf(w, "\n## %s: %s\n", c.ID, c.Title)
	if c.Failed != "" {
		fmt.Fprintf(w, "\nNo number: %s\n", cell(c.Failed))
		return
	}
	for _, workload := range c.Workloads() {
		all := metrics(c, workload)
		fmt.Fprintf(w, "\n| %s | %s |\n|---%s|\n", workload, strings.Join(all, " | "), strings.Repeat("|---", len(all)))
		for _, target := range slices.SortedFunc(slices.Values(c.Targets(workload)), byTarget) {
			fmt.Fprintf(w, "| %s ", target)
			for _, metric := range all {
				fmt.Fprintf(w, "| %s ", figure(c.Figure(workload, target, metric)))
			}
			fmt.Fprintln(w, "|")
		}
	}
	fmt.Fprintln(w)
	for _, n := range c.Noisy {
		fmt.Fprintf(w, "- noisy: %s\n", n)
	}
	for _, n := range c.Notes {
		fmt.Fprintf(w, "- %s\n", n)
	}
	for _, p := range c.Proof {
		fmt.Fprintf(w, "- proven: %s\n", p)
	}
}

// The README's table stands between these lines.
const (
	readmeBegin = "<!-- bench: written by `bench readme`, from a committed result -->\n"
	readmeEnd   = "<!-- bench: end -->\n"
)

// Readme returns the README with its table made anew from a result; file is where the
// result lies.
func Readme(readme string, r *result.Run, reports []goals.Report, file string) (string, error) {
	before, rest, ok := strings.Cut(readme, readmeBegin)
	_, after, found := strings.Cut(rest, readmeEnd)
	if !ok || !found {
		return "", fmt.Errorf("the README has no lines %q and %q", strings.TrimSpace(readmeBegin), strings.TrimSpace(readmeEnd))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s%s%s", before, readmeBegin, readmeTable(r, reports, file))
	return b.String() + readmeEnd + after, nil
}

// readmeTable has one line for each check of the goals that must hold, as far as the run
// was quiet enough for its figure to mean something.
func readmeTable(r *result.Run, reports []goals.Report, file string) string {
	var rows strings.Builder
	for _, rep := range reports {
		for _, a := range rep.Answers {
			if a.Figure.Rounds > 0 && rep.Goal.Must && a.Status != goals.Inconclusive {
				fmt.Fprintf(&rows, "| %s %s | %s%s | %s | %s |\n", rep.Goal.ID, cell(a.Check.Name()), figure(a.Figure), a.Check.Unit, a.Check.Bound(), a.Status)
			}
		}
	}
	document := strings.TrimSuffix(file, ".json") + ".md"
	var b strings.Builder
	if rows.Len() == 0 {
		b.WriteString("`make bench-full` measures a node beside pgbouncer, haproxy and no gateway at all, against its goals. The\ncommitted run was taken while others used the machine, so none of its figures is quoted here.\n")
	} else {
		b.WriteString("| | measured | goal | |\n|---|---|---|---|\n" + rows.String())
		fmt.Fprintf(&b, "\nMedian [least, most] of %d rounds. %s.\n", r.Rounds, where(r))
	}
	fmt.Fprintf(&b, "\nEvery goal and every figure: [%s](%s).\n", document, document)
	return b.String()
}
