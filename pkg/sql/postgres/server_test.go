package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/sqltest"
	"github.com/posterngate/postern/test/servers"
	"github.com/posterngate/postern/test/truth"
)

// report is the rules of a task that sees orders and customers with e-mails masked.
var report = []postern.Obligation{
	{Table: &postern.TableRule{Schema: "sales", Table: "orders", Columns: []postern.ColumnRule{
		{Name: "id"}, {Name: "customer_id"}, {Name: "customer_email", Mask: &postern.MaskRule{Method: postern.MaskRedact, Value: "***"}},
		{Name: "amount"}, {Name: "status"}, {Name: "created_at"},
	}}},
	{Table: &postern.TableRule{Schema: "sales", Table: "customers", Columns: []postern.ColumnRule{
		{Name: "id"}, {Name: "name"}, {Name: "email", Mask: &postern.MaskRule{Method: postern.MaskNull}},
		{Name: "card", Mask: &postern.MaskRule{Method: postern.MaskPartial, KeepFirst: 4}}, {Name: "country"}, {Name: "created_at"},
	}}},
	{Blank: "pg_relation_size"}, {Blank: "pg_table_size"}, {Blank: "pg_indexes_size"}, {Blank: "pg_total_relation_size"}, {Blank: "pg_database_size"}, {Blank: "pg_tablespace_size"},
	{Blank: "pg_get_functiondef"}, {Blank: "pg_stat_get_live_tuples"}, {Blank: "pg_stat_get_dead_tuples"}, {Blank: "pg_stat_get_numscans"},
}

