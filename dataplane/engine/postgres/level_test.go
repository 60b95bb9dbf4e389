package postgres

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

const peopleTables = `
CREATE TABLE IF NOT EXISTS sales.people (id int PRIMARY KEY, name text, email text, card varchar(19), code char(6), nick varchar(3), tag char(3), born date, score numeric(8,2), tags text[], unlisted text);
CREATE OR REPLACE VIEW sales.adults AS SELECT id, email, upper(name) AS loud FROM sales.people;
CREATE TABLE IF NOT EXISTS sales.people_parts (id int, email text, note text) PARTITION BY RANGE (id);
CREATE TABLE IF NOT EXISTS sales.people_low PARTITION OF sales.people_parts FOR VALUES FROM (0) TO (1000);
TRUNCATE sales.people, sales.people_parts;
INSERT INTO sales.people VALUES
	(1, 'Ada Lovelace', 'ada@example.com', '4111 1111 1111 1111', 'abc', 'ada', 'x', '1815-12-10', 1.5, '{a,b}', 'SECRET'),
	(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	(3, '', '', '', '', '', '', '0001-01-01', 0, '{}', ''),
	(4, 'Žofie Łukasińska', 'žofie@příklad.cz', '4111', 'ďáč', 'žľť', 'ň', '2000-02-29', -3.25, NULL, 'SECRET'),
	(5, '日本語テキスト', '日本@語', '日', '日本語', '日', '本', '1999-12-31', 7, '{x}', 'SECRET'),
	(6, e'tab\tnew\nline \\', e'a\x01b', '1', '      ', 'a  ', '   ', 'infinity', 'NaN', NULL, 'SECRET'),
	(7, repeat('é', 5000), repeat('😀', 3000), '12345', 'abcdef', 'abc', 'abc', NULL, NULL, NULL, 'SECRET'),
	(8, e'e\u0301a\u0308', 'x', 'abcd', 'a b', 'ab', 'a', NULL, NULL, NULL, 'SECRET');
INSERT INTO sales.people_parts SELECT id, email, name FROM sales.people;
GRANT SELECT ON sales.people, sales.adults, sales.people_parts TO app;
GRANT INSERT, UPDATE ON sales.people TO app;
`

const twoLevels = `
kind: Resource
metadata: {name: l1}
spec: {protocol: postgres, endpoint: {host: db, port: 5432, database: postgres}, credential: {sealed: s}, level: {want: result}}
---
kind: Resource
metadata: {name: l2}
spec: {protocol: postgres, endpoint: {host: db, port: 5432, database: postgres}, credential: {sealed: s}, level: {want: source}}
---
kind: Mask
metadata: {name: constant}
spec: {method: redact, value: "it's [ňic]"}
---
kind: Mask
metadata: {name: last-four}
spec: {method: partial, keepLast: 4}
---
kind: Mask
metadata: {name: ends}
spec: {method: partial, keepFirst: 1, keepLast: 1}
---
kind: Mask
metadata: {name: nothing}
spec: {method: "null"}
---
kind: Task
metadata: {name: t}
spec:
  purpose: "test"
  resources: {names: [l1, l2]}
  duration: 1h
  permit:
    - table: sales.people
      verbs: [select]
      columns: [id, name, email, card, code, nick, tag, born, score, tags]
      mask: {name: ends, email: constant, card: last-four, code: ends, nick: constant, tag: constant, born: nothing, tags: nothing}
    - {table: sales.adults, verbs: [select], columns: [id, email, loud], mask: {email: ends}}
    - {table: sales.people_parts, verbs: [select], columns: [id, email, note], mask: {email: last-four}}
    - {table: sales.load, verbs: [select, insert, update, delete], columns: [id, note], writeColumns: [id, note]}
`

// atLevel is a house whose policy is real, at resource l1 or l2.
func atLevel(t *testing.T, resource postern.ResourceName, change ...func(*Config)) *house {
	t.Helper()
	h := newHouse(t, change...)
	snap := policytest.Compile(t, strings.ReplaceAll(twoLevels, "\nkind:", "\napiVersion: postern/v1\nkind:"))
	h.door.Set(func(p *enginetest.Policy) {
		p.Decide = func(_ string, facts any) postern.Decision {
			return snap.Decide(policy.Query{
				Grant:    &postern.Grant{ID: "g", Subject: postern.Subject{Name: "ada"}, Task: "t", End: time.Now().Add(time.Hour)},
				Resource: resource, Facts: facts.(*sql.Facts), Request: policy.Request{Time: time.Now()},
			})
		}
	})
	return h
}

