package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"flag"
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

// write leaves the result as JSON and beside it a document and a plot.
func write(r *result.Run, reports []goals.Report, file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := r.Write(file); err != nil {
		return err
	}
	base := strings.TrimSuffix(file, filepath.Ext(file))
	var plot, doc bytes.Buffer
	name := ""
	if report.Plot(&plot, r) {
		name = filepath.Base(base) + ".svg"
		if err := os.WriteFile(base+".svg", plot.Bytes(), 0o644); err != nil {
			return err
		}
	}
	report.Markdown(&doc, r, reports, name)
	return os.WriteFile(base+".md", doc.Bytes(), 0o644)
}

// again shows a run from its file.
func again(args []string) (int, error) {
	if len(args) != 1 {
		return wrong, errors.New("report FILE")
	}
	r, err := result.Read(args[0])
	if err != nil {
		return wrong, err
	}
	reports, err := evaluate(r)
	if err != nil {
		return wrong, err
	}
	report.Text(os.Stdout, r, reports)
	return verdict(r, reports), write(r, reports, args[0])
}

func compare(args []string) (int, error) {
	if len(args) != 2 {
		return wrong, errors.New("compare OLD NEW")
	}
	old, err := result.Read(args[0])
	if err != nil {
		return wrong, err
	}
	now, err := result.Read(args[1])
	if err != nil {
		return wrong, err
	}
	if report.Changes(os.Stdout, old, now) {
		return missed, nil
	}
	return pass, nil
}

// readme writes the README's table, or only says whether it is right.
func readme(args []string) (int, error) {
	f := flag.NewFlagSet("bench readme", flag.ContinueOnError)
	check := f.Bool("check", false, "change nothing; exit 1 where the table is not that of the result")
	into := f.String("into", "README.md", "the file with the table")
	if err := f.Parse(args); err != nil {
		return wrong, err
	}
	if f.NArg() != 1 {
		return wrong, errors.New("readme [--check] FILE")
	}
	r, err := result.Read(f.Arg(0))
	if err != nil {
		return wrong, err
	}
	reports, err := evaluate(r)
	if err != nil {
		return wrong, err
	}
	b, err := os.ReadFile(*into)
	if err != nil {
		return wrong, err
	}
	text, err := report.Readme(string(b), r, reports, filepath.ToSlash(f.Arg(0)))
	if err != nil {
		return wrong, err
	}
	switch {
	case text == string(b):
		return pass, nil
	case *check:
		return missed, fmt.Errorf("%s is not in step with %s: make bench-readme", *into, f.Arg(0))
	}
	return pass, os.WriteFile(*into, []byte(text), 0o644)
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