// reads are statements of all kinds, most of them attempts to see what is masked.
var reads = []string{
	"SELECT id, customer_email FROM sales.orders WHERE id BETWEEN 1 AND 5",
	"SELECT * FROM sales.orders ORDER BY id LIMIT 5",
	"SELECT sales.orders.* FROM sales.orders ORDER BY sales.orders.id LIMIT 2",
	"SELECT status, sum(amount) FROM sales.orders GROUP BY status ORDER BY 1",
	"SELECT ascii(substr(customer_email, 1, 1)), length(customer_email) FROM orders LIMIT 3",
	"SELECT translate(customer_email, '@.', '#_') FROM orders LIMIT 3",
	"SELECT to_jsonb(o)->>'customer_email', to_jsonb(o) FROM orders o ORDER BY id LIMIT 3",
	"SELECT o FROM orders o ORDER BY id LIMIT 3",
	"SELECT (o).customer_email, (o).status FROM orders o ORDER BY id LIMIT 3",
	"SELECT min(customer_email), max(customer_email) FROM orders",
	"SELECT lag(customer_email) OVER (ORDER BY id) FROM orders LIMIT 3",
	"SELECT 'x' AS status UNION ALL SELECT customer_email FROM orders LIMIT 3",
	"SELECT u.b, a FROM orders o, LATERAL unnest(ARRAY[o.id], ARRAY[o.customer_email]) AS u(a, b) ORDER BY a LIMIT 3",
	"SELECT x FROM (SELECT unnest(array_agg(customer_email)) x FROM orders) s LIMIT 3",
	"SELECT j.* FROM orders o, json_to_record(to_json(o)) AS j(customer_email text) LIMIT 3",
	"SELECT coalesce(nullif(customer_email, ''), '-') || '' FROM orders LIMIT 3",
	"SELECT regexp_matches(customer_email, '^(.*)@') FROM orders LIMIT 3",
	"SELECT json_object_agg(id, customer_email) FROM (SELECT id, customer_email FROM orders ORDER BY id LIMIT 3) s",
	"SELECT id FROM orders WHERE customer_email LIKE 'a%'",
	"SELECT id FROM orders ORDER BY customer_email, id LIMIT 20",
	"SELECT count(*) FROM orders GROUP BY customer_email HAVING min(customer_email) > 'z'",
	"SELECT DISTINCT ON (customer_email) id FROM orders ORDER BY customer_email, id LIMIT 5",
	"SELECT 1/(CASE WHEN max(customer_email) LIKE 'u%' THEN 0 ELSE 1 END) FROM orders",
	"SELECT id FROM orders WHERE EXISTS (SELECT 1 FROM orders s WHERE s.customer_email > 'v')",
	"EXPLAIN SELECT id FROM orders WHERE customer_email > 'user5'",
	"EXPLAIN (COSTS on, VERBOSE) SELECT id FROM orders",
	"SELECT a.id, b.id FROM orders a JOIN orders b USING (customer_email) WHERE a.id = 1 ORDER BY 2",
	"SELECT customer_email::int FROM orders LIMIT 1",
	"SELECT xmlparse(document customer_email) FROM orders LIMIT 1",
	"SELECT customer_email::regclass FROM orders LIMIT 1",
	"SELECT ARRAY[customer_email], ROW(customer_email) FROM orders LIMIT 1",
	"SELECT json_agg(o) FROM (SELECT id, amount, status FROM orders ORDER BY id LIMIT 3) o",
	"COPY orders TO STDOUT",
	"COPY orders (id, customer_email) TO STDOUT WITH (FORMAT csv, HEADER)",
	"COPY (SELECT id, customer_email FROM orders) TO STDOUT",
	"WITH RECURSIVE t(n, e) AS (SELECT 1, min(customer_email) FROM orders UNION ALL SELECT n OPERATOR(pg_catalog.+) 1, e FROM t WHERE n < 3) SELECT * FROM t",
	"SELECT c.name, c.email, c.card, o.amount FROM customers c JOIN orders o ON o.customer_id = c.id ORDER BY o.id LIMIT 4",
	"SELECT c.name FROM customers c WHERE card LIKE '4111%' ORDER BY card, id",
	"SELECT x.email FROM orders o, LATERAL (SELECT email FROM customers c WHERE c.id = o.customer_id) x LIMIT 3",
	"SELECT count(*) FROM orders o NATURAL JOIN customers c",
	"SELECT b, d FROM customers AS c(a, b, c, x, d) ORDER BY a LIMIT 3",
	"SELECT count(*), count(o.*) FROM orders o",
	"SELECT id FROM orders o WHERE o IS NOT NULL ORDER BY id LIMIT 3",
	"SELECT grouping(status), count(*) FROM orders GROUP BY ROLLUP (status) ORDER BY 2",
	"SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY customer_email) FROM orders",
	"SELECT name FROM customers WHERE (id, country) IN (SELECT customer_id, 'DE' FROM orders) ORDER BY id LIMIT 2",
	"SELECT c.id, (SELECT count(*) FROM orders o WHERE o.customer_id = c.id AND o.status = 'open') FROM customers c ORDER BY 1 LIMIT 3",
	"SELECT 'sad'::mood::text, now() IS NOT NULL, current_user IS NULL, '1'::int4, '{1,2}'::int[], interval '1 day', date '2026-01-01'",
	"SELECT key, value FROM orders o, json_each_text(to_json(o)) WHERE id = 1 ORDER BY 1",
	"SELECT r.name FROM regions r FULL JOIN customers c ON c.country = r.code GROUP BY r.name ORDER BY 1",
	"SELECT * FROM orders_pub ORDER BY id LIMIT 2",
	"VALUES (1, 'a'), (2, 'b')",
	"TABLE regions",
	"SELECT c.relname, pg_size_pretty(pg_table_size(c.oid)) AS size FROM pg_class c WHERE c.relname IN ('orders', 'customers') ORDER BY pg_total_relation_size(c.oid), 1",
	"SELECT pg_relation_size('orders'), pg_relation_size('orders', 'fsm'), pg_relation_size(16384), pg_indexes_size('sales.customers'::regclass), pg_database_size(current_database()), pg_tablespace_size('pg_default')",
	"SELECT pg_get_functiondef(p.oid), pg_stat_get_live_tuples(c.oid), pg_stat_get_dead_tuples(16384), pg_stat_get_numscans('orders'::regclass) FROM pg_class c, pg_proc p WHERE c.relname = 'orders' AND p.proname = 'lower' AND p.prokind = 'f'",
	"SELECT x.* FROM orders o, XMLTABLE('/o/e' PASSING xmlelement(name o, xmlelement(name e, o.customer_email)) COLUMNS n FOR ORDINALITY, e text PATH '.', d text DEFAULT o.status) x WHERE o.id < 4 ORDER BY o.id",
	"SELECT o.id, a, b FROM orders o LEFT JOIN XMLTABLE(XMLNAMESPACES('http://x' AS z, DEFAULT 'http://y'), '/z:r' PASSING BY REF XMLPARSE(DOCUMENT '<r xmlns=\"http://x\" k=\"1\"/>') COLUMNS k int PATH '@k' NOT NULL) AS t(a) ON o.id = t.a, LATERAL (VALUES (t.a)) v(b) ORDER BY 1 LIMIT 3",
	"SELECT x.n FROM customers c, XMLTABLE(('/r[\"' || c.email || '\" > \"m\"]') PASSING '<r/>' COLUMNS n int PATH '1') x ORDER BY c.id LIMIT 3",
}

