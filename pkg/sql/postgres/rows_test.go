package postgres_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/sqltest"
	"github.com/posterngate/postern/test/servers"
)

const docsSQL = `
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TABLE docs (id int PRIMARY KEY, owner text, code varchar(4), pad char(4), mood mood, tenant uuid, born date, at timestamptz,
	n bigint, r numeric, live boolean, tags text[], note text);
INSERT INTO docs SELECT i, CASE i % 3 WHEN 0 THEN 'ada' WHEN 1 THEN 'bob' END, 'c' || i, 'p', CASE i % 2 WHEN 0 THEN 'sad'::mood ELSE 'ok' END,
	lpad(i::text, 32, '0')::uuid, date '2026-01-01' + i, timestamptz '2026-01-01 00:00:00+00' + i * interval '1 hour', i, i / 2.0, i % 2 = 0,
	ARRAY['t' || i % 3, 'x'], 'note ' || i FROM generate_series(1, 12) i;
`

var docsColumns = []string{"id int4", "owner text", "code varchar(4)", "pad char(4)", "mood mood", "tenant uuid", "born date", "at timestamptz", "n int8", "r numeric", "live bool", "tags text[]", "note text"}

func docs() *sql.Catalog {
	return sqltest.New().Type("public.mood", 'e').Table("public.docs", docsColumns...).Catalog()
}

// shown is the rule of a task with a filter of rows.
func shown(t *testing.T, rows string, claims map[string]any) []postern.Obligation {
	t.Helper()
	f, err := policy.CompileRows(rows)
	if err != nil {
		t.Fatalf("%s: %v", rows, err)
	}
	filter, err := f.SQL(&postern.Subject{Name: "ada", Groups: []string{"ada", "carol"}, Claims: claims})
	if err != nil {
		t.Fatalf("%s: %v", rows, err)
	}
	rule := &postern.TableRule{Schema: "public", Table: "docs", Filter: filter}
	for _, c := range docsColumns {
		name, _, _ := strings.Cut(c, " ")
		rule.Columns = append(rule.Columns, postern.ColumnRule{Name: name})
	}
	return []postern.Obligation{{Table: rule}}
}

