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

// tests are those of a package that may find a fault.
type tests struct{ pkg, run string }

// TestPools opens each fault of pooled connections, and has tests find it.
func TestPools(t *testing.T) {
	areFound(t, Pools,
		tests{"dataplane/session", "Connection|Grant|Loan|Policy|Killed"},
		tests{"dataplane/engine/postgres", "NothingOfASession|NotUsedAgain|StartupParametersArePart|ReuseOverTLS|ALateCancel"},
		tests{"test/truth", "TestPooled"},
	)
}

// TestOthers opens each fault beside sessions and statements, and has tests find it.
func TestOthers(t *testing.T) {
	areFound(t, Others,
		tests{"controlplane/approve", "Tightened"},
		tests{"controlplane/publish", "Fresh"},
		tests{"pkg/record", "ByItself"},
		tests{"dataplane/spool", "ChunksAreReadAlone"},
	)
}

// areFound opens each fault: tests that pass without it must fail.
func areFound(t *testing.T, faults []Hole, by ...tests) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	defer cancel()
	binaries := make([]string, len(by))
	for i, b := range by {
		binaries[i] = filepath.Join(t.TempDir(), "tests")
		build := exec.CommandContext(ctx, "go", "test", "-c", "-tags", "holes", "-o", binaries[i], "./"+b.pkg)
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", b.pkg, err, out)
		}
	}
	// find names a test that fails; "" where all pass.
	find := func(i int, hole string) string {
		cmd := exec.CommandContext(ctx, binaries[i], "-test.run", by[i].run, "-test.failfast")
		cmd.Dir = "../../" + by[i].pkg
		cmd.Env = append(os.Environ(), holeVar+"="+hole)
		out, err := cmd.CombinedOutput()
		if err == nil {
			return ""
		}
		found := failed.FindSubmatch(out)
		if found == nil {
			t.Fatalf("%s with fault %q: %v\n%.2000s", by[i].pkg, hole, err, out)
		}
		return string(found[1])
	}
	for i, b := range by {
		if what := find(i, ""); what != "" {
			t.Fatalf("%s without a fault: %s fails", b.pkg, what)
		}
	}
	for _, h := range faults {
		found := false
		for i, b := range by {
			if what := find(i, h.Name); what != "" {
				t.Logf("%-18s %-26s %s", h.Name, b.pkg, what)
				found = true
			}
		}
		if !found {
			t.Errorf("%-18s NOBODY FINDS IT", h.Name)
		}
	}
}
