// Package modes measures what recording adds to a statement in each mode, on the whole way
// through a node: make bench-records.
package modes

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

var modes = []string{"async", "local", "disk", "remote"}

// world has a task for each mode.
func world() string {
	var text strings.Builder
	for _, mode := range modes {
		fmt.Fprintf(&text, `---
kind: Task
metadata: {name: %[1]s}
spec:
  purpose: be measured
  resources: {names: [warehouse]}
  permit: [{table: sales.regions, verbs: [select], columns: [code, name]}]
  record: {read: %[1]s}
  duration: 1h
`, mode)
	}
	fmt.Fprintf(&text, "---\nkind: Binding\nmetadata: {name: modes}\nspec: {subjects: [{group: analysts}], tasks: [%s]}\n", strings.Join(modes, ", "))
	return text.String()
}

const query = "SELECT name FROM sales.regions WHERE code = $1"

// BenchmarkModes asks the target directly and through the node, in turns, on one session
// each. An op is both; added-p50-us is what lies between the medians.
func BenchmarkModes(b *testing.B) {
	h := house.Start(b, house.Options{Extra: world()})
	direct, err := pgx.Connect(b.Context(), h.PG.SuperDSN("warehouse"))
	if err != nil {
		b.Fatal(err)
	}
	defer direct.Close(b.Context())
	for _, mode := range modes {
		b.Run(mode, func(b *testing.B) {
			node := h.Connect(b, "alice", mode)
			ask := func(c *pgx.Conn) time.Duration {
				var name string
				at := time.Now()
				if err := c.QueryRow(b.Context(), query, "DE").Scan(&name); err != nil {
					b.Fatal(err)
				}
				return time.Since(at)
			}
			for range 3 { // what is prepared is judged once
				ask(direct)
				ask(node)
			}
			var there, through []time.Duration
			for b.Loop() {
				there, through = append(there, ask(direct)), append(through, ask(node))
			}
			slices.Sort(there)
			slices.Sort(through)
			mid, last := len(there)/2, len(there)*99/100
			us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
			b.ReportMetric(us(there[mid]), "direct-p50-us")
			b.ReportMetric(us(through[mid]), "p50-us")
			b.ReportMetric(us(through[mid]-there[mid]), "added-p50-us")
			b.ReportMetric(us(through[last]-there[last]), "added-p99-us")
		})
	}
}
