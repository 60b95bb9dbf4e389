// Package result is what a run of the suite leaves behind, as JSON: where it was taken,
// every sample, and what was proven.
package result

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/posterngate/postern/bench/account"
	"github.com/posterngate/postern/bench/stats"
)

// Schema is the version of the file.
const Schema = 1

// A Run is one run of the suite.
type Run struct {
	Schema   int               `json:"schema"`
	Began    time.Time         `json:"began"`
	Took     string            `json:"took"`
	Mode     string            `json:"mode"`
	Seed     uint64            `json:"seed"`
	Rounds   int               `json:"rounds"`
	Seconds  float64           `json:"seconds"` // of a round
	Commit   string            `json:"commit"`
	Machine  account.Machine   `json:"machine"`
	Versions map[string]string `json:"versions"`
	Floors   Floors            `json:"floors"`
	Skipped  []string          `json:"skipped,omitempty"`
	Cells    []*Cell           `json:"cells"`
}

// Floors are what the machine costs whatever a gateway does. Times in nanoseconds.
type Floors struct {
	Syscall float64 `json:"syscall_ns"`
	TCPHop  float64 `json:"tcp_hop_ns"`    // 120 bytes: write and read, CPU
	UnixHop float64 `json:"unix_hop_ns"`   // the same over a Unix socket
	TCP64K  float64 `json:"tcp_64k_ns"`    // 64 KiB: write and read
	SHA16K  float64 `json:"sha256_16k_ns"` // compute alone
}

// A Cell is one thing that was measured.
type Cell struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Samples []Sample `json:"samples"`
	Proof   []string `json:"proof"`            // what was shown to work
	Failed  string   `json:"failed,omitempty"` // why there is no number
	Noisy   []string `json:"noisy,omitempty"`  // why it can neither pass nor fail
	Notes   []string `json:"notes,omitempty"`
}

// A Sample is one target in one round. Values are by metric; the metric's name ends
// with its unit.
type Sample struct {
	Round    int                `json:"round"`
	Workload string             `json:"workload"`
	Target   string             `json:"target"`
	Others   float64            `json:"others"` // share of the machine that others used
	Values   map[string]float64 `json:"values"`
}

// Metric is the values of one metric by round.
func (c *Cell) Metric(workload, target, metric string) map[int]float64 {
	out := map[int]float64{}
	for _, s := range c.Samples {
		if v, ok := s.Values[metric]; ok && s.Workload == workload && s.Target == target {
			out[s.Round] = v
		}
	}
	return out
}

// Figure is what the rounds gave.
func (c *Cell) Figure(workload, target, metric string) stats.Figure {
	var values []float64
	for _, v := range c.Metric(workload, target, metric) {
		values = append(values, v)
	}
	return stats.Of(values)
}

// Ratio is one target over another, paired inside rounds.
func (c *Cell) Ratio(workload, target, over, metric string) stats.Figure {
	return stats.Of(stats.Paired(c.Metric(workload, target, metric), c.Metric(workload, over, metric)))
}

// Workloads are those of a cell, in the order of their first samples' names.
func (c *Cell) Workloads() []string { return c.distinct(func(s Sample) string { return s.Workload }) }

// Targets are those of a workload.
func (c *Cell) Targets(workload string) []string {
	return c.distinct(func(s Sample) string {
		if s.Workload != workload {
			return ""
		}
		return s.Target
	})
}

func (c *Cell) distinct(of func(Sample) string) []string {
	var out []string
	for _, s := range c.Samples {
		if v := of(s); v != "" && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// Cell finds one by its id, or nil.
func (r *Run) Cell(id string) *Cell {
	i := slices.IndexFunc(r.Cells, func(c *Cell) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return r.Cells[i]
}

// Read reads a run.
func Read(file string) (*Run, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &Run{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if r.Schema != Schema {
		return nil, fmt.Errorf("%s has schema %d, and this program reads %d", file, r.Schema, Schema)
	}
	return r, nil
}

// Write writes a run.
func (r *Run) Write(file string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
