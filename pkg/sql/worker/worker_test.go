package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/sql"
)

// Memory limits that make the child of a test misbehave.
const (
	garbles  = 1001 // answers with bytes that are no frame
	hangs    = 1002 // never answers
	spins    = 1004 // never answers, and is busy
	waits    = 1005 // answers long after the deadline, and is idle until then
	inflates = 1003 // announces an answer that is too long
)

func TestMain(m *testing.M) {
	switch os.Getenv(marker) {
	case fmt.Sprint(garbles):
		misbehave("garbage, and more than five bytes of it")
	case fmt.Sprint(hangs):
		misbehave("")
	case fmt.Sprint(inflates):
		misbehave("O\xff\xff\xff\xff")
	case fmt.Sprint(spins):
		var buf []byte
		_ = writeFrame(os.Stdout, &buf, opReady, "")
		for time.Now().After(time.Time{}) { // until it is killed
		}
	case fmt.Sprint(waits):
		var buf, in []byte
		_ = writeFrame(os.Stdout, &buf, opReady, "")
		for {
			if _, _, err := readFrame(os.Stdin, &in); err != nil {
				os.Exit(0)
			}
			time.Sleep(500 * time.Millisecond)
			_ = writeFrame(os.Stdout, &buf, opOK, "a tree")
		}
	}
	Main()
	os.Exit(m.Run())
}

func misbehave(answer string) {
	var buf []byte
	_ = writeFrame(os.Stdout, &buf, opReady, "")
	var in []byte
	for {
		if _, _, err := readFrame(os.Stdin, &in); err != nil {
			os.Exit(0)
		}
		_, _ = io.WriteString(os.Stdout, answer)
	}
}

