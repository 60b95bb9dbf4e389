package postgres_test

import (
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"

	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/postgres/lex"
)

func TestPlain(t *testing.T) {
	for text, want := range map[string]bool{
		"": true,
		"SELECT abalance FROM pgbench_accounts WHERE aid = 1;": true,
		"SELECT 'it''s', \"a\"\"b\", $1, a$b\n\tFROM t":        false, // a$b is one word
		"SELECT 'it''s', \"a\"\"b\", $1\n\tFROM t":             true,
		"SELECT 'a'\n'b'":        true,
		"SELECT a - -1, 4 / 2*3": true,
		"SELECT 'x -- y /* z'":   true,
		"SELECT a - - b":         true,
		"SELECT a -- b":          false,
		"SELECT a --":            false,
		"SELECT a /* b */":       false,
		"SELECT a */ b":          true,
		"SELECT E'a'":            false,
		"SELECT e'a'":            false,
		"SELECT U&'a'":           false,
		"SELECT U&\"a\"":         false,
		"SELECT 1&'a'":           false,
		"SELECT N'a'":            false,
		"SELECT b'1', x'f'":      false,
		"SELECT 'a\\'":           false,
		"SELECT \"a\\\"":         false,
		"SELECT $$a$$":           false,
		"SELECT $a$a$a$":         false,
		"SELECT $":               false,
		"SELECT $1$a$":           false,
		"SELECT $1a":             false,
		"SELECT 'a":              false,
		"SELECT \"a":             false,
		"SELECT 'é'":             false,
		"SELECT 'a\x00'":         false,
		"SELECT\x001":            false,
		"SELECT\r1":              false,
		"\\d":                    false,
		"SELECT date'2026'":      false,
		"SELECT date '2026'":     true,
		"SELECT \x7f":            false,
	} {
		if got := postgres.Plain(text); got != want {
			t.Errorf("Plain(%q) = %v, want %v", text, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { postgres.Plain("SELECT a FROM t WHERE b = 'c' AND d = $1") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestShape(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 23", true},
		{"SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b = 'it''s'", true},
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = '1'", false},
		{"SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE c = 1", false},
		{"SELECT a FROM t ORDER BY 1", "SELECT a FROM t ORDER BY 2", false},
		{"SELECT a FROM t GROUP BY a, 1", "SELECT a FROM t GROUP BY a, 2", false},
		{"SELECT a FROM t ORDER BY (1)", "SELECT a FROM t ORDER BY (2)", false},
		{"SELECT a FROM t ORDER BY - -1", "SELECT a FROM t ORDER BY - -2", false},
		{"SELECT a FROM t ORDER BY -(-1)", "SELECT a FROM t ORDER BY -(-2)", false},
		{"SELECT a FROM t GROUP BY a HAVING count(*) > 1", "SELECT a FROM t GROUP BY a HAVING count(*) > 2", true},
		{"SELECT DISTINCT ON (1) a FROM t", "SELECT DISTINCT ON (2) a FROM t", false},
		{"SELECT a FROM t ORDER BY a LIMIT 1 OFFSET 2", "SELECT a FROM t ORDER BY a LIMIT 10 OFFSET 20", true},
		{"INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (2, 'b')", true},
		{"INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1, 1)", false},
	} {
		a, ok := postgres.Shape(nil, c.a)
		b, ok2 := postgres.Shape(nil, c.b)
		if !ok || !ok2 || (string(a) == string(b)) != c.same {
			t.Errorf("%s -> %s\n%s -> %s; want same = %v", c.a, a, c.b, b, c.same)
		}
	}
	for _, text := range []string{"SET x = 1", "SELECT $$a$$", "EXPLAIN SELECT 1", "SELECT 1; SET x = 1", "SELECT 'a", "COPY t TO STDOUT", "FETCH 1 FROM c", "SELECT Set_Config('jit', 'on', false)", `SELECT "current_setting"('jit')`, "SELECT 1FROM t", "SELECT 1e FROM t", "SELECT 1_0"} {
		if s, ok := postgres.Shape(nil, text); ok {
			t.Errorf("%s has shape %s, where literals matter", text, s)
		}
	}
}

// FuzzPlain makes sure that a plain text has the same tokens under our lexer as under
// the grammar's own scanner.
func FuzzPlain(f *testing.F) {
	for _, s := range []string{"SELECT 'it''s', \"a\"\"b\", $1\n\tFROM t WHERE a-1=b/2", "select 1.5e-3+.5, a.b::c[1]", "'a'\n'b' <> @-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 2000 || !postgres.Plain(text) {
			return
		}
		scan, err := pg.Scan(text)
		if err != nil {
			return // no statement at all
		}
		// Where a string or quoted identifier begins and ends is what the lexers must
		// agree on; operators and numbers may be cut differently.
		var want, got []string
		for _, tok := range scan.Tokens {
			s := text[tok.Start:tok.End]
			if strings.HasPrefix(s, "'") || strings.HasPrefix(s, `"`) {
				want = append(want, s)
			} else if strings.ContainsAny(s, `'"\`) || tok.Token == pg.Token_SQL_COMMENT || tok.Token == pg.Token_C_COMMENT {
				t.Errorf("%q has token %q", text, s)
			}
		}
		for at := 0; at < len(text); {
			tok := lex.Next(text, at)
			at = tok.End
			if tok.Kind == lex.String || tok.Kind == lex.Quoted {
				got = append(got, text[tok.Start:tok.End])
			}
		}
		if strings.Join(got, "\x00") != strings.Join(want, "\x00") {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	})
}

// FuzzLex compares the lexer with the grammar's scanner on any text.
func FuzzLex(f *testing.F) {
	for _, s := range []string{"E'\\'' 1", "$a$ ' $a$ U&'x' b'1' N'y'", "/* /* */ */ 'a' -- x\n 'b'", "'a' -- x\n'b'", "1e5 0x1F 1_000", "a$b$c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 2000 || strings.IndexByte(text, 0) >= 0 {
			return
		}
		scan, err := pg.Scan(text)
		if err != nil {
			return
		}
		inside := make([]bool, len(text)+1) // of strings, as we see them
		for at := 0; at < len(text); {
			tok := lex.Next(text, at)
			if tok.End <= at {
				t.Fatalf("no progress at %d of %q", at, text)
			}
			at = tok.End
			for i := tok.Start; i < tok.End; i++ {
				inside[i] = tok.Kind == lex.String || tok.Kind == lex.Space || tok.Kind == lex.Quoted || tok.Kind == lex.Bad
			}
		}
		for _, tok := range scan.Tokens {
			switch tok.Token {
			case pg.Token_ASCII_40, pg.Token_ASCII_44, pg.Token_ASCII_43:
				if inside[tok.Start] {
					t.Errorf("%q: %q at %d is hidden from the bounds", text, text[tok.Start:tok.End], tok.Start)
				}
			}
		}
	})
}

func BenchmarkPlain(b *testing.B) {
	text := "SELECT c.id, c.name FROM sales.customers c WHERE c.country = 'DE' AND c.id = $1 ORDER BY c.name LIMIT 10"
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if !postgres.Plain(text) {
			b.Fatal("not plain")
		}
	}
}

func BenchmarkShape(b *testing.B) {
	text := "SELECT c.id, c.name FROM sales.customers c WHERE c.country = 'DE' AND c.id = $1 ORDER BY c.name LIMIT 10"
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = postgres.Shape(buf[:0], text)
	}
}
