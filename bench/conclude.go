package main

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/posterngate/postern/bench/goals"
	"github.com/posterngate/postern/bench/report"
	"github.com/posterngate/postern/bench/result"
)

//go:embed goals.yaml
var goalsYAML []byte

// commit names what is measured.
func commit(ctx context.Context) string {
	b, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

func evaluate(r *result.Run) ([]goals.Report, error) {
	all, err := goals.Load(goalsYAML)
	if err != nil {
		return nil, err
	}
	return goals.Evaluate(all, r), nil
}

// conclude shows a run, writes it down, and says how it ended.
func conclude(r *result.Run, o options) (int, error) {
	reports, err := evaluate(r)
	if err != nil {
		return wrong, err
	}
	report.Text(os.Stdout, r, reports)
	if o.out != "" {
		if err := write(r, reports, o.out); err != nil {
			return wrong, err
		}
	}
	code := verdict(r, reports)
	fmt.Fprintf(os.Stdout, "\n%s\n", map[int]string{pass: "PASS", missed: "MISSED: a goal that was measured is not met", inconclusive: "INCONCLUSIVE: see what was noisy, skipped or too short"}[code])
	return code, nil
}

// write leaves the result as JSON and reports beside it.
func write(r *result.Run, reports []goals.Report, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return r.Write(file)
}

// verdict is the exit code. What was not run, and goals without a cell, do not count.
func verdict(r *result.Run, reports []goals.Report) int {
	code := pass
	for _, c := range r.Cells {
		if c.Failed != "" {
			return missed
		}
	}
	for _, rep := range reports {
		for _, a := range rep.Answers {
			switch a.Status {
			case goals.Missed:
				return missed
			case goals.Inconclusive:
				code = inconclusive
			default:
			}
		}
	}
	return code
}
