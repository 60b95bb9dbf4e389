//go:build holes

package holes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
	"github.com/posterngate/postern/test/truth"
	"github.com/posterngate/postern/test/twoworlds"
	"github.com/posterngate/postern/test/twoworlds/fuzz"
)

const holeVar = "POSTERN_HOLE"

func TestMain(m *testing.M) { house.Main(m) }

// TestHoles opens one hole after the other: what it names must find it, and must find
// nothing once it is closed.
func TestHoles(t *testing.T) {
	f := finders{top: t, binaries: map[string]string{}}
	for _, h := range All {
		t.Run(h.Name, func(t *testing.T) {
			find := f.byEntry
			if strings.Contains(h.By, " ") {
				find = f.byTest
			}
			found := find(t, h.By, h.Name)
			switch closed := find(t, h.By, ""); {
			case closed != "":
				t.Errorf("%s, with the hole closed: %s", h.By, closed)
			case found == "":
				t.Errorf("%s does not find it", h.By)
			default:
				t.Logf("%s: %.200s", h.By, found)
			}
		})
	}
}

// finders are what holes have in common; each part is made when the first hole needs it.
type finders struct {
	top      *testing.T // ends after the tests of single holes
	worlds   *twoworlds.Worlds
	policies int               // applied to them
	binaries map[string]string // of packages' tests
}

// byEntry says what an entry of the catalogue finds while a hole is open, or none for "";
// "" is nothing.
func (f *finders) byEntry(t *testing.T, id, hole string) string {
	if f.worlds == nil {
		f.worlds = twoworlds.Start(f.top, fuzz.Options(twoworlds.Source, twoworlds.Result))
	}
	entries := load(t)
	i := slices.IndexFunc(entries, func(e truth.Entry) bool { return e.ID == id })
	if i < 0 {
		t.Fatalf("the catalogue has no entry %s", id)
	}
	f.turn(t, hole)
	for _, l := range f.worlds.Levels {
		found, err := truth.Judge(t.Context(), t, f.worlds, &entries[i], l, true)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) > 0 {
			return found[0].String()
		}
	}
	return ""
}

// load reads the catalogue.
func load(t *testing.T) []truth.Entry {
	t.Helper()
	var entries []truth.Entry
	for _, name := range []string{"catalogue.yaml", "rules.yaml", "shapes.yaml"} {
		more, err := truth.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, more...)
	}
	return entries
}

// another is a task that nodes serve and nobody takes: what was judged under the policy
// before it is not used again.
const another = `apiVersion: postern/v1
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

// turn opens one hole alone, or none, for what is judged from now on.
func (f *finders) turn(t *testing.T, hole string) {
	t.Helper()
	t.Setenv(holeVar, hole)
	f.policies++
	f.worlds.House.Apply(t, "ada", fmt.Sprintf(another, f.policies))
	var resources []string
	for _, l := range f.worlds.Levels {
		resources = append(resources, string(l)+"-a", string(l)+"-b")
	}
	f.worlds.House.Serves(t, resources...)
}

// byTest says the same of a test of a package: "PACKAGE TEST".
func (f *finders) byTest(t *testing.T, by, hole string) string {
	pkg, test, _ := strings.Cut(by, " ")
	binary := f.binaries[pkg]
	if binary == "" {
		binary = filepath.Join(f.top.TempDir(), "tests")
		build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "holes", "-o", binary, "./"+pkg)
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
		f.binaries[pkg] = binary
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run", "^"+test+"$", "-test.failfast")
	cmd.Dir = filepath.Join("../..", pkg)
	cmd.Env = append(os.Environ(), holeVar+"="+hole, "POSTERN_SIMULATIONS=80")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	_, what, failed := strings.Cut(string(out), "--- FAIL: "+test+" ")
	if !failed {
		t.Fatalf("%s: %v\n%.2000s", by, err, out)
	}
	return what
}
