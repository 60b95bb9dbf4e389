// Package pgbench runs PostgreSQL's own load generator and says what came of it, from the
// generator's own notes.
package pgbench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Run is one run of pgbench.
type Run struct {
	Program   string
	Env       []string // of the program: whom to connect to, as libpq takes it
	Target    string   // a connection string; empty leaves it to Env
	Script    string   // file
	Mode      string   // simple, extended or prepared
	Clients   int
	Each      int           // transactions of each client, or
	For       time.Duration // how long, in whole seconds
	Scale     int           // the script's variable :scale
	Reconnect bool          // a connection for each transaction
	Rate      int           // transactions a second at the most, all clients together; 0 is without a bound
}

// sampling is the share of transactions that pgbench writes down.
const sampling = 0.2

// A Transactions is what pgbench says of a run.
type Transactions struct {
	Done       int
	Failed     int
	Rate       float64 // a second, while every client was at work
	Steady     bool    // whether there was such a time; else Rate is of the whole
	Latencies  []time.Duration
	Begin, End time.Time // of the time that Rate is about
	ClientCPU  time.Duration

	clients [][]point
}

type point struct {
	at time.Time
	no float64 // the transaction's number
}

// Between is how many transactions were done in a part of the run.
func (t *Transactions) Between(from, to time.Time) float64 {
	sum := 0.0
	for _, c := range t.clients {
		sum += numberAt(c, to) - numberAt(c, from)
	}
	return sum
}

// numberAt interpolates between the transactions that were written down.
func numberAt(c []point, at time.Time) float64 {
	i, exact := slices.BinarySearchFunc(c, at, func(p point, at time.Time) int { return p.at.Compare(at) })
	switch {
	case exact || i == 0:
		return c[i].no
	case i == len(c):
		return c[i-1].no
	}
	a, b := c[i-1], c[i]
	return a.no + (b.no-a.no)*float64(at.Sub(a.at))/float64(b.at.Sub(a.at))
}

// Percentile is a latency: half of them are shorter at 0.5.
func (t *Transactions) Percentile(q float64) time.Duration {
	if len(t.Latencies) == 0 {
		return 0
	}
	return t.Latencies[min(len(t.Latencies)-1, int(q*float64(len(t.Latencies))))]
}

// Do runs it, with its notes in dir. What pgbench complains of is in the error.
func (p Run) Do(ctx context.Context, dir string) (*Transactions, error) {
	work, err := os.MkdirTemp(dir, "pgbench-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(work) }()
	share := sampling
	if p.Reconnect {
		share = 1 // there are few
	}
	args := []string{
		"-n", "-f", p.Script, "-D", "scale=" + strconv.Itoa(p.Scale), "-M", p.Mode, "-c", strconv.Itoa(p.Clients), "-j", strconv.Itoa(min(2, p.Clients)),
		"-l", "--log-prefix=" + filepath.Join(work, "log"), "--sampling-rate=" + strconv.FormatFloat(share, 'f', -1, 64),
	}
	if p.For > 0 {
		args = append(args, "-T", strconv.Itoa(int(p.For/time.Second)))
	} else {
		args = append(args, "-t", strconv.Itoa(p.Each))
	}
	if p.Rate > 0 {
		args = append(args, "-R", strconv.Itoa(p.Rate))
	}
	if p.Reconnect {
		args = append(args, "-C")
	}
	if p.Target != "" {
		args = append(args, p.Target)
	}
	cmd := exec.CommandContext(ctx, p.Program, args...)
	cmd.Env = append(slices.Clone(p.Env), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("pgbench: %w\n%s", err, last(out, 2000))
	}
	t := &Transactions{ClientCPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if t.Done, t.Failed, err = processed(string(out)); err != nil {
		return nil, err
	}
	return t, t.read(work, p.Clients)
}

// processed finds what pgbench says at its end.
func processed(out string) (done, failed int, err error) {
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "number of transactions actually processed: "); ok {
			n, _, _ := strings.Cut(strings.TrimSpace(rest), "/")
			if done, err = strconv.Atoi(n); err != nil {
				return 0, 0, fmt.Errorf("pgbench says %q", line)
			}
		}
		if rest, ok := strings.CutPrefix(line, "number of failed transactions: "); ok {
			n, _, _ := strings.Cut(rest, " ")
			failed, _ = strconv.Atoi(n)
		}
	}
	if done == 0 {
		return 0, 0, fmt.Errorf("pgbench processed nothing:\n%s", out)
	}
	return done, failed, nil
}

// read takes in the log of every thread.
func (t *Transactions) read(dir string, clients int) error {
	t.clients = make([][]point, clients)
	files, err := filepath.Glob(filepath.Join(dir, "log.*"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("pgbench left no log (%w)", err)
	}
	for _, file := range files {
		if err := t.readFile(file); err != nil {
			return err
		}
	}
	slices.Sort(t.Latencies)
	for _, c := range t.clients {
		if len(c) < 2 {
			return errors.New("pgbench's log is too short; the run must be longer")
		}
		if first := c[0].at; t.Begin.Before(first) {
			t.Begin = first
		}
		if end := c[len(c)-1].at; t.End.IsZero() || end.Before(t.End) {
			t.End = end
		}
	}
	t.Steady = t.Begin.Before(t.End)
	from, to := t.Begin, t.End
	if !t.Steady {
		from, to = t.ends()
	}
	t.Rate = t.Between(from, to) / to.Sub(from).Seconds()
	return nil
}

// ends are the first and the last time that was written down.
func (t *Transactions) ends() (from, to time.Time) {
	for _, c := range t.clients {
		if from.IsZero() || c[0].at.Before(from) {
			from = c[0].at
		}
		if end := c[len(c)-1].at; end.After(to) {
			to = end
		}
	}
	return from, to
}

func (t *Transactions) readFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// client transaction microseconds script seconds microseconds
		var n [6]int64
		fields := strings.Fields(lines.Text())
		if len(fields) < len(n) {
			return fmt.Errorf("pgbench's log has the line %q", lines.Text())
		}
		for i := range n {
			if n[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
				return fmt.Errorf("pgbench's log has the line %q", lines.Text())
			}
		}
		if n[0] < 0 || n[0] >= int64(len(t.clients)) {
			return fmt.Errorf("pgbench's log names client %d", n[0])
		}
		t.clients[n[0]] = append(t.clients[n[0]], point{time.Unix(n[4], n[5]*1000), float64(n[1])})
		t.Latencies = append(t.Latencies, time.Duration(n[2])*time.Microsecond)
	}
	return lines.Err()
}

func last(b []byte, n int) string {
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return string(b)
}
