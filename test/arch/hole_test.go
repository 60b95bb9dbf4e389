package arch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/posterngate/postern/test/holes"
)

var planted = regexp.MustCompile(`(?:hole\.Is|predicate)\("([a-z-]+)"\)`)

// TestHolesAreListed: every planted fault is tried by those who look for them.
func TestHolesAreListed(t *testing.T) {
	listed, used := map[string]bool{}, map[string]bool{}
	for _, h := range slices.Concat(holes.All, holes.Lives, holes.Pools, holes.Others) {
		if listed[h.Name] {
			t.Errorf("%s is listed twice", h.Name)
		}
		listed[h.Name] = true
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
	for _, h := range slices.Concat(holes.All, holes.Lives, holes.Pools, holes.Others) {
		if bytes.Contains(b, []byte(h.Name)) {
			t.Errorf("the node knows of %s", h.Name)
		}
	}
	if bytes.Contains(b, []byte("POSTERN_HOLE")) {
		t.Error("the node can be told to open a hole")
	}
}
