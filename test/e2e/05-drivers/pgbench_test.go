package drivers

import (
	"fmt"
	"os/exec"
	"regexp"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// benchTransactions is how many each of benchClients runs: this is about what is right,
// not about how fast.
const (
	benchTransactions = 50
	benchClients      = 2
)

// pgbench runs the stock pgbench: as a task at the node, or past it as the superuser.
func (s *shop) pgbench(t *testing.T, task string, args ...string) string {
	t.Helper()
	if s.PG.Pgbench == "" {
		t.Fatal("missing: pgbench, of the package postgresql-contrib or postgresql")
	}
	dsn := s.PG.SuperDSN("shop")
	if task != "" {
		dsn = fmt.Sprintf("user=%s.shop dbname=shop", task)
	}
	cmd := exec.CommandContext(t.Context(), s.PG.Pgbench, append(args, dsn)...)
	cmd.Env = s.environ(t)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("pgbench %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func (s *shop) bench(t *testing.T) {
	processed := regexp.MustCompile(fmt.Sprintf(`number of transactions actually processed: %d/%[1]d\n`, benchTransactions*benchClients))
	failed := regexp.MustCompile(`number of failed transactions: 0 `)
	runs := 0
	for _, mode := range []string{"simple", "extended", "prepared"} {
		for _, script := range []string{"select-only", "tpcb-like", "simple-update"} {
			t.Run(mode+" "+script, func(t *testing.T) {
				out := s.pgbench(t, "shop-keeper", "-n", "-M", mode, "-b", script, "-c", fmt.Sprint(benchClients), "-t", fmt.Sprint(benchTransactions))
				if !processed.MatchString(out) || !failed.MatchString(out) {
					t.Errorf("pgbench says:\n%s", out)
				}
			})
			if script != "select-only" {
				runs++
			}
		}
	}
	// What pgbench moved about must add up, and nothing may be lost or run twice.
	rows := s.PG.SQLIn(t, "shop", `SELECT (SELECT count(*) FROM pgbench_history), (SELECT sum(abalance) FROM pgbench_accounts) - (SELECT sum(delta) FROM pgbench_history),
		(SELECT sum(tbalance) FROM pgbench_tellers) - (SELECT sum(bbalance) FROM pgbench_branches)`)
	want := []string{fmt.Sprint(runs * benchTransactions * benchClients), "0", "0"}
	if fmt.Sprint(rows[0]) != fmt.Sprint(want) {
		t.Errorf("history, accounts and branches: %q, want %q", rows[0], want)
	}
}

// unpermitted shows pgbench's own way with what it may not do before a run: it says so
// and goes on.
func (s *shop) unpermitted(t *testing.T) {
	out := s.pgbench(t, "shop-keeper", "-b", "select-only", "-t", "1")
	for _, what := range []string{"VACUUM", "TRUNCATE"} {
		if !regexp.MustCompile(`task "shop-keeper" does not allow ` + what).MatchString(out) {
			t.Errorf("pgbench was not told of %s:\n%s", what, out)
		}
	}
	if r := house.Leaks(out); len(r) > 0 {
		t.Errorf("leaked %q", r)
	}
}
