package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/postgres/lex"
	"github.com/posterngate/postern/pkg/sql/sqltest"
)

// rewritten is what is sent for a text under the obligations of masked.
func rewritten(t testing.TB, text string) (string, error) {
	t.Helper()
	cat := sqltest.Company()
	defer runtime.KeepAlive(cat) // to rewrite it
	an, err := postgres.Analyze(t.Context(), pool, cat, settings, text)
	if err != nil {
		return "", err
	}
	return an.Rewrite(masked)
}

// reworded is text with other literals, of the same shape.
func reworded(text string, r *rand.Rand) string {
	strs := []string{"''", "'it''s'", "'2026-01-01'", "'t'", "'-- x'", "'$1'", "'null'", "'1 day'", `'"'`, "';'"}
	nums := []string{"0", "7", "007", "2147483647", "2147483648", "99999999999999999999", "1.5", ".5", "1e3"}
	var out strings.Builder
	for at := 0; at < len(text); {
		tok := lex.Next(text, at)
		at = tok.End
		switch tok.Kind {
		case lex.String:
			out.WriteString(strs[r.IntN(len(strs))])
		case lex.Number:
			out.WriteString(nums[r.IntN(len(nums))])
		default:
			out.WriteString(text[tok.Start:tok.End])
		}
	}
	return out.String()
}

// TestTemplate compares what is filled in with what the rewriter makes of the same text:
// the parser must read both as the same statement.
func TestTemplate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	canonical := func(text string) string {
		an, err := postgres.Analyze(t.Context(), pool, sqltest.Company(), settings, text)
		if err != nil {
			return "no statement: " + err.Error()
		}
		return an.Canonical()
	}
	filled := 0
	for _, text := range []string{
		"SELECT id, customer_email FROM orders WHERE id = 5",
		"SELECT id FROM orders WHERE customer_email = 'a' AND status IN ('x', 'y', 'z') OR id BETWEEN 1 AND -2",
		"SELECT 'a', 1, -1, - 1, 2 - -3, 'b' || status FROM orders o WHERE o.id = 3 LIMIT 10 OFFSET 5",
		"SELECT status, count(*) FROM orders WHERE amount > 1.5 GROUP BY 1 HAVING count(*) > 3 ORDER BY 2 DESC LIMIT 7",
		"WITH x AS (SELECT id FROM orders WHERE status = 'open') SELECT x.id + 1 FROM x WHERE x.id < 100",
		"UPDATE regions SET name = 'x' WHERE code = 'DE'",
		"DELETE FROM regions WHERE code = 'FR' AND name LIKE 'a%' RETURNING *",
		"INSERT INTO regions VALUES ('a', 'b'), ('c', 'd')",
		"SELECT CASE WHEN id = 1 THEN 'one' ELSE 'other' END FROM orders WHERE created_at > now() - interval '1 day'",
		"SELECT JSON_VALUE(status, '$.a' DEFAULT '1' ON EMPTY), JSON_OBJECT('a': 1, 'b': customer_email) FROM orders WHERE id = 3",
		"SELECT j.a FROM orders o, JSON_TABLE(o.status, '$[*]' COLUMNS (a int PATH '$.a' DEFAULT '2' ON EMPTY)) j WHERE j.a > 1",
		"SELECT cast('1' AS numeric(10,2)), id::text || 'x' FROM orders",
		"SELECT id FROM orders WHERE id = 1; SELECT name FROM regions WHERE name = 'x'",
	} {
		sent, err := rewritten(t, text)
		if err != nil {
			continue // such as of a column that is not permitted
		}
		tmpl, ok := postgres.NewTemplate(text, sent, func(s string) (string, error) { return rewritten(t, s) })
		if !ok {
			t.Logf("no template: %s", text)
			continue
		}
		shape, _ := postgres.Shape(nil, text)
		for range 100 {
			other := reworded(text, r)
			if s, ok := postgres.Shape(nil, other); !ok || string(s) != string(shape) {
				continue
			}
			want, err := rewritten(t, other)
			if err != nil {
				continue
			}
			filled++
			if got := string(tmpl.Fill(nil, other)); canonical(got) != canonical(want) {
				t.Fatalf("%s\nis filled in as %s\nand rewritten to %s", other, got, want)
			}
		}
	}
	if filled < 300 {
		t.Errorf("only %d texts were filled in", filled)
	}
}

// TestTemplateMarks: nothing but a literal is ever a gap.
func TestTemplateMarks(t *testing.T) {
	text, sent := "SELECT 1", "SELECT 1"
	for _, rewrite := range []func(string) (string, error){
		func(string) (string, error) { return "SELECT 1", nil },                                            // lost
		func(s string) (string, error) { return s + " AS \"" + strings.Fields(s)[1] + "\"", nil },          // more than asked for
		func(s string) (string, error) { return strings.Replace(s, "SELECT ", "SELECT E'\\n', ", 1), nil }, // not plain
		func(string) (string, error) { return "", fmt.Errorf("no") },
	} {
		if _, ok := postgres.NewTemplate(text, sent, rewrite); ok {
			t.Error("there is a template")
		}
	}
	tmpl, ok := postgres.NewTemplate("SELECT 1, 'a'", "SELECT 'a', 1, 'a'", func(s string) (string, error) {
		a, b, _ := strings.Cut(strings.TrimPrefix(s, "SELECT "), ", ")
		return "SELECT " + b + ", " + a + ", " + b, nil
	})
	if !ok {
		t.Fatal("no template")
	}
	if got := string(tmpl.Fill(nil, "SELECT 22, 'b''c'")); got != "SELECT 'b''c', 22, 'b''c'" {
		t.Error(got)
	}
	for _, other := range []string{"SELECT 1", "SELECT 1, 'a', 2", "SET 1 = 'a'"} {
		if got := tmpl.Fill(nil, other); got != nil {
			t.Errorf("%s is filled in as %s", other, got)
		}
	}
}
