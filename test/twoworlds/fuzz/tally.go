package fuzz

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/posterngate/postern/test/twoworlds"
)

// A Round is what one seed at one level gave: a line of a tally, which goes on where it
// ended.
type Round struct {
	Seed       uint64
	Level      twoworlds.Level
	Sent       int
	Admitted   int
	Masked     int
	Errors     int
	Unsteady   int
	Differ     int
	Constructs map[string]int
}

// A Tally is a file of rounds, in JSON lines. It is appended to, and so survives what runs
// it. It is not safe for concurrent use.
type Tally struct {
	file   string
	Rounds []Round
}

// OpenTally reads a tally; one that is not there is empty.
func OpenTally(file string) (*Tally, error) {
	t := &Tally{file: file}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var r Round
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", file, len(t.Rounds)+1, err)
		}
		t.Rounds = append(t.Rounds, r)
	}
	return t, lines.Err()
}

// Has reports whether a seed was run at a level.
func (t *Tally) Has(seed uint64, l twoworlds.Level) bool {
	for i := range t.Rounds {
		if t.Rounds[i].Seed == seed && t.Rounds[i].Level == l {
			return true
		}
	}
	return false
}

// Add appends what a seed gave.
func (t *Tally) Add(seed uint64, l twoworlds.Level, r *Report) error {
	round := Round{seed, l, r.Sent, r.Admitted, r.Masked, r.Errors, r.Unsteady, len(r.Failures), r.Constructs}
	t.Rounds = append(t.Rounds, round)
	b, err := json.Marshal(round)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(t.file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	return errors.Join(err, f.Close())
}

// Sum is all rounds of a level as one report.
func (t *Tally) Sum(l twoworlds.Level) *Report {
	sum := &Report{}
	for i := range t.Rounds {
		r := &t.Rounds[i]
		if r.Level == l {
			sum.Add(&Report{Sent: r.Sent, Admitted: r.Admitted, Masked: r.Masked, Errors: r.Errors, Unsteady: r.Unsteady, Constructs: r.Constructs})
			sum.Failures = append(sum.Failures, make([]Failure, r.Differ)...)
		}
	}
	return sum
}
