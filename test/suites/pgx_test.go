// Package suites runs the test suites of other projects, straight at a server and through
// a node under a task that permits everything: what passes the one way must pass the
// other, save what a list says, with a reason each. `make suites`.
package suites

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// suitesVar is set where the suites are to be run, which takes minutes; onlyVar narrows
// them to tests that a regular expression matches, for those who mend one.
const (
	suitesVar = "POSTERN_SUITES"
	onlyVar   = "POSTERN_SUITES_ONLY"
)

// packages are those of pgx that have tests which talk to a server, and their like.
var packages = []string{".", "pgconn", "pgtype", "pgtype/zeronull", "pgxpool", "stdlib", "tracelog", "multitracer"}

// timeout bounds the tests of one package.
const timeout = 10 * time.Minute

// TestPgx runs pgx's own tests, those of the very version that go.mod pins.
func TestPgx(t *testing.T) {
	if os.Getenv(suitesVar) == "" {
		return // make suites
	}
	h := house.Start(t)
	h.PG.SQL(t, "CREATE DATABASE pgx_test STRATEGY file_copy")
	h.PG.SQLIn(t, "pgx_test", string(house.Must(os.ReadFile("testdata/pgx.sql"))(t)))
	h.Apply(t, "ada", strings.NewReplacer("${USER}", h.PG.Superuser, "${PASSWORD}", h.PG.Password).Replace(string(house.Must(os.ReadFile("testdata/pgx.yaml"))(t))))
	h.Serves(t, "pgx")
	node := fmt.Sprintf("postgres://anything.pgx:%s@%s/pgx_test?sslmode=verify-full&sslrootcert=%s", h.DataToken(t, "alice"), h.Nodes[0].PG, h.CAFile)
	allowed := exceptions(t, "testdata/pgx-allowed.yaml")

	source := strings.TrimSpace(output(t, ".", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/jackc/pgx/v5"))
	bin := t.TempDir()
	passed, lost := 0, 0
	for _, pkg := range packages {
		program := filepath.Join(bin, strings.ReplaceAll(pkg, "/", "_")+".test")
		output(t, source, "go", "test", "-mod=readonly", "-c", "-o", program, "./"+pkg)
		began := time.Now()
		straight, _ := results(t, program, filepath.Join(source, pkg), h.PG.SuperDSN("pgx_test"))
		between := time.Now()
		through, said := results(t, program, filepath.Join(source, pkg), node)
		good := slices.DeleteFunc(slices.Sorted(maps.Keys(straight)), func(name string) bool { return straight[name] != "pass" })
		passed += len(good)
		missing := 0
		for _, name := range good {
			if through[name] == "pass" {
				continue
			}
			missing++
			id := pkg + " " + name
			if allowed[id] == "" {
				t.Errorf("%s passes straight, and through the node: %s\n%.1500s", id, through[name], said[name])
			}
			delete(allowed, id)
		}
		lost += missing
		t.Logf("pgx/%s: %d of %d tests pass straight, %d of those not through the node; %s and %s", pkg, len(good), len(straight), missing,
			between.Sub(began).Round(100*time.Millisecond), time.Since(between).Round(100*time.Millisecond))
	}
	t.Logf("pgx: %d of %d tests that pass straight pass through the node (%.2f %%)", passed-lost, passed, 100*float64(passed-lost)/float64(max(passed, 1)))
	if os.Getenv(onlyVar) == "" {
		if lost*100 > passed {
			t.Errorf("%d of %d do not pass through the node: more than one in a hundred", lost, passed)
		}
		for id := range allowed {
			t.Errorf("testdata/pgx-allowed.yaml: %s passes through the node", id)
		}
	}
}

// exceptions are the tests that need not pass, with the reason of each.
func exceptions(t *testing.T, file string) map[string]string {
	t.Helper()
	var list []struct {
		Why   string
		Tests []string // package and name
	}
	if err := yaml.UnmarshalStrict(house.Must(os.ReadFile(file))(t), &list); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	out := map[string]string{}
	for _, l := range list {
		for _, id := range l.Tests {
			if l.Why == "" || out[id] != "" {
				t.Errorf("%s: %s needs one reason", file, id)
			}
			out[id] = l.Why
		}
	}
	return out
}

// random are numbers in the names of temporary folders, and so of tests.
var random = regexp.MustCompile(`[0-9]{8,}`)

// An event is a line of go tool test2json.
type event struct{ Action, Test, Output string }

// results runs a package's tests against a database, and says how each ended and what it
// said; what is said outside of any test is said by "".
func results(t *testing.T, program, dir, database string) (ended, said map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "tool", "test2json", program, "-test.v=test2json", "-test.timeout="+timeout.String(), "-test.run="+os.Getenv(onlyVar))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PGX_TEST_DATABASE="+database)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) { // some tests fail either way
		t.Fatal(err)
	}
	ended, said = map[string]string{}, map[string]string{}
	for events := json.NewDecoder(bytes.NewReader(out)); ; {
		var e event
		if err := events.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		e.Test = random.ReplaceAllString(e.Test, "N")
		switch e.Action {
		case "output":
			said[e.Test] += e.Output
		case "pass", "fail", "skip":
			if e.Test != "" {
				ended[e.Test] = e.Action
			}
		}
	}
	if len(ended) == 0 && os.Getenv(onlyVar) == "" {
		t.Fatalf("%s ran no test:\n%.3000s", program, out)
	}
	return ended, said
}

func output(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, errs.String())
	}
	return string(out)
}
