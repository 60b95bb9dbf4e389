package truth

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/sql/worker"
	"github.com/posterngate/postern/test/twoworlds"
)

// majorsVar has the versions of PostgreSQL that are run; the short form is majors.
// onlyVar narrows the entries to some ids or classes, and levelsVar the levels, for those
// who mend one.
const (
	majorsVar = "POSTERN_TRUTH"
	onlyVar   = "POSTERN_TRUTH_ONLY"
	levelsVar = "POSTERN_TRUTH_LEVELS"
)

var majors = []int{15, 18}

// TestMain prints the totals last of all where everything is run.
func TestMain(m *testing.M) {
	worker.Main()
	code := m.Run()
	if os.Getenv(majorsVar) != "" {
		code = max(code, total.print(os.Stdout))
	}
	os.Exit(code)
}

func TestCatalogue(t *testing.T) {
	all := os.Getenv(majorsVar)
	if all != "" {
		majors = nil
		for _, s := range strings.Split(all, ",") {
			n, err := strconv.Atoi(s)
			if err != nil {
				t.Fatalf("%s: %v", majorsVar, err)
			}
			majors = append(majors, n)
		}
	}
	entries := load(t)
	if only := os.Getenv(onlyVar); only != "" {
		entries = slices.DeleteFunc(entries, func(e Entry) bool { return !strings.Contains(only, e.ID) && !strings.Contains(only, e.Class) })
	}
	for _, major := range majors {
		t.Run("PostgreSQL "+strconv.Itoa(major), func(t *testing.T) { catalogue(t, major, entries, all == "" || os.Getenv(onlyVar) != "") })
	}
}

// load reads the entries of every file.
func load(t *testing.T) (entries []Entry) {
	t.Helper()
	for _, name := range []string{"catalogue.yaml", "rules.yaml", "shapes.yaml"} {
		more, err := Load(name)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, more...)
	}
	return entries
}

// levels are those that are judged; in the short form each at one version.
func levels(t *testing.T, major int, short bool) []twoworlds.Level {
	t.Helper()
	if s := os.Getenv(levelsVar); s != "" {
		var out []twoworlds.Level
		for _, l := range strings.Split(s, ",") {
			out = append(out, twoworlds.Level(l))
		}
		return out
	}
	switch {
	case short && major == majors[0]:
		return []twoworlds.Level{twoworlds.Result, twoworlds.Source}
	case short:
		return []twoworlds.Level{twoworlds.Native, twoworlds.Wall}
	}
	return []twoworlds.Level{twoworlds.Result, twoworlds.Source, twoworlds.Native, twoworlds.Wall}
}