// newer are queries that servers before 17 do not understand.
var newer = []string{
	"SELECT JSON_OBJECT('id': id, status VALUE customer_email ABSENT ON NULL RETURNING jsonb) FROM orders ORDER BY id LIMIT 3",
	"SELECT JSON_OBJECT('a' VALUE '{}' FORMAT JSON, 'b': 1 WITH UNIQUE KEYS)",
	"SELECT JSON_ARRAY(id, customer_email NULL ON NULL), JSON_ARRAY(SELECT email FROM customers ORDER BY id LIMIT 2) FROM orders ORDER BY id LIMIT 2",
	"SELECT JSON_ARRAYAGG(customer_email ORDER BY id ABSENT ON NULL RETURNING jsonb) FILTER (WHERE id < 4) FROM orders",
	"SELECT status, JSON_OBJECTAGG(id: customer_email) FROM orders WHERE id IN (1, 5) GROUP BY status ORDER BY status",
	"SELECT JSON_ARRAYAGG(id) OVER (ORDER BY id), JSON_SCALAR(amount), JSON_SERIALIZE('{}') FROM orders ORDER BY id LIMIT 3",
	"SELECT JSON('{\"a\": 1}'), '1' IS JSON, customer_email IS JSON, '{}' IS NOT JSON ARRAY WITH UNIQUE KEYS FROM orders ORDER BY id LIMIT 2",
	"SELECT JSON_VALUE(to_jsonb(o), '$.customer_email'), JSON_VALUE(to_jsonb(o), '$.nope' RETURNING int DEFAULT 7 ON EMPTY) FROM orders o ORDER BY id LIMIT 3",
	"SELECT JSON_QUERY(to_jsonb(o), '$.*' WITH WRAPPER), JSON_QUERY(to_jsonb(o), '$.status' OMIT QUOTES) FROM orders o ORDER BY id LIMIT 3",
	"SELECT id FROM orders o WHERE JSON_EXISTS(to_jsonb(o), '$ ? (@.customer_email starts with $x)' PASSING '*' AS x) ORDER BY id LIMIT 3",
	"SELECT j.* FROM orders o, JSON_TABLE(to_jsonb(o), '$' AS p COLUMNS (n FOR ORDINALITY, id int, e text PATH '$.customer_email', has bool EXISTS PATH '$.note', NESTED PATH '$.*' COLUMNS (v jsonb PATH '$'))) j ORDER BY id, v LIMIT 9",
	"SELECT a.b, c FROM JSON_TABLE('[1, 2]', '$[*]' COLUMNS (x int PATH '$', y text FORMAT JSON PATH '$' ERROR ON ERROR)) AS a(b, c)",
}

// newerChanges are changes that servers before 18 do not understand. They leave everything as
// it was.
var newerChanges = []string{
	"MERGE INTO orders o USING regions r ON o.status = r.code WHEN NOT MATCHED BY SOURCE AND o.id < 4 THEN UPDATE SET status = o.status RETURNING merge_action(), r.*, old.status, new.id",
	"MERGE INTO orders USING (VALUES (1), (2)) AS v(n) ON id = n WHEN MATCHED THEN UPDATE SET status = status RETURNING merge_action() AS did, v.*, new.status, orders.id",
	"MERGE INTO regions r USING (SELECT code, name FROM regions) AS s ON s.code = r.code WHEN MATCHED THEN UPDATE SET name = s.name RETURNING *",
	"WITH m AS (MERGE INTO orders o USING customers c ON o.customer_id = c.id AND o.id < 3 WHEN MATCHED THEN UPDATE SET status = o.status RETURNING o.id, c.email, merge_action()) SELECT * FROM m",
	"UPDATE orders SET status = status WHERE id = 1 RETURNING old.status, new.id, status",
	"UPDATE regions SET name = name WHERE code = 'DE' RETURNING *, old.*, new.name",
	"UPDATE orders AS new SET status = status WHERE id = 2 RETURNING new.id, old.id",
	"INSERT INTO regions SELECT code, name FROM regions ON CONFLICT (code) DO UPDATE SET name = excluded.name RETURNING old.code, new.*, old IS NULL",
}

// TestOnANewerServer has a newer server judge what it alone understands.
func TestOnANewerServer(t *testing.T) {
	pg := server(t, servers.PGOptions{Major: 18})
	t.Run("two worlds", func(t *testing.T) { twoWorlds(t, pg, newer) })
	t.Run("same as before", func(t *testing.T) { sameColumns(t, pg, newer) })
	t.Run("nothing missed", func(t *testing.T) { nothingMissed(t, pg, newer, len(newer)) })
	t.Run("changes in two worlds", func(t *testing.T) { twoWorlds(t, pg, newerChanges) })
	t.Run("changes as before", func(t *testing.T) { sameColumns(t, pg, newerChanges) })
}

