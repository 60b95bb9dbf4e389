//go:build holes

package holes

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// failed is a test that has failed.
var failed = regexp.MustCompile(`--- FAIL: (\S+)`)

// TestPools opens each fault of pooled connections, and has tests find it.
func TestPools(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	defer cancel()
	finders := []struct{ pkg, run string }{
		{"dataplane/session", "Connection|Grant|Loan|Policy|Killed"},
		{"dataplane/engine/postgres", "NothingOfASession|NotUsedAgain|StartupParametersArePart|ReuseOverTLS|ALateCancel"},
		{"test/truth", "TestPooled"},
	}
	binaries := make([]string, len(finders))
	for i, f := range finders {
		binaries[i] = filepath.Join(t.TempDir(), "tests")
		build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "holes", "-o", binaries[i], "./"+f.pkg)
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", f.pkg, err, out)
		}
	}
	find := func(i int, hole string) (string, error) {
		cmd := exec.CommandContext(ctx, binaries[i], "-test.run", finders[i].run, "-test.failfast")
		cmd.Dir = "../../" + finders[i].pkg
		cmd.Env = append(os.Environ(), holeVar+"="+hole)
		out, err := cmd.CombinedOutput()
		if found := failed.FindSubmatch(out); found != nil {
			return string(found[1]), err
		}
		return string(out), err
	}
	for i, f := range finders {
		if what, err := find(i, ""); err != nil {
			t.Fatalf("%s without a fault: %v\n%.2000s", f.pkg, err, what)
		}
	}
	for _, h := range Pools {
		found := false
		for i, f := range finders {
			if what, err := find(i, h.Name); err != nil {
				t.Logf("%-18s %-26s %.150s", h.Name, f.pkg, what)
				found = true
			}
		}
		if !found {
			t.Errorf("%-18s NOBODY FINDS IT", h.Name)
		}
	}
}