// catalogue judges all entries at one version. What is short runs each in one protocol.
func catalogue(t *testing.T, major int, entries []Entry, short bool) {
	began := time.Now()
	entries = slices.Clone(entries)
	w := twoworlds.Start(t, twoworlds.Options{Major: major, Levels: levels(t, major, short)})
	unheld, err := Unheld()
	if err != nil {
		t.Fatal(err)
	}
	s := score{title: "PostgreSQL " + w.PG[0].Version, cells: map[cell]*count{}, unheld: map[string]bool{}}
	// What a wall does not hold comes last: it may change what the others look at.
	slices.SortStableFunc(entries, func(a, b Entry) int { return min(len(unheld[a.ID]), 1) - min(len(unheld[b.ID]), 1) })
	all := func(ctx context.Context, l twoworlds.Level, mine func(*Entry) bool) error {
		for i := range entries {
			e := &entries[i]
			if !mine(e) || !e.Alone(l) {
				continue
			}
			found, err := Judge(ctx, t, w, e, l, short)
			if err != nil {
				return fmt.Errorf("%s: %w", e.ID, err)
			}
			broken := slices.ContainsFunc(found, func(f Finding) bool { return f.Fault == Broken }) // says nothing of a wall
			if l == twoworlds.Wall && len(found) > 0 && unheld[e.ID] != "" && !broken {
				s.add(e, l, nil)
				s.unheld[e.ID] = true
				t.Logf("%s %s is not held by the wall alone: %s", found[0].Fault, e.ID, found[0].What)
				continue
			}
			s.add(e, l, found)
			for _, f := range found {
				t.Error(f.String())
			}
		}
		return nil
	}
	for _, l := range w.Levels {
		// What only runs into limits does so beside the rest, which shows whether the target
		// wrote anything, and so runs alone.
		g := run.New(t.Context())
		if l == twoworlds.Wall {
			g.Go("entries", func(ctx context.Context) error { return all(ctx, l, func(*Entry) bool { return true }) })
		} else {
			for _, limits := range []bool{true, false} {
				g.Go("entries", func(ctx context.Context) error {
					return all(ctx, l, func(e *Entry) bool { return (e.Want == Bounded) == limits })
				})
			}
		}
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
	s.took = time.Since(began)
	s.print(t.Output())
	total.merge(&s)
}

// A cell of the table.
type cell struct {
	class string
	level twoworlds.Level
}

type count struct{ entries, missed, leaks, alarms, broken int }

type score struct {
	mu    sync.Mutex
	title string
	took  time.Duration
	cells map[cell]*count
	// unheld are the entries that the wall alone did not hold, as is known.
	unheld map[string]bool
}

func (s *score) add(e *Entry, l twoworlds.Level, found []Finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.cells[cell{e.Class, l}]
	if c == nil {
		c = &count{}
		s.cells[cell{e.Class, l}] = c
	}
	c.entries++
	worst := map[Fault]bool{} // an entry counts once, in however many protocols it fails
	for _, f := range found {
		worst[f.Fault] = true
	}
	for f, n := range map[Fault]*int{Missed: &c.missed, Leak: &c.leaks, FalseAlarm: &c.alarms, Broken: &c.broken} {
		if worst[f] {
			*n++
		}
	}
}

// print writes the table, one row a class and level.
func (s *score) print(out io.Writer) {
	fmt.Fprintf(out, "\n%s, %s\n%-18s %-5s %8s %8s %8s %8s\n", s.title, s.took.Round(100*time.Millisecond), "class", "level", "entries", "missed", "leaks", "alarms")
	cells := slices.SortedFunc(maps.Keys(s.cells), func(a, b cell) int {
		return strings.Compare(a.class+a.level.Short(), b.class+b.level.Short())
	})
	for _, c := range cells {
		n := s.cells[c]
		fmt.Fprintf(out, "%-18s %-5s %8d %8d %8d %8d", c.class, c.level.Short(), n.entries, n.missed, n.leaks, n.alarms)
		if n.broken > 0 {
			fmt.Fprintf(out, "   %d broken", n.broken)
		}
		fmt.Fprintln(out)
	}
	if len(s.unheld) > 0 {
		fmt.Fprintf(out, "%d entries the wall alone does not hold, as testdata/wall.yaml says\n", len(s.unheld))
	}
}

// total is the sum over all versions and levels, which may run at once.
var total totals

type totals struct {
	mu     sync.Mutex
	n      count
	unheld map[string]bool // at some version
}

func (t *totals) merge(s *score) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.unheld == nil {
		t.unheld = map[string]bool{}
	}
	maps.Copy(t.unheld, s.unheld)
	for _, c := range s.cells {
		t.n.entries += c.entries
		t.n.missed += c.missed
		t.n.leaks += c.leaks
		t.n.alarms += c.alarms
		t.n.broken += c.broken
	}
}

// print writes the last line, and returns the exit code. Where everything was run, what
// a wall is said not to hold must be so.
func (t *totals) print(out io.Writer) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if os.Getenv(onlyVar) == "" && os.Getenv(levelsVar) == "" {
		said, err := Unheld()
		if err != nil {
			fmt.Fprintln(out, err)
			t.n.broken++
		}
		for _, id := range slices.Sorted(maps.Keys(said)) {
			if !t.unheld[id] {
				fmt.Fprintf(out, "testdata/wall.yaml: the wall alone holds %s at every version\n", id)
				t.n.broken++
			}
		}
	}
	fmt.Fprintf(out, "missed=%d leaks=%d false_alarms=%d\n", t.n.missed, t.n.leaks, t.n.alarms)
	if t.n.missed+t.n.leaks+t.n.alarms+t.n.broken > 0 || t.n.entries == 0 {
		return 1
	}
	return 0
}