func sent(t *testing.T, text string, rule []postern.Obligation) string {
	t.Helper()
	cat := docs()
	defer runtime.KeepAlive(cat) // to rewrite it
	an, err := postgres.Analyze(t.Context(), pool, cat, postgres.Settings{SearchPath: []string{"public"}}, text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	out, err := an.Rewrite(rule)
	if err != nil {
		return "? " + err.Error()
	}
	return out
}

func TestRowsOnAServer(t *testing.T) {
	server := servers.Postgres(t)
	for _, world := range []string{"rows", "others"} {
		server.SQL(t, "CREATE DATABASE "+world)
		server.SQLIn(t, world, docsSQL)
	}
	t.Run("which", func(t *testing.T) { whichRows(t, server) })
	t.Run("hostile", func(t *testing.T) { hostileValues(t, server) })
	t.Run("changes", func(t *testing.T) { rowsChanged(t, server) })
	t.Run("hidden", func(t *testing.T) { hiddenRows(t, server) })
}

// whichRows compares filters with what they mean.
func whichRows(t *testing.T, server *servers.PG) {
	for _, c := range []struct{ rows, want string }{
		{`owner == subject.id`, `owner = 'ada'`},
		{`owner != subject.id`, `owner = 'bob'`}, // NULL is not shown
		{`!(owner == subject.id)`, `owner = 'bob'`},
		{`owner == null || n > 10`, `owner IS NULL OR n > 10`},
		{`owner in subject.groups`, `owner = 'ada'`},
		{`code in ["c1", "c2", "c\""]`, `id <= 2`},
		{`mood == "sad" && live`, `id % 2 = 0`},
		{`mood in ["ok"]`, `id % 2 = 1`},
		{`tenant == subject.claims.tenant`, `id = 5`},
		{`tenant in [subject.claims.tenant]`, `id = 5`},
		{`born <= "2026-01-04"`, `id <= 3`},
		{`born < timestamp("2026-01-05T00:00:00Z")`, `id <= 3`},
		{`at < timestamp("2026-01-01T03:30:00Z")`, `id <= 3`},
		{`n >= subject.claims.level && r < 4.5`, `id BETWEEN 3 AND 8`},
		{`n in [3, 4]`, `id IN (3, 4)`},
		{`"t1" in tags`, `id % 3 = 1`},
		{`code.startsWith("c1") || note.endsWith(" 2") || note.contains("te 3")`, `id IN (1, 2, 3, 10, 11, 12)`},
		{`live == true`, `id % 2 = 0`},
		{`n == r || id == n && n < 3`, `id < 3`},
		{`pad == "p" && n < 3`, `id < 3`},
	} {
		rule := shown(t, c.rows, map[string]any{"tenant": "00000000-0000-0000-0000-000000000005", "level": 3.0})
		for _, zone := range []string{"UTC", "Pacific/Kiritimati"} {
			const set = "SET DateStyle = 'SQL, DMY'; SET TimeZone = '%s'; "
			text := sent(t, "SELECT id FROM docs ORDER BY id", rule)
			got := transcript(t, server, "rows", fmt.Sprintf(set, zone)+text)
			if want := transcript(t, server, "rows", fmt.Sprintf(set, zone)+"SELECT id FROM docs WHERE "+c.want+" ORDER BY id"); got != want {
				t.Errorf("%s\nas %s\ngot %s\nwant %s", c.rows, text, got, want)
			}
		}
	}
	for _, rows := range []string{`born < "1/2/2026"`, `at < "2026-01-01"`, `at in [timestamp("2026-01-01T03:30:00Z")]`, `at.startsWith("2026")`, `born == at`, `at > "now"`} {
		if got := sent(t, "SELECT id FROM docs", shown(t, rows, nil)); !strings.Contains(got, "cannot be met") {
			t.Errorf("%s: depends on the session, and is sent as %s", rows, got)
		}
	}
}

// hostileValues shows that a text of the subject is a value and nothing else.
func hostileValues(t *testing.T, server *servers.PG) {
	for i, v := range []string{"'", "''", `\`, `\'`, `'; DELETE FROM docs; --`, `" OR "1"="1`, "{a,b}", `a","b`, `a\"b`, "$1", "$$", "/*", "NULL", "null", "", " ", "é", "\n\t\x01", `' OR 'a'='a`, "%_", `E'\''`, `U&'\0041'`} {
		server.SQLIn(t, "rows", fmt.Sprintf("INSERT INTO docs (id, note) VALUES (100, E'%s'), (101, 'else')", escaped(v)))
		for _, rows := range []string{`note == subject.claims.v`, `note in ["nothing", subject.claims.v]`, `note.startsWith(subject.claims.v) && note.endsWith(subject.claims.v) && note.contains(subject.claims.v) && id == 100`} {
			if got := transcript(t, server, "rows", sent(t, "SELECT id FROM docs", shown(t, rows, map[string]any{"v": v}))); got != "id:23:-1 \n100|SELECT 1<nil>" {
				t.Errorf("%d, %q by %s: %s", i, v, rows, got)
			}
		}
		server.SQLIn(t, "rows", "DELETE FROM docs WHERE id >= 100")
	}
}

func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, `\U%08X`, r)
	}
	return b.String()
}

func rowsChanged(t *testing.T, server *servers.PG) {
	rule := shown(t, `owner == subject.id`, nil)
	for _, c := range []struct{ text, want string }{
		{"UPDATE docs SET note = 'x' WHERE id IN (3, 4)", "3"},
		{"UPDATE docs SET note = 'x'", "3,6,9,12"},
		{"DELETE FROM docs WHERE note::text <> ''", "3,6,9,12"},
		{"DELETE FROM docs d USING docs e WHERE d.id = e.id AND e.n > 5", "6,9,12"},
		{"UPDATE docs SET note = 'x' WHERE id = 4", ""},
		{"INSERT INTO docs (id) VALUES (3), (4) ON CONFLICT (id) DO UPDATE SET note = 'x'", "3"},
		{"WITH d AS (DELETE FROM docs RETURNING id) SELECT count(*) FROM d", "3,6,9,12"},
	} {
		rows := server.SQLIn(t, "rows", "BEGIN; "+sent(t, c.text, rule)+"; SELECT string_agg(id::text, ',' ORDER BY id) FROM generate_series(1, 12) id WHERE NOT EXISTS (SELECT FROM docs d WHERE d.id = id.id AND d.note = 'note ' || id.id)")
		if got := rows[len(rows)-1][0]; got != c.want {
			t.Errorf("%s changes %q, want %q", c.text, got, c.want)
		}
	}
}

// hiddenRows compares two worlds that differ in hidden rows alone.
func hiddenRows(t *testing.T, server *servers.PG) {
	server.SQLIn(t, "others", `UPDATE docs SET note = 'other', n = 0, code = 'zz', born = NULL, r = 0 WHERE owner IS DISTINCT FROM 'ada'; DELETE FROM docs WHERE id = 4; ANALYZE`)
	rule := shown(t, `owner == subject.id`, nil)
	for _, text := range []string{
		"SELECT docs.id, owner, born, to_jsonb(docs) FROM docs ORDER BY id",
		"SELECT id FROM docs WHERE note::int > 0",
		"SELECT id FROM docs WHERE 1/n > 0 AND id > 0 ORDER BY id",
		"SELECT id FROM docs WHERE n = 0",
		"SELECT id FROM docs WHERE id = 4 AND note::int = 1",
		"SELECT count(*) FROM docs a JOIN docs b ON a.note = b.note AND 1/b.n >= 0",
		"SELECT id FROM docs WHERE CASE WHEN note = 'other' THEN 1/0 ELSE 1 END = 1 ORDER BY id",
		"SELECT (SELECT max(note) FROM docs WHERE id = o.id) FROM docs o ORDER BY 1",
		"SELECT id FROM docs WHERE id < 5 AND 10/(CASE WHEN code = 'zz' THEN 0 ELSE 1 END) > 0 LIMIT 1",
		"SELECT d.id FROM generate_series(1, 12) g LEFT JOIN docs d ON d.id = g WHERE d.id = 4 OR d.id IS NULL ORDER BY g",
		"SELECT d.id FROM generate_series(1, 12) g LEFT JOIN docs d ON d.id = g WHERE d.n = 4 ORDER BY g",
		"BEGIN; UPDATE docs SET note = 'x' WHERE 1/n > 0 AND id = 4; ROLLBACK",
		"BEGIN; DELETE FROM docs WHERE note::int > 0; ROLLBACK",
		"BEGIN; DELETE FROM docs WHERE n = 0 AND 1/r > 0; ROLLBACK",
	} {
		s := sent(t, text, rule)
		if a, b := transcript(t, server, "rows", s), transcript(t, server, "others", s); a != b || strings.Contains(s, "?") {
			t.Errorf("%s\nsent %s\n%s\nother\n%s", text, s, a, b)
		}
	}
}

func TestFilteredRowsAreNotExplained(t *testing.T) {
	if got := sent(t, "EXPLAIN SELECT id FROM docs", shown(t, `owner == subject.id`, nil)); !strings.Contains(got, "EXPLAIN would tell of the others") {
		t.Error(got)
	}
}

// TestKeysStandForRows groups by a primary key, of which the server knows only where the
// table itself stands in FROM.
func TestKeysStandForRows(t *testing.T) {
	rule := shown(t, `n < 100`, nil)
	rule[0].Table.Columns[1].Mask = &postern.MaskRule{Method: postern.MaskRedact, Value: "***"}
	cat := sqltest.New().Type("public.mood", 'e').Table("public.docs", docsColumns...).Key("public.docs", "id").Catalog()
	defer runtime.KeepAlive(cat) // to rewrite it
	for _, c := range []struct{ text, want string }{
		{"SELECT id, owner, count(*) FROM docs GROUP BY id", " GROUP BY id, docs.owner"},
		{"SELECT d.id, note, count(*) FROM docs d JOIN regions r ON true GROUP BY 1", "? relation"},
		{"SELECT d.id, d.note, count(*) FROM docs d JOIN docs e ON e.n = d.n GROUP BY 1", " GROUP BY 1, d.n, d.note"},
		{"SELECT d.* FROM docs d GROUP BY d.id", " GROUP BY d.id, d.owner, d.code, d.pad, d.mood, d.tenant, d.born, d.at, d.n, d.r, d.live, d.tags, d.note"},
		{"SELECT note FROM docs GROUP BY note", " GROUP BY note"},
		{"SELECT id, count(*) FROM docs GROUP BY ROLLUP (id)", " GROUP BY ROLLUP (id)"},
		{"SELECT x.id FROM (SELECT * FROM docs) x GROUP BY x.id", " GROUP BY x.id"},
	} {
		an, err := postgres.Analyze(t.Context(), pool, cat, postgres.Settings{SearchPath: []string{"public"}}, c.text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := an.Rewrite(rule)
		if _, refused := strings.CutPrefix(c.want, "? "); refused != (err != nil) || !refused && !strings.HasSuffix(got, c.want) {
			t.Errorf("%s\n got %s, %v\nwant %s", c.text, got, err, c.want)
		}
	}
}

// FuzzRowText holds the quoting of values to the grammar: what is read back is the one
// constant that was written.
func FuzzRowText(f *testing.F) {
	for _, s := range []string{"", "'", `\`, `\'`, "a'b", "é", "';--"} {
		f.Add(s)
	}
	r, err := policy.CompileRows(`c == subject.id`)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := r.SQL(&postern.Subject{Name: s})
		if err != nil {
			return
		}
		tree, err := pool.Parse(context.Background(), "SELECT "+text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		parsed := &pg.ParseResult{}
		if err := proto.Unmarshal(tree, parsed); err != nil {
			t.Fatal(err)
		}
		e := parsed.Stmts[0].Stmt.GetSelectStmt().TargetList[0].GetResTarget().Val.GetAExpr()
		if len(parsed.Stmts) != 1 || e == nil || e.Rexpr.GetAConst().GetSval().GetSval() != s {
			t.Fatalf("%q is read as %v", text, parsed)
		}
	})
}