// server has the two worlds: databases that differ in masked and unlisted columns alone.
func server(t *testing.T, o ...servers.PGOptions) *servers.PG {
	t.Helper()
	setup, err := os.ReadFile("testdata/traps.sql")
	if err != nil {
		t.Fatal(err)
	}
	pg := servers.Postgres(t, o...)
	for _, world := range []string{"warehouse", "other"} {
		pg.SQL(t, "CREATE DATABASE "+world)
		pg.SQLIn(t, world, string(setup))
	}
	pg.SQLIn(t, "other", `UPDATE sales.customers SET email = repeat('z', 100 - id) || 'q', phone = 'none', card = '4111' || repeat('9', length(card) - 4);
		UPDATE sales.orders SET customer_email = (id * 7919 % 100)::text || 'other', note = repeat('n', id);
		CLUSTER sales.orders; CLUSTER sales.customers; ANALYZE`)
	return pg
}

// version is the server's, as server_version_num.
func version(t *testing.T, pg *servers.PG) int {
	t.Helper()
	major, _, _ := strings.Cut(pg.Version, ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		t.Fatal(err)
	}
	return n * 10000
}

// transcript is everything that a client sees of a statement.
func transcript(t *testing.T, pg *servers.PG, world, text string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	conn, err := pgconn.Connect(ctx, pg.SuperDSN(world))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var b strings.Builder
	if strings.HasPrefix(text, "COPY") {
		_, err := conn.CopyTo(ctx, &b, text)
		return fmt.Sprint(b.String(), said(err))
	}
	set := conn.Exec(ctx, "SET search_path = sales, public")
	if _, err := set.ReadAll(); err != nil {
		t.Fatal(err)
	}
	results, err := conn.Exec(ctx, text).ReadAll()
	for _, r := range results {
		for _, f := range r.FieldDescriptions {
			fmt.Fprint(&b, f.Name, ":", f.DataTypeOID, ":", f.TypeModifier, " ")
		}
		for _, row := range r.Rows {
			b.WriteString("\n")
			for _, v := range row {
				fmt.Fprintf(&b, "%s|", v)
			}
		}
		b.WriteString(r.CommandTag.String())
	}
	return b.String() + said(err)
}

func said(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code + " " + e.Message + " " + e.Detail
	}
	return fmt.Sprint(err)
}

func TestOnAServer(t *testing.T) {
	pg := server(t)
	t.Run("two worlds", func(t *testing.T) { twoWorlds(t, pg, reads) })
	t.Run("same as before", func(t *testing.T) { sameColumns(t, pg, reads) })
	t.Run("nothing missed", func(t *testing.T) { nothingMissed(t, pg, slices.Concat(reads, catalogued(t)), 80) })
	t.Run("attributes", func(t *testing.T) { attributes(t, pg) })
}

// attributes are functions that are called as if they were columns: where the server
// answers with the server's version, the facts must name the function.
func attributes(t *testing.T, pg *servers.PG) {
	for _, text := range []string{
		"SELECT ('server_version'::text).current_setting",
		"SELECT (s.name).current_setting FROM (SELECT 'server_version'::text AS name) s",
		"SELECT ('{server_version}'::text[])[1].current_setting",
		"SELECT g.current_setting FROM unnest('{server_version}'::text[]) g",
		"SELECT (g).current_setting FROM unnest('{server_version}'::text[]) g",
		"SELECT (g.g).current_setting FROM unnest('{server_version}'::text[]) g",
		"SELECT g.current_setting FROM unnest('{server_version}'::text[]) WITH ORDINALITY AS g(a, b)",
		"SELECT x.g.current_setting FROM (SELECT g FROM unnest('{server_version}'::text[]) g) x",
		"SELECT current_setting FROM unnest('{server_version}'::text[]) g",
	} {
		rows, err := pg.Exec(t.Context(), "warehouse", text)
		called := err == nil && len(rows) > 0 && strings.HasPrefix(rows[0][0], "15")
		facts := analyze(t, text).SQLFacts()
		told := !facts.Complete || slices.ContainsFunc(facts.Statements[0].Functions, func(f sql.Function) bool { return f.Name == "current_setting" && !f.Pure })
		if called && !told {
			t.Errorf("%s: the server calls what the facts do not name: %s", text, brief(facts))
		}
		t.Log(text, called, told)
	}
}

