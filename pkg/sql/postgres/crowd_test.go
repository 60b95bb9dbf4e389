package postgres_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/sqltest"
)

// crowd adds 50,000 relations of five columns to the sample company.
func crowd() *sql.Catalog {
	cat := sqltest.Company()
	more := sqltest.New()
	for i := range 50_000 {
		more.Table(fmt.Sprintf("crowd.table_%d", i), "a integer", "b text", "c numeric(10,2)", "d timestamp with time zone", "e jsonb")
	}
	for name, rel := range more.Catalog().Relations {
		cat.Relations[name] = rel
	}
	return cat
}

// BenchmarkCrowd is a rewrite on a miss where there are 50,000 relations, and how much
// memory their names and types take.
func BenchmarkCrowd(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	cat := crowd()
	defer runtime.KeepAlive(cat) // to rewrite it
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportAllocs()
	for b.Loop() {
		an, err := postgres.Analyze(b.Context(), pool, cat, settings, short)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := an.Rewrite(report); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-catalogue")
	runtime.KeepAlive(cat)
}