// result is what a client got of one statement.
type result struct {
	names, types []string
	rows         [][]string
	code         string
}

func (r result) String() string {
	return fmt.Sprintf("%s %v %v\n%s", r.code, r.names, r.types, strings.Join(func() (out []string) {
		for _, row := range r.rows {
			out = append(out, strings.Join(row, "|"))
		}
		return out
	}(), "\n"))
}

func read(rr *pgconn.ResultReader) (out result) {
	for _, f := range rr.FieldDescriptions() {
		out.names = append(out.names, f.Name)
		out.types = append(out.types, fmt.Sprint(f.DataTypeOID, f.Format))
	}
	for rr.NextRow() {
		var row []string
		for _, v := range rr.Values() {
			if v == nil {
				row = append(row, "NULL")
				continue
			}
			row = append(row, hex.EncodeToString(v))
		}
		out.rows = append(out.rows, row)
	}
	if _, err := rr.Close(); err != nil {
		out.code = err.Error()
	}
	return out
}

// ask runs a text in each way that a driver may.
func ask(t *testing.T, c *pgconn.PgConn, how, text string) result {
	t.Helper()
	ctx := testContext(t)
	switch how {
	case "simple":
		mrr := c.Exec(ctx, text)
		var out result
		for mrr.NextResult() {
			out = read(mrr.ResultReader())
		}
		if err := mrr.Close(); err != nil {
			out.code = err.Error()
		}
		return out
	case "text":
		return read(c.ExecParams(ctx, text, nil, nil, nil, nil))
	case "binary":
		return read(c.ExecParams(ctx, text, nil, nil, nil, []int16{1}))
	case "prepared":
		if _, err := c.Prepare(ctx, "s", text, nil); err != nil {
			return result{code: err.Error()}
		}
		out := read(c.ExecPrepared(ctx, "s", nil, nil, []int16{1}))
		if err := c.Deallocate(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		return out
	case "cursor":
		_ = ask(t, c, "simple", "BEGIN")
		defer ask(t, c, "simple", "ROLLBACK")
		if out := ask(t, c, "simple", "DECLARE c CURSOR FOR "+text); out.code != "" {
			return out
		}
		return ask(t, c, "simple", "FETCH ALL FROM c")
	}
	t.Fatal(how)
	return result{}
}

// bareProjection makes a statement that shows columns as they are, in one of many ways.
func bareProjection(r *rand.Rand) string {
	columns := []string{"id", "name", "email", "card", "code", "nick", "tag", "born", "score", "tags"}
	r.Shuffle(len(columns), func(i, j int) { columns[i], columns[j] = columns[j], columns[i] })
	columns = columns[:1+r.IntN(len(columns))]
	if r.IntN(4) == 0 {
		columns = append(columns, columns[0])
	}
	list := func(prefix string) string {
		var out []string
		for i, c := range columns {
			c = prefix + c
			if r.IntN(3) == 0 {
				c += fmt.Sprintf(" AS a%d", i)
			}
			out = append(out, c)
		}
		if r.IntN(3) == 0 {
			out = append(out, prefix+"id + 1")
		}
		return strings.Join(out, ", ")
	}
	where := []string{"", " WHERE id < 5", " WHERE id IN (3, 7, 8)", " WHERE id > 100"}[r.IntN(4)]
	switch r.IntN(9) {
	case 7:
		return "SELECT * FROM people_parts" + where + " ORDER BY id"
	case 8:
		return "SELECT q.*, p.email, q.* FROM people_parts q LEFT JOIN people p USING (id) ORDER BY id"
	case 0:
		return "SELECT " + list("p.") + " FROM people p ORDER BY p.id"
	case 1:
		return "SELECT " + list("x.") + " FROM (SELECT " + strings.Join(dedupe(append(columns, "id")), ", ") + " FROM people" + where + ") x ORDER BY x.id"
	case 2:
		return "WITH x AS (SELECT " + strings.Join(dedupe(append(columns, "id")), ", ") + " FROM people" + where + ") SELECT " + list("x.") + " FROM x ORDER BY id"
	case 3:
		return "SELECT " + list("p.") + ", q.email FROM people p JOIN people_parts q ON q.id = p.id ORDER BY p.id"
	case 4:
		return "SELECT a.loud, a.email, " + list("p.") + " FROM adults a LEFT JOIN people p ON a.id = p.id ORDER BY a.id"
	case 5:
		return "WITH x AS MATERIALIZED (SELECT * FROM (SELECT " + strings.Join(dedupe(append(columns, "id")), ", ") + " FROM people) y) SELECT * FROM x ORDER BY id"
	}
	return "SELECT " + list("") + " FROM people" + where + " ORDER BY id"
}

func dedupe(in []string) (out []string) {
	for _, s := range in {
		seen := false
		for _, o := range out {
			seen = seen || o == s
		}
		if !seen {
			out = append(out, s)
		}
	}
	return out
}

func TestLevelResultEqualsLevelSource(t *testing.T) {
	start(t)
	shared.pg.SQL(t, peopleTables)
	h1, h2 := atLevel(t, "l1"), atLevel(t, "l2")
	l1, l2 := h1.connect(t, "").PgConn(), h2.connect(t, "").PgConn()
	ways := []string{"simple", "text", "binary", "prepared", "cursor"}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 150 {
		text, how := bareProjection(r), ways[i%len(ways)]
		got, want := ask(t, l1, how, text), ask(t, l2, how, text)
		if want.code != "" {
			t.Fatalf("%s at level source: %s", text, want.code)
		}
		if got.String() != want.String() {
			t.Fatalf("%s (%s)\nat level result:\n%s\nat level source:\n%s", text, how, got, want)
		}
	}
	binary := false
	for _, e := range h1.door.Last().Executions() {
		if bytes.Contains(e.Data, []byte("lovelace")) || bytes.Contains(e.Data, []byte("ada@example.com")) || e.Outcome.Code != "" {
			t.Fatalf("recorded %+v", e)
		}
		for _, c := range e.Columns {
			binary = binary || c.Binary
			if c.Name == "email" && !c.Masked {
				t.Fatalf("%q: column %+v is recorded as not masked", e.Text, c)
			}
		}
	}
	if !binary {
		t.Error("no column is recorded as binary")
	}
	if h1.door.Last().Sent("CASE WHEN") || !h2.door.Last().Sent("CASE WHEN") {
		t.Fatal("level source rewrites what is sent, level result does not")
	}
}

func TestLevelResultRefuses(t *testing.T) {
	start(t)
	shared.pg.SQL(t, peopleTables)
	h := atLevel(t, "l1")
	c := h.connect(t, "").PgConn()
	for _, text := range []string{
		"SELECT * FROM people",
		"SELECT people FROM people",
		"SELECT lower(email) FROM people",
		"SELECT email || '' FROM people",
		"SELECT id FROM people WHERE email = 'ada@example.com'",
		"SELECT id FROM people ORDER BY email",
		"SELECT DISTINCT email FROM people",
		"SELECT email FROM people UNION ALL SELECT note FROM load",
		"SELECT max(email) FROM people",
		"SELECT (SELECT email FROM people WHERE id = 1)",
		"SELECT row_to_json(x) FROM (SELECT email FROM people) x",
		"COPY people (id, email) TO STDOUT",
		"COPY (SELECT email FROM people) TO STDOUT",
		"INSERT INTO load (note) SELECT email FROM people",
		"INSERT INTO load (note) VALUES ('x') RETURNING (SELECT email FROM people WHERE id = 1)",
		"DELETE FROM load USING people p WHERE p.id = load.id RETURNING p.email",
		"CREATE TABLE sales.copied AS SELECT email FROM people",
		"SELECT email INTO sales.copied FROM people",
		"SELECT unlisted FROM people",
		"SELECT email FROM people FOR UPDATE",
		"SELECT id FROM people; SELECT email FROM people",
		"WITH RECURSIVE r AS (SELECT email, 1 AS n FROM people UNION ALL SELECT email, n + 1 FROM r WHERE n < 2) SELECT email FROM r",
		"WITH t AS (SELECT 'x'::text AS email) SELECT q.e, c.email FROM (WITH RECURSIVE a AS (SELECT email || '' AS e FROM t), t AS (SELECT email FROM people) SELECT e FROM a) q, (SELECT email FROM people) c",
		"WITH RECURSIVE t AS (WITH t AS (SELECT email FROM people) SELECT 'x'::text AS email UNION ALL SELECT email || '' FROM t) SELECT t.email AS e, c.email FROM t, (SELECT email FROM people) c",
		"WITH RECURSIVE t(n, e) AS (SELECT 0, 'x'::text UNION ALL SELECT n + 1, p.email FROM t, people p WHERE n < 2 AND p.id = 1 AND (n = 0 OR e LIKE 'a%')) SELECT c.email FROM t, (SELECT email FROM people WHERE id = 1) c",
		"SELECT email, 1 FROM people GROUP BY (1, 2)",
		"SELECT DISTINCT * FROM people_parts",
		"SELECT to_jsonb(p) FROM people_parts p",
		"SELECT x.email FROM (SELECT * FROM people_parts) x WHERE x.note LIKE 'a%'",
		"COPY people_parts TO STDOUT",
	} {
		for _, how := range []string{"simple", "text"} {
			if strings.Contains(text, ";") && how == "text" {
				continue
			}
			out := ask(t, c, how, text)
			if out.code == "" || len(out.rows) > 0 {
				t.Errorf("%s (%s) gave %s", text, how, out)
			}
		}
		if h.door.Last().Sent(text) {
			t.Errorf("%s was sent", text)
		}
	}
	for _, text := range []string{
		"SELECT id, score FROM people WHERE score > 1", "EXPLAIN SELECT email FROM people WHERE id = 1", "SELECT count(*) FROM people_parts",
		"UPDATE load SET note = 'x' WHERE id = -1", "SELECT p.email, l.note FROM people p LEFT JOIN load l USING (id)",
	} {
		if out := ask(t, c, "simple", text); out.code != "" {
			t.Errorf("%s: %s", text, out.code)
		}
	}
}

// TestLevelResultNeedsColumns holds a client that never asks for the columns of what it
// executes to the same masks.
func TestLevelResultNeedsColumns(t *testing.T) {
	start(t)
	shared.pg.SQL(t, peopleTables)
	h := atLevel(t, "l1")
	c := h.connect(t, "").PgConn()
	ctx := testContext(t)
	conn, err := c.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Conn.Close() }()
	deadline, _ := ctx.Deadline()
	_ = conn.Conn.SetDeadline(deadline)
	undescribed := join(message('P', "\x00SELECT email, id FROM people WHERE id < 3 ORDER BY id\x00\x00\x00"), message('B', "\x00\x00\x00\x00\x00\x00\x00\x00"), message('E', "\x00\x00\x00\x00\x00"), message('S', ""))
	for range 2 {
		if _, err := conn.Conn.Write(undescribed); err != nil {
			t.Fatal(err)
		}
		var seen string
		var all []byte
		for typ := byte(0); typ != 'Z'; {
			var body []byte
			if typ, body, err = readMessage(conn.Conn, 1<<20); err != nil {
				t.Fatal(err)
			}
			seen, all = seen+string(typ), append(all, body...)
		}
		if seen != "12DDCZ" || bytes.Contains(all, []byte("example.com")) || !bytes.Contains(all, []byte("it's [ňic]")) {
			t.Fatalf("the client got %s\n%q", seen, all)
		}
	}
}

