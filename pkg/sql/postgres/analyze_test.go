package postgres_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"weak"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/sqltest"
	"github.com/posterngate/postern/test/wait"
)

var settings = postgres.Settings{SearchPath: []string{"$user", "sales", "public"}, User: "svc"}

func analyze(t testing.TB, text string) *postgres.Analysis {
	t.Helper()
	return analyzeOn(t, sqltest.Traps().Server, text)
}

// analyzeOn is as for a server of that version.
func analyzeOn(t testing.TB, server int, text string) *postgres.Analysis {
	t.Helper()
	cat := sqltest.Traps()
	cat.Server = server
	t.Cleanup(func() { runtime.KeepAlive(cat) }) // to rewrite it
	an, err := postgres.Analyze(t.Context(), pool, cat, settings, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return an
}

func TestSyntaxError(t *testing.T) {
	_, err := postgres.Analyze(t.Context(), pool, sqltest.Company(), settings, "SELEC id FROM sales.orders")
	var e *sql.SyntaxError
	if !errors.As(err, &e) || e.Position != 1 {
		t.Errorf("error = %v, want a syntax error", err)
	}
}

// TestAnOldCatalogueGoes: whoever keeps what is known of a text does not keep the catalogue,
// which may be large; what is then asked for all the same is refused.
func TestAnOldCatalogueGoes(t *testing.T) {
	cat := sqltest.Company()
	an, err := postgres.Analyze(t.Context(), pool, cat, settings, "SELECT email FROM sales.customers")
	if err != nil {
		t.Fatal(err)
	}
	gone := weak.Make(cat)
	wait.For(t, "the catalogue is gone", func() bool {
		runtime.GC()
		return gone.Value() == nil
	})
	if got, err := an.Rewrite(masked); err == nil {
		t.Errorf("rewritten as %s", got)
	}
}

// TestPsql analyses what psql asks for its \d commands: all of it is about names, and
// every function in it is harmless.
func TestPsql(t *testing.T) {
	questions, err := os.ReadFile("testdata/psql.txt")
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.Lines(string(questions)) {
		an := analyze(t, text)
		if !an.SQLFacts().Complete {
			t.Errorf("%s\n%s", text, an.SQLFacts().Incomplete)
			continue
		}
		for _, f := range an.SQLFacts().Statements[0].Functions {
			if !f.Pure {
				t.Errorf("%s\ncalls %s", text, f)
			}
		}
		for _, tb := range an.SQLFacts().Statements[0].Tables {
			if !tb.System {
				t.Errorf("%s\nreads %s", text, tb.String())
			}
		}
		if an.Canonical() == "" {
			t.Errorf("%s\ncannot be written back", text)
		}
	}
}

// processor is what this process has had of the processor: its own work, whatever else the
// machine does meanwhile.
func processor(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestBoundsOfTheAnalyser(t *testing.T) {
	for name, text := range map[string]string{
		"many names":   "SELECT 1 FROM orders a" + strings.Repeat(", orders b", 3000),
		"deep select":  strings.Repeat("SELECT (", 150) + "1" + strings.Repeat(")", 150),
		"much to find": "SELECT " + strings.Repeat("nope.id,", 30_000) + "1 FROM orders a" + strings.Repeat(", orders b", 900),
	} {
		begun := processor(t)
		an := analyze(t, text)
		if an.SQLFacts().Complete {
			t.Errorf("%s: understood", name)
		}
		if d := processor(t) - begun; d > 5*time.Second {
			t.Errorf("%s: took %v of the processor", name, d)
		}
	}
	// Close to what the parser's own bounds let through.
	if an := analyze(t, "SELECT 1"+strings.Repeat(" OPERATOR(pg_catalog.+) 1", 700)); !an.SQLFacts().Complete {
		t.Errorf("a long sum: %s", an.SQLFacts().Incomplete)
	}
}

func TestOutputs(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"SELECT id, note AS n, upper(note), 1, amount::text, now(), current_date, count(*), CASE WHEN true THEN note END, ARRAY[1] FROM orders",
			"id=orders.id n=orders.note upper= ?column?= amount= now= current_date= count= case= array="},
		{"SELECT * FROM regions", "code=regions.code* name=regions.name*"},
		{"SELECT r.*, o.id, r.* FROM orders o, regions r", "code=regions.code* name=regions.name* id=orders.id code=regions.code* name=regions.name*"},
		{"SELECT * FROM regions a JOIN regions b USING (code)", "code=regions.code* name=regions.name* name=regions.name*"},
		{"SELECT s.id FROM (SELECT * FROM orders) s", "id=orders.id"},
		{"SELECT * FROM (SELECT id, upper(note) FROM orders) s", "id=orders.id upper="},
		{"WITH x AS (SELECT email AS e FROM customers) SELECT e, e || '' FROM x", "e=customers.email ?column?="},
		{"SELECT (SELECT email FROM customers), EXISTS (SELECT 1), coalesce(1), greatest(1), '1'::int", "email= exists= coalesce= greatest= int4="},
		{"SELECT 1 AS a UNION SELECT 2", "a="},
		{"VALUES (1, 2)", "column1= column2="},
		{"DELETE FROM orders RETURNING id", "id=orders.id"},
		{"EXPLAIN SELECT 1", "QUERY PLAN="},
	} {
		var got []string
		for _, o := range analyze(t, c.text).SQLFacts().Statements[0].Outputs {
			origin := ""
			if o.Table != "" {
				origin = o.Table + "." + o.Column
			}
			if o.Star {
				origin += "*"
			}
			got = append(got, fmt.Sprintf("%s=%s", o.Name, origin))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.text, s, c.want)
		}
	}
}

func TestEffectOfSettings(t *testing.T) {
	for text, want := range map[string]postern.Effect{
		"SELECT current_setting('jit')":                                  postern.EffectRead,
		"SELECT set_config('jit', 'off', false)":                         postern.EffectControl,
		"SELECT 1 FROM orders WHERE set_config('jit', $1, true) = 'off'": postern.EffectControl,
		"SET jit = off": postern.EffectControl,
		"DISCARD ALL":   postern.EffectControl,
	} {
		if got := analyze(t, text).SQLFacts().Effect(); got != want {
			t.Errorf("%s: effect %v, want %v", text, got, want)
		}
	}
}

// TestShed: of what has shed its tree there are the facts, and the text that was asked for before.
func TestShed(t *testing.T) {
	an := analyze(t, "SELECT id FROM orders /* all */")
	before := an.Canonical()
	an.Shed()
	if got := an.Canonical(); got != before || before == "" || !an.SQLFacts().Complete {
		t.Errorf("%q, and before %q", got, before)
	}
	if text, err := an.Rewrite(nil); err == nil {
		t.Errorf("rewritten to %q", text)
	}
	plain := analyze(t, "SELECT id FROM orders")
	plain.Shed()
	if got := plain.Canonical(); got != "" {
		t.Errorf("without its tree: %q", got)
	}
}
