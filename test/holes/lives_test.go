//go:build holes

package holes

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// said is what a schedule says that shows a fault.
var said = regexp.MustCompile(`(?:simulation|staleness)_test\.go:\d+: (.+)`)

// TestLives opens each fault in the life of sessions, grants and leases, and has the
// random schedules find it.
func TestLives(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	defer cancel()
	simulation := filepath.Join(t.TempDir(), "simulation.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "holes", "-o", simulation, "./controlplane/api/nodeapi")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the simulation: %v\n%s", err, out)
	}
	simulate := func(hole string) (string, error) {
		cmd := exec.CommandContext(ctx, simulation, "-test.run", "TestSimulation$|TestStaleness", "-test.failfast")
		cmd.Dir = "../../controlplane/api/nodeapi"
		cmd.Env = append(os.Environ(), holeVar+"="+hole, "POSTERN_SIMULATIONS=80")
		out, err := cmd.CombinedOutput()
		if found := said.FindSubmatch(out); found != nil {
			return string(found[1]), err
		}
		return string(bytes.TrimSpace(out)), err
	}
	if what, err := simulate(""); err != nil {
		t.Fatalf("without a fault: %v\n%.2000s", err, what)
	}
	for _, h := range Lives {
		what, err := simulate(h.Name)
		if err == nil || what == "" {
			t.Errorf("%-18s NOBODY FINDS IT", h.Name)
			continue
		}
		t.Logf("%-18s %.150s", h.Name, what)
	}
}