// TestLevelResultStopsWhatChanged renames columns behind the catalogue's back.
func TestLevelResultStopsWhatChanged(t *testing.T) {
	start(t)
	shared.pg.SQL(t, `DROP TABLE IF EXISTS sales.people CASCADE`)
	shared.pg.SQL(t, peopleTables)
	h := atLevel(t, "l1")
	c := h.connect(t, "").PgConn()
	const text = "SELECT id, name, email FROM people"
	if out := ask(t, c, "simple", text); out.code != "" || len(out.rows) != 8 {
		t.Fatal(out)
	}
	h.ageCatalog(-time.Hour)
	shared.pg.SQL(t, `ALTER TABLE sales.people RENAME email TO old; ALTER TABLE sales.people RENAME unlisted TO email`)
	t.Cleanup(func() { shared.pg.SQL(t, `DROP TABLE sales.people CASCADE`); shared.pg.SQL(t, peopleTables) })
	for _, how := range []string{"simple", "binary", "cursor"} {
		out := ask(t, c, how, text)
		if out.code == "" && strings.Contains(out.String(), hex.EncodeToString([]byte("SECRET"))) {
			t.Fatalf("%s: %s", how, out)
		}
		if how == "simple" && !strings.Contains(out.code, "not what was allowed") {
			t.Fatalf("%s: %s", how, out)
		}
	}
}

