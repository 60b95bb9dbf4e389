package steward_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/steward"
	"github.com/posterngate/postern/controlplane/store/storetest"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/test/wait"
)

const workloads = `
kind: Workload
metadata: {name: fine}
spec: {owner: ada, trust: {issuer: "https://x.example", audience: a, when: 'claims.sub == "fine"'}, expires: 2027-03-31T00:00:00Z}
---
kind: Workload
metadata: {name: orphan}
spec: {owner: carol, trust: {issuer: "https://x.example", audience: a, when: 'claims.sub == "orphan"'}, expires: 2027-03-31T00:00:00Z}
---
kind: Workload
metadata: {name: old}
spec: {owner: ada, trust: {issuer: "https://x.example", audience: a, when: 'claims.sub == "old"'}, expires: 2026-11-28T00:00:00Z}
`

const lock = "---\nkind: Lock\nmetadata: {name: left}\nspec: {subject: carol, reason: has left}\n"

func compiled(t *testing.T, text string) *policy.Snapshot {
	t.Helper()
	s := policytest.Compile(t, text)
	return s
}

// TestTold: each alert is told once, by whichever replica is first, and again once it has
// passed and come back.
func TestTold(t *testing.T) {
	m := storetest.NewMemory()
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	log := audit.New(m, func() time.Time { return now })
	current := compiled(t, workloads+lock)
	changes := make(chan struct{}, 1)
	make1 := func() *steward.Steward {
		return steward.New(steward.Config{
			Store: m, Snapshot: func() *policy.Snapshot { return current }, Audit: log, Logger: slog.New(slog.DiscardHandler), Now: func() time.Time { return now },
			Changed: func() (<-chan struct{}, func()) { return changes, func() {} },
		})
	}
	round := func(s *steward.Steward) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = s.Run(ctx) }()
		changes <- struct{}{} // taken once the first look is over
		wait.For(t, "the first look is over", func() bool { return len(changes) == 0 })
		cancel()
		<-done
	}
	told := func() (out []string) {
		t.Helper()
		entries, _, err := log.List(t.Context(), audit.Query{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, e.GetObject()+" "+e.GetOutcome())
		}
		return out
	}
	round(make1())
	round(make1()) // another replica, or a restart
	if got := strings.Join(told(), ", "); got != "workload/old ends-soon, workload/orphan owner-locked" && got != "workload/orphan owner-locked, workload/old ends-soon" {
		t.Errorf("told %q", got)
	}
	current = compiled(t, workloads)
	round(make1())
	current = compiled(t, workloads+lock)
	round(make1())
	if got := told(); len(got) != 3 || got[0] != "workload/orphan owner-locked" {
		t.Errorf("what came back: %q", got)
	}
	now = now.AddDate(0, 0, 4)
	if needs := make1().Needs(); len(needs) != 2 || needs[0].Why != policy.IsOver || needs[0].Workload != "old" {
		t.Errorf("%+v", needs)
	}
}
