package arch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// advisories are published faults of other gateways, and of what they are made of, whose
// classes could be ours: each is tried, under its name.
var advisories = strings.Fields(`
	CVE-2019-9512 CVE-2022-36130
	CVE-2023-42442 CVE-2023-42820 CVE-2023-43660 CVE-2023-44487 CVE-2023-48795
	CVE-2024-1052 CVE-2024-7594 CVE-2024-27316 CVE-2024-45337 CVE-2024-47616
	CVE-2025-5999 CVE-2025-6014 CVE-2025-6015 CVE-2025-6203 CVE-2025-49825 CVE-2025-62513 CVE-2025-62705 CVE-2025-62712
	CVE-2026-3605 CVE-2026-7776 CVE-2026-33186 CVE-2026-33757 CVE-2026-33758 CVE-2026-39388 CVE-2026-39946 CVE-2026-40264 CVE-2026-45808 CVE-2026-46405
	GHSA-444v-8vxr-p36h GHSA-59w7-v8rr-pr4p GHSA-xp3c-3jw3-4vcr
	GHSA-5hvv-m4w4-gf6v GHSA-7rh7-c77v-6434 GHSA-7x63-xv5r-3p2x GHSA-c5c4-8r6x-56w3 GHSA-pxq7-h93f-9jrg GHSA-vjrc-mh2v-45x6`)

// TestAdvisories: each advisory is named where a test tries it.
func TestAdvisories(t *testing.T) {
	var all strings.Builder
	for _, f := range load(t) {
		if !f.test || strings.HasSuffix(f.path, "test/arch/advisories_test.go") {
			continue
		}
		src, err := os.ReadFile(filepath.Join("../..", f.path))
		if err != nil {
			t.Fatal(err)
		}
		all.Write(src)
	}
	for _, name := range advisories {
		if !strings.Contains(all.String(), name) {
			t.Errorf("no test has the name of %s", name)
		}
	}
}
