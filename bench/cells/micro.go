package cells

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/test/servers"
)

// A micro is a benchmark of a package, by the pattern of go test -bench.
type micro struct{ pkg, pattern string }

var maskRow = micro{"./dataplane/engine/postgres", "^BenchmarkAppendRow$"}

var micros = []micro{
	maskRow,
	{"./dataplane/engine/postgres", "^Benchmark(Execution|Rows|MaskedRows)$"},
	{"./dataplane/gate", "."},
	{"./pkg/sql/postgres", "^Benchmark(Plain|Shape|Analyze)"},
	{"./pkg/policy", "^BenchmarkDecide$"},
	{"./pkg/mask", "."},
	{"./pkg/record", "."},
	{"./dataplane/spool", "^BenchmarkRecord$"},
}

func microCells() []Cell {
	return []Cell{
		{ID: "P9", Title: "one mask on one row, in memory", run: func(ctx context.Context, e *Env, out *result.Cell) error { return e.micro(ctx, out, maskRow) }},
		{ID: "micro", Title: "parts of the hot path, in memory", Full: true, run: func(ctx context.Context, e *Env, out *result.Cell) error {
			for _, m := range micros {
				if err := e.micro(ctx, out, m); err != nil {
					return err
				}
			}
			return nil
		}},
	}
}

// Benchmark lines: name, procs, times, and figures with their units.
var benchLine = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

// micro runs one benchmark, once for each round.
func (e *Env) micro(ctx context.Context, out *result.Cell, m micro) error {
	root, err := servers.ModuleRoot()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", m.pattern, "-benchmem",
		"-benchtime", fmt.Sprintf("%gs", e.Seconds/5), "-count", strconv.Itoa(e.Rounds), m.pkg)
	cmd.Dir = root
	watch := account.Others()
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go test -bench %s %s: %w\n%s", m.pattern, m.pkg, err, said)
	}
	workload := m.pkg[strings.LastIndexByte(m.pkg, '/')+1:]
	if m == maskRow {
		workload = "mask"
	}
	rounds, others := map[string]int{}, watch.Share()
	for line := range strings.Lines(string(said)) {
		f := benchLine.FindStringSubmatch(strings.TrimSpace(line))
		if f == nil {
			continue
		}
		target := strings.TrimPrefix(f[1], "AppendRow/")
		if target == "redact" {
			target = "const"
		}
		rounds[target]++
		out.Samples = append(out.Samples, result.Sample{Round: rounds[target], Workload: workload, Target: target, Others: others, Values: figures(f[2])})
	}
	if len(rounds) == 0 {
		return fmt.Errorf("go test -bench %s %s measured nothing:\n%s", m.pattern, m.pkg, bytes.TrimSpace(said))
	}
	return nil
}

// figures reads "12.3 ns/op  0 B/op  0 allocs/op".
func figures(text string) map[string]float64 {
	values := map[string]float64{}
	fields := strings.Fields(text)
	for i := 0; i+1 < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		name, ok := map[string]string{"ns/op": "ns_op", "allocs/op": "allocs_op", "MB/s": "mb_s"}[fields[i+1]]
		if err == nil && ok {
			values[name] = v
		}
	}
	return values
}
