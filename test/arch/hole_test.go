package arch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/test/holes"
)

var planted = regexp.MustCompile(`(?:hole\.Is|predicate)\("([a-z-]+)"\)`)

// TestHolesAreListed: every planted fault is tried, and what must find it is there.
func TestHolesAreListed(t *testing.T) {
	listed, used := map[string]bool{}, map[string]bool{}
	for _, h := range holes.All {
		if listed[h.Name] {
			t.Errorf("%s is listed twice", h.Name)
		}
		listed[h.Name] = true
		where, what := "test/truth/testdata/*.yaml", "id: "+h.By+"[,\n]"
		if pkg, test, ok := strings.Cut(h.By, " "); ok {
			where, what = pkg+"/*_test.go", `func `+test+`\(`
		}
		if !contain(t, where, what) {
			t.Errorf("%s is found by %s, which is not there", h.Name, h.By)
		}
	}
	for _, f := range load(t) {
		src, err := os.ReadFile(filepath.Join("../..", f.path))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range planted.FindAllSubmatch(src, -1) {
			used[string(m[1])] = true
			if !listed[string(m[1])] {
				t.Errorf("%s: hole %s is not in test/holes", f.path, m[1])
			}
		}
	}
	for name := range listed {
		if !used[name] {
			t.Errorf("hole %s is planted nowhere", name)
		}
	}
}

// contain reports whether one of the files of a pattern has what an expression matches.
func contain(t *testing.T, files, expression string) bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("../..", files))
	if err != nil {
		t.Fatal(err)
	}
	what := regexp.MustCompile(expression)
	return slices.ContainsFunc(names, func(name string) bool {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return what.Match(b)
	})
}

// TestNoHoleIsShipped: nothing of the planted faults is in a binary that is built as
// users get it.
func TestNoHoleIsShipped(t *testing.T) {
	node := filepath.Join(t.TempDir(), "node")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", node, "./dataplane/cmd/postern-node")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the node: %v\n%s", err, out)
	}
	b, err := os.ReadFile(node)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range holes.All {
		if bytes.Contains(b, []byte(h.Name)) {
			t.Errorf("the node knows of %s", h.Name)
		}
	}
	if bytes.Contains(b, []byte("POSTERN_HOLE")) {
		t.Error("the node can be told to open a hole")
	}
}