func pool(t *testing.T, c Config) *Pool {
	t.Helper()
	p := New(c)
	g := run.New(t.Context())
	g.Go("pool", p.Run)
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestParseAndDeparse(t *testing.T) {
	p := pool(t, Config{Deadline: 5 * time.Second})
	for _, text := range []string{
		"SELECT 1",
		"select a.*, b from s.t as a join u using (x) where a.y = 'it''s' and $1 is null order by 1",
		"WITH x AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM x; DELETE FROM t",
		"SELECT E'\\'; DROP TABLE x; --' AS \"Über\", U&'\\00e4', $q$ ; $q$",
		"COPY t (a, b) TO STDOUT WITH (FORMAT csv)",
		"",
	} {
		tree, err := p.Parse(t.Context(), text)
		if err != nil {
			t.Errorf("parse %q: %v", text, err)
			continue
		}
		if out, err := p.Deparse(t.Context(), tree); err != nil {
			t.Errorf("deparse %q: %v (%s)", text, err, out)
		}
	}
}

func TestSyntaxErrorsSayWhere(t *testing.T) {
	p := pool(t, Config{Deadline: 5 * time.Second})
	_, err := p.Parse(t.Context(), "SELEC id FROM t")
	var e *sql.SyntaxError
	if !errors.As(err, &e) || e.Position != 1 || !strings.Contains(e.Message, `at or near "SELEC"`) {
		t.Errorf("error = %#v, want a syntax error at 1", err)
	}
	if _, err := p.Parse(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("after a syntax error: %v", err)
	}
}

func TestBoundsHoldInFrontOfTheParser(t *testing.T) {
	for name, text := range map[string]string{
		"long":         strings.Repeat(" ", MaxText+1),
		"zero byte":    "SELECT 1\x00; DELETE FROM t",
		"nested":       "SELECT " + strings.Repeat("(", MaxNesting+1) + "1" + strings.Repeat(")", MaxNesting+1),
		"arrays":       "SELECT " + strings.Repeat("ARRAY[", MaxNesting+1) + "1" + strings.Repeat("]", MaxNesting+1),
		"sum":          "SELECT 1" + strings.Repeat("+1", 30_000),
		"hex sum":      "SELECT 0xe" + strings.Repeat("+0xe", 30_000),
		"signs":        "SELECT " + strings.Repeat("+-", 30_000) + "1",
		"not":          "SELECT " + strings.Repeat("NOT ", 30_000) + "true",
		"casts":        "SELECT 1" + strings.Repeat("::int", 10_000),
		"joins":        "SELECT * FROM a" + strings.Repeat(" JOIN a ON f(1, 2)", 3_000),
		"unions":       "SELECT 1, 2" + strings.Repeat(" UNION SELECT 1, 2", 3_000),
		"hidden in e":  `SELECT E'\'', 1` + strings.Repeat("+1", 30_000),
		"tiers":        "SELECT " + strings.Repeat("(1"+strings.Repeat("+1", 100), 100) + strings.Repeat(")", 100),
		"after dollar": "SELECT $a$ ' $a$, 1" + strings.Repeat("+1", 30_000),
	} {
		if err := guard(text); err == nil {
			t.Errorf("%s: a text over the bound was let through", name)
		}
	}
	for name, text := range map[string]string{
		"values":  "INSERT INTO t VALUES (1,2)" + strings.Repeat(",(1,2)", 20_000),
		"in":      "SELECT 1 WHERE x IN (1" + strings.Repeat(",1", 50_000) + ")",
		"literal": "SELECT '" + strings.Repeat("1+", 50_000) + "'",
		"comment": "SELECT /*" + strings.Repeat("1+", 50_000) + "*/ 1",
		"ands":    "SELECT 1 WHERE a = 1" + strings.Repeat(" AND a = 1", 500),
		"batch":   strings.Repeat("SELECT 1+1+1;", 5_000),
	} {
		if err := guard(text); err != nil {
			t.Errorf("%s: an ordinary text was refused: %v", name, err)
		}
	}
}

// TestKillersHarmNobodyElse sends what the bounds keep out straight to a child.
func TestKillersHarmNobodyElse(t *testing.T) {
	p := pool(t, Config{Processes: 1, Deadline: 5 * time.Second})
	for name, text := range map[string]string{
		"sum":    "SELECT 1" + strings.Repeat("+1", 60_000),
		"parens": "SELECT " + strings.Repeat("(", 200_000) + "1" + strings.Repeat(")", 200_000),
		"unions": "SELECT 1" + strings.Repeat(" UNION SELECT 1", 60_000),
	} {
		if _, err := ask(t.Context(), p, opParse, text); err == nil {
			t.Errorf("%s: parsed, so that this test shows nothing", name)
		}
		if _, err := p.Parse(t.Context(), "SELECT 1"); err != nil {
			t.Errorf("%s: the statement after it failed: %v", name, err)
		}
	}
	if _, err := ask(t.Context(), p, opDeparse, []byte("no tree at all")); !errors.Is(err, ErrFault) {
		t.Errorf("broken tree: %v", err)
	}
	if _, err := ask(t.Context(), p, 'x', "?"); !errors.Is(err, ErrFault) {
		t.Errorf("unknown request: %v", err)
	}
}

func TestChildWithoutMemoryIsReplaced(t *testing.T) {
	p := pool(t, Config{Processes: 1, Deadline: 5 * time.Second, MemoryBytes: 512 << 20})
	big := "SELECT 1" + strings.Repeat(",'a'", 6_000_000)
	if _, err := ask(t.Context(), p, opParse, big); !errors.Is(err, ErrFault) {
		t.Errorf("error = %v, want a fault", err)
	}
	if _, err := p.Parse(t.Context(), "SELECT 1"); err != nil {
		t.Error(err)
	}
}

func TestMisbehavingChildIsAFault(t *testing.T) {
	for _, how := range []int64{garbles, hangs, inflates} {
		p := pool(t, Config{Processes: 1, Deadline: 50 * time.Millisecond, MemoryBytes: how})
		for range 2 {
			if _, err := p.Parse(t.Context(), "SELECT 1"); !errors.Is(err, ErrFault) {
				t.Errorf("%d: error = %v, want a fault", how, err)
			}
		}
	}
}

// TestDeadlineIsOfTheProcessor: a child that gets no turn is waited for; one that takes
// too many is ended.
func TestDeadlineIsOfTheProcessor(t *testing.T) {
	p := pool(t, Config{Processes: 1, Deadline: 100 * time.Millisecond, MemoryBytes: waits})
	if tree, err := p.Parse(t.Context(), "SELECT 1"); err != nil || string(tree) != "a tree" {
		t.Errorf("an idle child: %q, %v", tree, err)
	}
	p = pool(t, Config{Processes: 1, Deadline: 100 * time.Millisecond, MemoryBytes: spins})
	if _, err := p.Parse(t.Context(), "SELECT 1"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a busy child: %v", err)
	}
}

func TestKilledChildIsReplaced(t *testing.T) {
	p := pool(t, Config{Processes: 1, Deadline: 5 * time.Second})
	if _, err := p.Parse(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	c := <-p.free
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.free <- c
	if _, err := p.Parse(t.Context(), "SELECT 1"); !errors.Is(err, ErrFault) {
		t.Errorf("error = %v, want a fault", err)
	}
	if _, err := p.Parse(t.Context(), "SELECT 1"); err != nil {
		t.Errorf("no new child: %v", err)
	}
}

func TestConcurrentUseWithFaultsBetween(t *testing.T) {
	p := pool(t, Config{Processes: 2, Deadline: 5 * time.Second})
	killer := "SELECT 1" + strings.Repeat("+1", 60_000)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				if i == 0 && j%10 == 0 {
					_, _ = ask(t.Context(), p, opParse, killer)
					continue
				}
				text := fmt.Sprintf("SELECT %d AS n%d", i, j)
				tree, err := p.Parse(t.Context(), text)
				if err != nil {
					t.Errorf("%s: %v", text, err)
					return
				}
				if got, err := p.Deparse(t.Context(), tree); err != nil || got != text {
					t.Errorf("%s came back as %q, %v", text, got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestStoppedPoolRefuses(t *testing.T) {
	p := New(Config{})
	ctx, cancel := context.WithCancel(t.Context())
	g := run.New(t.Context())
	g.Go("pool", func(context.Context) error { return p.Run(ctx) })
	cancel()
	_ = g.Wait()
	if _, err := p.Parse(t.Context(), "SELECT 1"); !errors.Is(err, ErrFault) {
		t.Errorf("error = %v, want a fault", err)
	}
}

func TestBoundsOfTheErrorType(t *testing.T) {
	var e *sql.SyntaxError
	if err := guard("\x00"); !errors.As(err, &e) {
		t.Errorf("error = %v, want a syntax error", err)
	}
}

func FuzzGuard(f *testing.F) {
	f.Add("SELECT $a$ $a$, E'\\'' /* /* */ */ -- x\n, 1.5e-3, \"q\"\"q\"")
	f.Fuzz(func(t *testing.T, text string) { _ = guard(text) })
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte("O\x00\x00\x00\x01x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var buf []byte
		_, body, err := readFrame(strings.NewReader(string(b)), &buf)
		if err == nil && len(body) > len(b) {
			t.Errorf("body of %d bytes from %d", len(body), len(b))
		}
	})
}

func BenchmarkParse(b *testing.B) {
	p := New(Config{})
	for b.Loop() {
		if _, err := p.Parse(b.Context(), "SELECT abalance FROM pgbench_accounts WHERE aid = $1"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDeparse(b *testing.B) {
	p := New(Config{})
	tree, err := p.Parse(b.Context(), "SELECT a.id, b.name FROM a JOIN b ON a.id = b.a WHERE a.x > 5 ORDER BY 1 LIMIT 10")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := p.Deparse(b.Context(), tree); err != nil {
			b.Fatal(err)
		}
	}
}