func TestLevelResultScrubsErrors(t *testing.T) {
	start(t)
	shared.pg.SQL(t, peopleTables)
	h := atLevel(t, "l1")
	c := h.connect(t, "").PgConn()
	out := ask(t, c, "simple", "SELECT email, 1 / (id - id) FROM people")
	if !strings.Contains(out.code, withheld) || strings.Contains(out.code, "division") || !strings.Contains(out.code, "22012") {
		t.Fatalf("the client was told %s", out.code)
	}
	e := h.door.Last().Executions()
	if last := e[len(e)-1]; last.Outcome.Message != withheld || last.Outcome.Code != "22012" {
		t.Fatalf("recorded %+v", last.Outcome)
	}
}

func TestLevelResultLargeRows(t *testing.T) {
	start(t)
	shared.pg.SQL(t, peopleTables)
	shared.pg.SQL(t, `UPDATE sales.people SET name = repeat('é', 200000), email = repeat('x', 300000)`)
	t.Cleanup(func() { shared.pg.SQL(t, peopleTables) })
	for _, limit := range []int{16 << 20, 500_000} {
		h := atLevel(t, "l1", func(c *Config) { c.Limits.MaskedRow = limit })
		c := h.connect(t, "").PgConn()
		for _, how := range []string{"simple", "binary"} {
			out := ask(t, c, how, "SELECT id, name, email FROM people ORDER BY id")
			if limit == 500_000 {
				if !strings.Contains(out.code, "53400") || len(out.rows) > 0 {
					t.Fatalf("%s: %.300s", how, out)
				}
				if out := ask(t, c, how, "SELECT id FROM people"); out.code != "" || len(out.rows) != 8 {
					t.Fatal(out)
				}
				continue
			}
			if out.code != "" || len(out.rows) != 8 {
				t.Fatalf("%s: %s %d rows", how, out.code, len(out.rows))
			}
			for _, row := range out.rows {
				want := "é" + strings.Repeat("*", 199_998) + "é"
				if row[1] != hex.EncodeToString([]byte(want)) || row[2] != hex.EncodeToString([]byte("it's [ňic]")) {
					t.Fatalf("%s: a row of %d and %d bytes", how, len(row[1])/2, len(row[2])/2)
				}
			}
		}
	}
}

func TestLevelResultLimits(t *testing.T) {
	start(t)
	shared.pg.SQL(t, peopleTables)
	h := atLevel(t, "l1")
	h.door.Set(func(p *enginetest.Policy) { p.Rows = 3 })
	c := h.connect(t, "").PgConn()
	for _, how := range []string{"simple", "binary"} {
		out := ask(t, c, how, "SELECT email FROM people ORDER BY id")
		if !strings.Contains(out.code, "53400") || len(out.rows) != 3 {
			t.Fatal(out)
		}
	}
	masked := len(message('D', "\x00\x01\x00\x00\x00\x0bit's [ňic]"))
	h.door.Set(func(p *enginetest.Policy) { p.Rows, p.Bytes = 0, int64(masked) })
	out := ask(t, c, "simple", "SELECT email FROM people WHERE id IN (1, 4) ORDER BY id")
	if !strings.Contains(out.code, "53400") || len(out.rows) != 1 {
		t.Fatal(out)
	}
}
