package worker

import (
	"strings"
	"testing"
	"time"
)

// What the library writes without brackets that the grammar wants is written with them.
func TestBrackets(t *testing.T) {
	p := pool(t, Config{Deadline: 5 * time.Second})
	for _, text := range []string{
		"SELECT (a IS DISTINCT FROM b) IS TRUE FROM t",
		"DELETE FROM t WHERE ((a IS NOT DISTINCT FROM b) IS NOT FALSE)",
		"SELECT x BETWEEN (y COLLATE \"C\") AND z FROM t",
		"SELECT x NOT BETWEEN SYMMETRIC (upper(y) COLLATE \"C\") AND z FROM t WHERE 'it''s' <> E'a\\nb'",
		"SELECT x BETWEEN CAST(('a\\b' > ALL (SELECT y FROM u WHERE ((a IS DISTINCT FROM b) IS UNKNOWN))) AS int) AND 3 FROM t",
		"SELECT length((a COLLATE \"C\")) / CAST((a = ANY (SELECT b FROM u)) AS int) FROM t",
		"SELECT pg_catalog.overlay(a, b, 1, 2), pg_catalog.position(a, b), pg_catalog.overlay(a, b, ((a IS DISTINCT FROM b) IS TRUE)::int, 2) FROM t",
		// A name of the writer's own, and one that looks like it.
		"SELECT postern_part_0_, 'postern_part_1_' FROM t WHERE (a IS DISTINCT FROM b) IS TRUE",
		"SELECT 1 WHERE (" + strings.Repeat("(a IS DISTINCT FROM b) IS TRUE AND ", 100) + "true)",
	} {
		tree, err := p.Parse(t.Context(), text)
		if err != nil {
			t.Errorf("parse %q: %v", text, err)
			continue
		}
		out, err := p.Deparse(t.Context(), tree)
		if err != nil {
			t.Errorf("deparse %q: %v", text, err)
			continue
		}
		again, err := p.Parse(t.Context(), out)
		if err != nil {
			t.Errorf("%q became %q: %v", text, out, err)
			continue
		}
		if more, err := p.Deparse(t.Context(), again); err != nil || more != out {
			t.Errorf("%q became %q and then %q (%v)", text, out, more, err)
		}
	}
	// What has no end of parts is refused, as before.
	tree, err := p.Parse(t.Context(), "SELECT 1 WHERE "+strings.Repeat("(a IS DISTINCT FROM b) IS TRUE OR ", 1000)+"true")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := p.Deparse(t.Context(), tree); err == nil {
		t.Errorf("it was written: %.100s", out)
	}
}
