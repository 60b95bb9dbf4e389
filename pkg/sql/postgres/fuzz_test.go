package postgres_test

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/sqltest"
	"github.com/posterngate/postern/pkg/sql/worker"
)

// FuzzAnalyze makes sure that no text breaks the analyser or the rewriter, and that what
// comes out of them means what they say: canonical text has the facts of its source.
func FuzzAnalyze(f *testing.F) {
	for _, s := range slices.Concat(reads, newer) {
		f.Add(s)
	}
	for _, s := range []string{
		"INSERT INTO audit.log(actor) VALUES ('a') ON CONFLICT (id) DO UPDATE SET actor = excluded.actor RETURNING *",
		"UPDATE orders o SET (status, note) = (SELECT emp, emp FROM hr.salaries) FROM regions WHERE o.id = 1 RETURNING *",
		"MERGE INTO orders o USING regions r ON o.note = r.code WHEN MATCHED THEN DELETE RETURNING merge_action(), *",
		"SELECT x.* FROM orders o, XMLTABLE('/o' PASSING '<o/>' COLUMNS n FOR ORDINALITY, e text PATH o.status DEFAULT '') x",
		"CREATE TABLE t (id bigserial PRIMARY KEY, a text DEFAULT now() CHECK (length(a) < 5)) PARTITION BY RANGE (id)",
		"SET x TO 1, 'b'; BEGIN READ ONLY; EXPLAIN (FORMAT json) SELECT 1; FETCH 5 FROM c",
	} {
		f.Add(s)
	}
	cat := sqltest.Traps()
	f.Cleanup(func() { runtime.KeepAlive(cat) }) // to rewrite it
	f.Fuzz(func(t *testing.T, text string) {
		an, err := postgres.Analyze(t.Context(), pool, cat, settings, text)
		if err != nil {
			var e *sql.SyntaxError
			if !errors.As(err, &e) && !errors.Is(err, worker.ErrFault) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if !an.SQLFacts().Complete {
			return
		}
		canonical := an.Canonical()
		if canonical == "" {
			return
		}
		again, err := postgres.Analyze(t.Context(), pool, cat, settings, canonical)
		if err != nil {
			t.Fatalf("%q: canonical %q: %v", text, canonical, err)
		}
		if a, b := brief(an.SQLFacts()), brief(again.SQLFacts()); a != b {
			t.Errorf("%q has facts\n%s\nand %q\n%s", text, a, canonical, b)
		}
		if shape, ok := postgres.Shape(nil, text); ok {
			// A shape is a text of that shape itself.
			same, err := postgres.Analyze(t.Context(), pool, cat, settings, string(shape))
			if err == nil && brief(same.SQLFacts()) != brief(an.SQLFacts()) {
				t.Errorf("%q has facts\n%s\nand its shape %q\n%s", text, brief(an.SQLFacts()), shape, brief(same.SQLFacts()))
			}
		}
		sent, err := an.Rewrite(report)
		if err != nil {
			return
		}
		if _, err := postgres.Analyze(t.Context(), pool, cat, settings, sent); err != nil {
			t.Errorf("%q: rewritten %q: %v", text, sent, err)
		}
	})
}

func benchmark(b *testing.B, text string, rewrite bool) {
	cat := sqltest.Company()
	b.Cleanup(func() { runtime.KeepAlive(cat) })
	b.ReportAllocs()
	for b.Loop() {
		an, err := postgres.Analyze(b.Context(), pool, cat, settings, text)
		if err != nil {
			b.Fatal(err)
		}
		if rewrite {
			if _, err := an.Rewrite(report); err != nil {
				b.Fatal(err)
			}
		}
	}
}

const (
	short  = "SELECT id, status FROM sales.orders WHERE id = 1"
	longer = "SELECT c.name, sum(o.amount) FROM sales.customers c JOIN sales.orders o ON o.customer_id = c.id WHERE o.created_at > now() - interval '1 day' AND c.country IN ('DE', 'FR') GROUP BY c.name HAVING sum(o.amount) > 10 ORDER BY 2 DESC LIMIT 10"
)

func BenchmarkAnalyzePlain(b *testing.B)       { benchmark(b, short, false) }
func BenchmarkAnalyzeCanonical(b *testing.B)   { benchmark(b, "/* x */ "+longer, false) }
func BenchmarkAnalyzeRewritten(b *testing.B)   { benchmark(b, short, true) }
func BenchmarkAnalyzeLongRewrite(b *testing.B) { benchmark(b, longer, true) }
