//go:build holes

package holes

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/test/e2e/house"
	"github.com/posterngate/postern/test/truth"
	"github.com/posterngate/postern/test/twoworlds"
	"github.com/posterngate/postern/test/twoworlds/fuzz"
	"github.com/posterngate/postern/test/twoworlds/generate"
)

const (
	holeVar = "POSTERN_HOLE"
	onlyVar = "POSTERN_HOLES" // some names, for those who mend one
)

func TestMain(m *testing.M) { house.Main(m) }

// turned is a task that every node serves and nobody takes.
const turned = `apiVersion: postern/v1
kind: Task
metadata: {name: turn}
spec:
  purpose: to be another policy, the %dth
  resources: {labels: {worlds: two}}
  permit: [{table: sales.orders_pub, verbs: [select], columns: [id]}]
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: turn}
spec: {subjects: [{group: analysts}], tasks: [turn]}
`

// finder looks for a hole, and says what it found first, or "".
type finder struct {
	name string
	find func(t *testing.T, h Hole) string
}

// TestHoles opens each hole and sees who finds it. What the same finder says with the
// hole closed is not the hole's.
func TestHoles(t *testing.T) {
	options := fuzz.Options(twoworlds.Source, twoworlds.Result)
	w := twoworlds.Start(t, options)
	again := 0
	// What was judged under another hole is not used again: the policy is a new one.
	turn := func(hole string) {
		t.Setenv(holeVar, hole)
		again++
		w.House.Apply(t, "ada", fmt.Sprintf(turned, again))
		var resources []string
		for _, l := range w.Levels {
			for _, side := range []string{"a", "b"} {
				resources = append(resources, string(l)+"-"+side)
			}
		}
		w.House.Serves(t, resources...)
	}
	turn("")
	entries := load(t, w)
	finders := []finder{
		{"catalogue", func(t *testing.T, h Hole) string { return byCatalogue(t, w, entries, h, turn) }},
		{"fuzzer", func(t *testing.T, h Hole) string { return byFuzzer(t, w, h, turn) }},
		{"own tests", byTests},
	}
	found, by, began := 0, map[string]int{}, time.Now()
	all := All
	if only := os.Getenv(onlyVar); only != "" {
		all = slices.DeleteFunc(slices.Clone(All), func(h Hole) bool { return !strings.Contains(only, h.Name) })
	}
	for _, h := range all {
		what, who := "", ""
		for _, f := range finders {
			if what = f.find(t, h); what != "" {
				who = f.name
				break
			}
		}
		if what == "" {
			t.Errorf("%-26s NOBODY FINDS IT", h.Name)
			continue
		}
		found++
		by[who]++
		t.Logf("%-26s %-10s %.150s", h.Name, who, what)
	}
	turn("")
	t.Logf("%d of %d planted holes found (%.0f %%) in %s: %v", found, len(all), 100*float64(found)/float64(len(all)), time.Since(began).Round(time.Second), by)
}

// load reads the entries that pass while every hole is closed: some need larger tables.
func load(t *testing.T, w *twoworlds.Worlds) []truth.Entry {
	t.Helper()
	var entries []truth.Entry
	for _, name := range []string{"catalogue.yaml", "rules.yaml", "shapes.yaml"} {
		more, err := truth.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, more...)
	}
	return slices.DeleteFunc(entries, func(e truth.Entry) bool {
		if e.Want == truth.Bounded {
			return true
		}
		for _, l := range w.Levels {
			if what := judge(t, w, &e, l); what != "" {
				t.Logf("left out: %.200s", what)
				return true
			}
		}
		return false
	})
}

// byCatalogue judges the entries, those first that the hole names.
func byCatalogue(t *testing.T, w *twoworlds.Worlds, entries []truth.Entry, h Hole, turn func(string)) string {
	t.Helper()
	order := slices.Clone(entries)
	first := strings.Fields(h.First)
	rank := func(e truth.Entry) int {
		if slices.ContainsFunc(first, func(s string) bool { return e.Class == s || strings.HasPrefix(e.ID, s) }) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(order, func(a, b truth.Entry) int { return rank(a) - rank(b) })
	turn(h.Name)
	suspects := 0
	for i := range order {
		for _, l := range w.Levels {
			what := judge(t, w, &order[i], l)
			if what == "" {
				continue
			}
			turn("")
			if judge(t, w, &order[i], l) == "" {
				return what
			}
			if suspects++; suspects > 5 {
				t.Fatalf("%s: the worlds are harmed: %s", h.Name, what)
			}
			turn(h.Name)
		}
	}
	return ""
}

func judge(t *testing.T, w *twoworlds.Worlds, e *truth.Entry, l twoworlds.Level) string {
	t.Helper()
	found, err := truth.Judge(t.Context(), t, w, e, l, true)
	if err != nil {
		return "the suite fails: " + err.Error()
	}
	if len(found) == 0 {
		return ""
	}
	return found[0].String()
}

// generated is how many statements are tried on one hole.
const generated = 1200

func byFuzzer(t *testing.T, w *twoworlds.Worlds, h Hole, turn func(string)) string {
	t.Helper()
	for _, l := range w.Levels {
		turn(h.Name)
		r := &fuzz.Report{}
		f := fuzz.Fuzzer{Worlds: w, Level: l, Report: r}
		err := f.Run(t.Context(), t, map[string]fuzz.Source{"seed 1": fuzz.Generated(1, generated/2), "seed 2": fuzz.Generated(2, generated/2)})
		if err != nil {
			return err.Error()
		}
		if len(r.Failures) == 0 {
			continue
		}
		turn("")
		first := r.Failures[0]
		closed := &fuzz.Report{}
		f = fuzz.Fuzzer{Worlds: w, Level: l, Report: closed}
		err = f.Run(t.Context(), t, map[string]fuzz.Source{"closed": fuzz.Listed([]generate.Statement{first.Statement})})
		if err == nil && len(closed.Failures) == 0 {
			return first.String()
		}
	}
	return ""
}

// byTests runs what the packages test of themselves, against a real server. A test that
// fails with the hole closed as well finds nothing.
func byTests(t *testing.T, h Hole) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	run := func(hole, pkg, tests string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-short", "-failfast", "-tags", "holes", "-run", tests, "./"+pkg)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), holeVar+"="+hole)
		return cmd.CombinedOutput()
	}
	for _, pkg := range []string{"pkg/sql/postgres", "dataplane/engine/postgres", "pkg/policy"} {
		out, err := run(h.Name, pkg, ".")
		if err == nil {
			continue
		}
		found := failed.FindSubmatch(out)
		if found == nil {
			t.Fatalf("%s: %v\n%.2000s", h.Name, err, out)
		}
		name := string(found[1])
		if out, err := run("", pkg, "^"+name+"$"); err != nil {
			t.Fatalf("%s: %s of %s fails with the hole closed: %v\n%.2000s", h.Name, name, pkg, err, out)
		}
		return pkg + ": " + name
	}
	return ""
}