// twoWorlds runs what is sent for a masked task in both worlds: a client must not be
// able to tell them apart.
func twoWorlds(t *testing.T, pg *servers.PG, texts []string) {
	for _, text := range texts {
		an := analyzeOn(t, version(t, pg), text)
		if !an.SQLFacts().Complete {
			t.Errorf("%s: %s", text, an.SQLFacts().Incomplete)
			continue
		}
		sent, err := an.Rewrite(report)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		a, b := transcript(t, pg, "warehouse", sent), transcript(t, pg, "other", sent)
		if a != b {
			t.Errorf("%s\nsent %s\n%.300s\nother\n%.300s", text, sent, a, b)
		}
		if strings.Contains(a, "example.com") || strings.Contains(a, "call +") {
			t.Errorf("%s shows what is masked:\n%.300s", text, a)
		}
		if strings.HasPrefix(a, "42") && !strings.Contains(a, `relation "***"`) { // syntax error or unknown name
			t.Errorf("%s\nsent %s\nis not understood by the server: %s", text, sent, a)
		}
	}
}

// sameColumns compares the canonical text with the client's own, and the columns of the
// rewritten one with both.
func sameColumns(t *testing.T, pg *servers.PG, texts []string) {
	for _, text := range texts {
		if strings.HasPrefix(text, "EXPLAIN") {
			continue
		}
		an := analyzeOn(t, version(t, pg), text)
		own, canonical := transcript(t, pg, "warehouse", text), transcript(t, pg, "warehouse", an.Canonical())
		if own != canonical {
			t.Errorf("%s\nas %s\nreturns %.300s\nand not %.300s", text, an.Canonical(), canonical, own)
		}
		sent, err := an.Rewrite(report)
		if err != nil || strings.Contains(text, "*") || strings.Contains(text, "COPY") {
			continue
		}
		head, _, ok := strings.Cut(own, "\n")
		if !ok || strings.HasPrefix(text, "SELECT o FROM") { // an error, or a row of fewer columns
			continue
		}
		if got, _, _ := strings.Cut(transcript(t, pg, "warehouse", sent), "\n"); got != head {
			t.Errorf("%s\nhas columns %s and, masked, %s", text, head, got)
		}
	}
}

// catalogued are the queries of the catalogue of evasions that are understood.
func catalogued(t *testing.T) []string {
	var out []string
	for _, name := range []string{"catalogue.yaml", "rules.yaml"} {
		entries, err := truth.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			for _, text := range e.SQL {
				an, err := postgres.Analyze(t.Context(), pool, sqltest.Traps(), settings, text)
				if err == nil && an.SQLFacts().Complete && len(an.SQLFacts().Statements) == 1 {
					out = append(out, text)
				}
			}
		}
	}
	return out
}

// nothingMissed has the server itself say which columns, and which functions that are
// not its own, a query depends on. At least so many are queries that a view can be made of.
func nothingMissed(t *testing.T, pg *servers.PG, texts []string, atLeast int) {
	asked := 0
	for _, text := range texts {
		rows, err := pg.Exec(t.Context(), "warehouse", `SET search_path = sales, public;
			BEGIN; CREATE TEMP VIEW v AS SELECT 1 FROM (`+strings.TrimRight(text, "; ")+`
			) AS q;
			SELECT DISTINCT n.nspname || '.' || c.relname, a.attname FROM pg_rewrite r
			JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
			JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
			JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
			WHERE r.ev_class = 'v'::regclass AND c.relname <> 'v'
			UNION ALL SELECT DISTINCT n.nspname || '.' || p.proname, '()' FROM pg_rewrite r
			JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_proc'::regclass
			JOIN pg_proc p ON p.oid = d.refobjid JOIN pg_namespace n ON n.oid = p.pronamespace WHERE r.ev_class = 'v'::regclass`)
		if err != nil {
			continue // not a view's query: names twice, a function with side effects
		}
		asked++
		st := analyzeOn(t, version(t, pg), text).SQLFacts().Statements[0]
		for _, row := range rows {
			found := slices.ContainsFunc(st.Tables, func(tb sql.Table) bool {
				return tb.String() == row[0] && (tb.AllColumns || slices.Contains(tb.Read, row[1]))
			}) || row[1] == "()" && slices.ContainsFunc(st.Functions, func(f sql.Function) bool { return f.String() == row[0] && !f.Pure })
			if !found {
				t.Errorf("%s\nuses %s.%s, which the facts do not say: %v %v", text, row[0], row[1], st.Tables, st.Functions)
			}
		}
	}
	if asked < atLeast {
		t.Errorf("the server was asked about %d queries only", asked)
	}
	t.Logf("the server was asked about %d queries", asked)
}
