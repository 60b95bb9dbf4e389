// Package goals holds what the suite is measured by: goals.yaml, by id, each with the
// checks that evaluate it. A test holds the file to the table of goals that was agreed.
package goals

import (
	"fmt"
	"math"

	"sigs.k8s.io/yaml"

	"github.com/posterngate/postern/bench/result"
	"github.com/posterngate/postern/bench/stats"
)

// A Goal is one line of the table.
type Goal struct {
	ID   string `json:"id"`
	What string `json:"what"`
	Goal string `json:"goal"`
	// Must is true where a release waits for it.
	Must   bool    `json:"must,omitempty"`
	Checks []Check `json:"checks,omitempty"`
	// Without says why a goal, or a part of it, has no cell.
	Without string `json:"without,omitempty"`
}

// A Check compares one figure with a bound.
type Check struct {
	Cell     string `json:"cell"`
	Workload string `json:"workload"`
	Target   string `json:"target"`
	Metric   string `json:"metric"`
	// Over divides by another target, and Minus subtracts it, paired inside rounds.
	Over  string `json:"over,omitempty"`
	Minus string `json:"minus,omitempty"`
	// AtLeast and AtMost are the goal; one of them is set.
	AtLeast *float64 `json:"atLeast,omitempty"`
	AtMost  *float64 `json:"atMost,omitempty"`
	// Unit for people, and for the bound: the metric is divided by Per first.
	Unit string  `json:"unit,omitempty"`
	Per  float64 `json:"per,omitempty"`
	// Scale makes up for the machine, by a floor probe of the run: "hop" for what the
	// kernel costs, "compute" for the rest. An absolute figure has one.
	Scale string `json:"scale,omitempty"`
	// Cores is how many the machine must have for the check to apply: at least, or at most
	// where negative.
	Cores int `json:"cores,omitempty"`
	// Whole is true where the figure is of the whole run and not of a round.
	Whole bool `json:"whole,omitempty"`
	// Waits is the bound under which a goal that is not reached does not hold a release up.
	Waits *float64 `json:"waits,omitempty"`
}

// Load reads the goals.
func Load(text []byte) ([]Goal, error) {
	var file struct {
		Goals []Goal `json:"goals"`
	}
	if err := yaml.UnmarshalStrict(text, &file); err != nil {
		return nil, fmt.Errorf("goals: %w", err)
	}
	for _, g := range file.Goals {
		for _, c := range g.Checks {
			if (c.AtLeast == nil) == (c.AtMost == nil) {
				return nil, fmt.Errorf("goals: %s: a check has one of atLeast and atMost", g.ID)
			}
		}
	}
	return file.Goals, nil
}

// Status is what became of a check or a goal.
type Status string

// The statuses, from the best.
const (
	Met          Status = "met"
	NotHere      Status = "does not apply here"
	NotRun       Status = "not run"
	NoCell       Status = "no cell"
	Inconclusive Status = "inconclusive"
	Missed       Status = "MISSED"
)

// worse is how statuses of checks become that of a goal.
var worse = map[Status]int{NotHere: 0, Met: 1, NotRun: 2, NoCell: 2, Inconclusive: 3, Missed: 4}

// An Answer is a check that was evaluated.
type Answer struct {
	Check  Check        `json:"check"`
	Figure stats.Figure `json:"figure"` // scaled, in the check's unit
	Status Status       `json:"status"`
	Why    string       `json:"why,omitempty"`
}

// A Report is a goal that was evaluated.
type Report struct {
	Goal    Goal     `json:"goal"`
	Status  Status   `json:"status"`
	Answers []Answer `json:"answers,omitempty"`
}

// Evaluate answers every goal from a run.
func Evaluate(all []Goal, r *result.Run) []Report {
	var out []Report
	for _, g := range all {
		rep := Report{Goal: g, Status: NotHere}
		if len(g.Checks) == 0 {
			rep.Status = NoCell
		}
		for _, c := range g.Checks {
			a := answer(c, r)
			rep.Answers = append(rep.Answers, a)
			if worse[a.Status] > worse[rep.Status] {
				rep.Status = a.Status
			}
		}
		out = append(out, rep)
	}
	return out
}

// enough is how many rounds a goal needs.
const enough = 5

// The floors that absolute figures refer to, in nanoseconds: the machine on which the
// goals were set.
const (
	referenceHop = 7100
	referenceSHA = 8800
)

func answer(c Check, r *result.Run) Answer {
	a := Answer{Check: c, Status: NotRun}
	if c.Cores > 0 && r.Machine.Cores < c.Cores || c.Cores < 0 && r.Machine.Cores > -c.Cores {
		a.Status, a.Why = NotHere, fmt.Sprintf("%d cores", r.Machine.Cores)
		return a
	}
	cell := r.Cell(c.Cell)
	if cell == nil {
		return a
	}
	if cell.Failed != "" {
		a.Status, a.Why = Missed, "no number: "+cell.Failed
		return a
	}
	a.Figure = c.figure(cell, r)
	switch {
	case a.Figure.Rounds == 0:
		a.Status, a.Why = Inconclusive, "it was not measured"
	case c.met(a.Figure.Median):
		a.Status = Met
	default:
		a.Status = Missed
	}
	switch {
	case a.Figure.Rounds == 0:
	case len(cell.Noisy) > 0:
		a.Status, a.Why = Inconclusive, cell.Noisy[0]
	case a.Figure.Rounds < enough && !c.Whole:
		a.Status, a.Why = Inconclusive, fmt.Sprintf("only %d rounds", a.Figure.Rounds)
	}
	return a
}

// figure takes the check's figure from a cell.
func (c Check) figure(cell *result.Cell, r *result.Run) stats.Figure {
	of := cell.Metric(c.Workload, c.Target, c.Metric)
	var values []float64
	switch {
	case c.Over != "":
		values = stats.Paired(of, cell.Metric(c.Workload, c.Over, c.Metric))
	case c.Minus != "":
		minus := cell.Metric(c.Workload, c.Minus, c.Metric)
		for round, v := range of {
			if m, ok := minus[round]; ok {
				values = append(values, v-m)
			}
		}
	default:
		for _, v := range of {
			values = append(values, v)
		}
	}
	factor := 1.0
	if c.Per != 0 {
		factor /= c.Per
	}
	switch c.Scale {
	case "hop":
		factor *= c.faster(r.Floors.TCPHop / referenceHop)
	case "compute":
		factor *= c.faster(r.Floors.SHA16K / referenceSHA)
	}
	for i := range values {
		values[i] *= factor
	}
	return stats.Of(values)
}

// faster turns how much slower this machine is into the factor of a cost or of a rate.
func (c Check) faster(slower float64) float64 {
	if slower == 0 || math.IsNaN(slower) {
		return 1
	}
	if c.AtMost != nil {
		return 1 / slower
	}
	return slower
}

func (c Check) met(v float64) bool {
	if c.AtLeast != nil {
		return v >= *c.AtLeast
	}
	return v <= *c.AtMost
}

// Bound is the goal as people write it.
func (c Check) Bound() string {
	if c.AtLeast != nil {
		return fmt.Sprintf(">= %g%s", *c.AtLeast, c.Unit)
	}
	return fmt.Sprintf("<= %g%s", *c.AtMost, c.Unit)
}

// Name says what a check compares.
func (c Check) Name() string {
	name := c.Target + " " + c.Metric
	switch {
	case c.Over != "":
		name += " over " + c.Over
	case c.Minus != "":
		name += " minus " + c.Minus
	}
	return c.Workload + ": " + name
}
