// Package namespaces measures nodes that are elsewhere, each in a network namespace of its
// own, the way whoever operates a fleet does, with postern bench, and compares them with a
// node beside the client: make bench-namespaces.
package namespaces

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/posterngate/postern/bench/stats"
	"github.com/posterngate/postern/test/e2e/fleet"
	"github.com/posterngate/postern/test/servers"
)

const statement = "SELECT name FROM regions WHERE code = 'DE'"

// BenchmarkNamespaces has each node measured beside the database itself, in an order that
// is drawn anew each round. An op is a round; what it reports are medians over the rounds:
// the rate of each node against direct, and of those elsewhere against the one here.
func BenchmarkNamespaces(b *testing.B) {
	f := fleet.Start(b, fleet.Options{
		Embedded: true, Sealed: true, LogLevel: "warn",
		Nodes: []fleet.NodeSpec{
			{Name: "here", Region: "eu-1"},
			{Name: "eu-1-a", Region: "eu-1", In: fleet.NewNamespace(b, 1)},
			{Name: "us-1-a", Region: "us-1", In: fleet.NewNamespace(b, 2)},
		},
		Postgres: servers.PGOptions{HBA: []string{"hostssl all all 127.77.0.0/16 scram-sha-256"}},
	})
	direct := fmt.Sprintf("host=%s port=%d user=%s dbname=warehouse sslmode=verify-full sslrootcert=%s options='-c search_path=sales'",
		f.PG.Host, f.PG.Port, fleet.AppAccount, f.PG.CAFile)
	nodes := []string{"here", "eu-1-a", "us-1-a"}
	ratios, local := map[string][]float64{}, map[string][]float64{}
	for b.Loop() {
		rate := map[string]float64{}
		for _, i := range rand.Perm(len(nodes)) {
			r := f.RunEnv(b, "alice", []string{"PGPASSWORD=" + f.Password(fleet.AppAccount)}, "postern", "bench", "sales-report",
				"--node", nodes[i], "--direct", direct, "--rounds", "1", "--sql", statement, "--format", "json")
			var got struct {
				Measured []struct{ Rate []float64 }
				Ratios   []float64
			}
			if err := json.Unmarshal([]byte(r.Stdout), &got); err != nil || r.Code != 0 || len(got.Measured) != 2 || len(got.Ratios) != 1 {
				b.Fatalf("%s: code %d: %v %s%s", nodes[i], r.Code, err, r.Stdout, r.Stderr)
			}
			rate[nodes[i]] = got.Measured[0].Rate[0]
			ratios[nodes[i]] = append(ratios[nodes[i]], got.Ratios[0])
		}
		for _, n := range nodes[1:] {
			local[n] = append(local[n], rate[n]/rate[nodes[0]])
		}
	}
	for _, n := range nodes {
		s := stats.Of(ratios[n])
		b.Logf("%s over direct: %.3f [%.3f-%.3f]", n, s.Median, s.Min, s.Max)
		b.ReportMetric(s.Median, n+"/direct")
		if n == nodes[0] {
			continue
		}
		s = stats.Of(local[n])
		b.Logf("%s over here: %.3f [%.3f-%.3f]", n, s.Median, s.Min, s.Max)
		b.ReportMetric(s.Median, n+"/here")
	}
}
