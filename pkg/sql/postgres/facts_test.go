package postgres_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql"
)

// brief is facts as one line, for comparing:
//
//	select orders[select r:id.o,status.p w: all nowhere tr:] f:lower!
func brief(f *sql.Facts) string {
	if !f.Complete {
		return "? " + f.Incomplete
	}
	var out []string
	for _, st := range f.Statements {
		verb := string(st.Verb)
		if st.Verb == sql.Other {
			verb = "OTHER " + st.Command
		}
		parts := []string{verb}
		if st.Verb == sql.Define {
			parts = append(parts, st.Command, strings.Join(st.Schemas, ","))
		}
		if st.Explain {
			parts = append(parts, "explain")
		}
		if st.Setting != "" {
			parts = append(parts, st.Setting+"="+st.Value)
		}
		for _, u := range st.Settings {
			switch {
			case !u.Write:
				parts = append(parts, "get:"+u.Name+map[bool]string{true: "any"}[u.Listed])
			case u.Held:
				parts = append(parts, "set:"+u.Name+"=(held)")
			case u.Known:
				parts = append(parts, "set:"+u.Name+"="+u.Value)
			default:
				parts = append(parts, "set:"+u.Name+"=?")
			}
		}
		if st.Object != "" {
			parts = append(parts, "@"+st.Object)
		}
		for _, tb := range st.Tables {
			parts = append(parts, table(tb))
		}
		for _, fn := range st.Functions {
			switch {
			case fn.Blank:
				parts = append(parts, "f:"+fn.String()+"?")
			case !fn.Pure:
				parts = append(parts, "f:"+fn.String())
			}
		}
		out = append(out, strings.Join(parts, " "))
	}
	return strings.Join(out, "; ")
}

func table(tb sql.Table) string {
	var verbs []string
	for _, v := range tb.Verbs {
		verbs = append(verbs, string(v))
	}
	s := strings.TrimPrefix(tb.String(), "sales.") + "[" + strings.Join(verbs, ",")
	names := slices.Clone(tb.Read)
	if tb.AllColumns {
		names = append(names, "*")
	}
	for i, n := range names {
		role := ""
		for _, r := range []struct {
			bit sql.ColumnRole
			c   string
		}{{sql.RoleOutput, "o"}, {sql.RoleComputed, "c"}, {sql.RolePredicate, "p"}} {
			if tb.Roles[n]&r.bit != 0 {
				role += r.c
			}
		}
		names[i] = n + "." + role
	}
	if len(names) > 0 {
		s += " " + strings.Join(names, ",")
	}
	if len(tb.Write) > 0 {
		s += " w:" + strings.Join(tb.Write, ",")
	}
	if len(tb.TargetReads) > 0 {
		s += " tr:" + strings.Join(tb.TargetReads, ",")
	}
	if tb.NoWhere {
		s += " nowhere"
	}
	if tb.System {
		s += " system"
	}
	return s + "]"
}

func TestFacts(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		// Plain selects.
		{"SELECT 1", "select"},
		{"", ""},
		{";;", ""},
		{"SELECT id, status FROM orders", "select orders[select id.o,status.o]"},
		{"SELECT o.id AS status FROM sales.orders o WHERE o.customer_email LIKE 'a%'", "select orders[select customer_email.p,id.o]"},
		{"SELECT sales.orders.id FROM sales.orders", "select orders[select id.o]"},
		{"SELECT warehouse.sales.orders.id FROM warehouse.sales.orders", "select orders[select id.o]"},
		{"SELECT * FROM orders", "select orders[select *.o]"},
		{"SELECT o.*, r.name FROM orders o, regions r", "select orders[select *.o] regions[select name.o]"},
		{"TABLE hr.salaries", "select hr.salaries[select *.o]"},
		{"SELECT count(*) FROM orders", "select orders[select]"},
		{"SELECT upper(status) || note FROM orders", "select orders[select note.c,status.c]"},
		{"SELECT o FROM orders o", "select orders[select *.c]"},
		{"SELECT orders FROM orders", "select orders[select *.c]"},
		{"SELECT to_jsonb(o)->>'customer_email' FROM orders o", "select orders[select *.c]"},
		{"SELECT (o).customer_email FROM orders o", "select orders[select customer_email.c,*.c]"},
		{"SELECT (o).* FROM orders o", "select orders[select *.o]"},
		{"SELECT ROW(o.*) FROM orders o", "select orders[select *.c]"},
		{"SELECT count(o.*) FROM orders o", "select orders[select *.c]"},
		{"SELECT ctid FROM orders", "select orders[select ctid.o]"},
		{"SELECT xmin FROM pg_catalog.pg_am", "select pg_catalog.pg_am[select xmin.o system]"},
		{"SELECT o.ctid FROM orders o", "select orders[select ctid.o]"},
		{"SELECT id FROM orders ORDER BY customer_email LIMIT 3", "select orders[select customer_email.p,id.o]"},
		{"SELECT customer_email AS e FROM orders ORDER BY e", "select orders[select customer_email.op]"},
		{"SELECT id, customer_email FROM orders ORDER BY 2", "select orders[select customer_email.op,id.o]"},
		{"SELECT * FROM orders ORDER BY 3", "select orders[select *.op]"},
		{"SELECT * FROM orders ORDER BY note", "select orders[select note.p,*.o]"},
		{"SELECT status, sum(amount) FROM orders GROUP BY status", "select orders[select amount.c,status.op]"},
		{"SELECT status, note, count(*) FROM orders GROUP BY (1, 2)", "select orders[select note.op,status.op]"},
		{"SELECT status, count(*) FROM orders GROUP BY GROUPING SETS ((1, note))", "select orders[select note.p,status.op]"},
		{"SELECT 1 FROM orders GROUP BY ROW(1, id)", "select orders[select id.p]"},
		{"SELECT status AS id, count(*) FROM orders GROUP BY id", "select orders[select id.p,status.o]"},
		{"SELECT status AS s, count(*) FROM orders GROUP BY s", "select orders[select status.op]"},
		{"SELECT count(*) FROM orders GROUP BY ROLLUP (status, note) HAVING min(customer_email) > 'z'", "select orders[select customer_email.p,note.p,status.p]"},
		{"SELECT DISTINCT status FROM orders", "select orders[select status.op]"},
		{"SELECT DISTINCT ON (customer_email) id FROM orders", "select orders[select customer_email.p,id.o]"},
		{"SELECT DISTINCT * FROM orders", "select orders[select *.op]"},
		{"SELECT lag(customer_email) OVER (PARTITION BY status ORDER BY id) FROM orders", "select orders[select customer_email.c,id.p,status.p]"},
		{"SELECT count(*) FILTER (WHERE note IS NULL) FROM orders", "select orders[select note.p]"},
		{"SELECT sum(amount) OVER w FROM orders WINDOW w AS (PARTITION BY note)", "select orders[select amount.c,note.p]"},
		{"SELECT CASE WHEN $1 THEN status ELSE customer_email END FROM orders", "select orders[select customer_email.c,status.c]"},
		{"SELECT ARRAY[note], ROW(status), coalesce(nullif(note, ''), '-'), greatest(id, 1) FROM orders", "select orders[select id.c,note.c,status.c]"},
		{"SELECT id FROM orders WHERE id BETWEEN 1 AND 5 AND status IN ('a', 'b') AND note IS NOT NULL AND NOT (id = 2)", "select orders[select id.op,note.p,status.p]"},
		{"SELECT note COLLATE \"C\", created_at AT TIME ZONE 'UTC', extract(year FROM created_at), id::text, amount::numeric(10,2), '{1}'::int[] FROM orders", "select orders[select amount.c,created_at.c,id.c,note.c]"},
		{"VALUES (1, 'a'), (2, 'b') ORDER BY column1", "select"},
		{"SELECT current_user, current_date, now(), random(), version()", "select"},
		{"SELECT xmlelement(name r, note), xmlserialize(content '<a/>' AS text) FROM orders", "select orders[select note.c]"},
		{"SELECT GROUPING(status) FROM orders GROUP BY GROUPING SETS ((status), ())", "select orders[select status.cp]"},
		{"SELECT string_agg(status, ',' ORDER BY note) FROM orders", "select orders[select note.cp,status.c]"},
		{"SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY id) FROM orders", "select orders[select id.cp]"},

		// Sub-selects, joins, common table expressions.
		{"SELECT e FROM (SELECT customer_email AS e, note FROM orders) s", "select orders[select customer_email.o,note.c]"},
		{"SELECT id FROM (SELECT * FROM orders) s WHERE s.customer_email = 'x'", "select orders[select customer_email.p,id.o,*.c]"},
		{"SELECT * FROM (SELECT * FROM orders) s", "select orders[select *.o]"},
		{"SELECT * FROM (SELECT id, upper(note) AS n FROM orders) s", "select orders[select id.o,note.c]"},
		{"SELECT b FROM (SELECT id, note FROM orders) s(a, b)", "select orders[select id.c,note.o]"},
		{"SELECT b FROM orders AS o(a, b)", "select orders[select customer_id.o]"},
		{"SELECT (SELECT email FROM customers c WHERE c.id = o.customer_id) FROM orders o", "select orders[select customer_id.p] customers[select email.c,id.p]"},
		{"SELECT id FROM orders o WHERE EXISTS (SELECT 1 FROM customers WHERE email = o.note)", "select orders[select id.o,note.p] customers[select email.p]"},
		{"SELECT id FROM orders WHERE customer_id IN (SELECT id FROM customers)", "select orders[select customer_id.p,id.o] customers[select id.p]"},
		{"SELECT id FROM orders WHERE customer_id = ANY (SELECT id FROM customers)", "select orders[select customer_id.p,id.o] customers[select id.p]"},
		{"SELECT x.email FROM orders o, LATERAL (SELECT email FROM customers c WHERE c.id = o.customer_id) x", "select orders[select customer_id.p] customers[select email.o,id.p]"},
		{"SELECT x.email FROM orders o, (SELECT email FROM customers c WHERE c.id = o.customer_id) x", `? missing FROM-clause entry for table "o"`},
		{"SELECT s.* FROM orders o, LATERAL (SELECT * FROM hr.salaries) s", "select orders[select] hr.salaries[select *.o]"},
		{"SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer_id", "select orders[select customer_id.p,id.o] customers[select id.p,name.o]"},
		{"SELECT id FROM orders a JOIN orders b USING (id)", "select orders[select id.op]"},
		{"SELECT id, note FROM orders a JOIN orders b USING (id)", "? column note is ambiguous"},
		{"SELECT a.id, b.id FROM orders a JOIN orders b USING (customer_email) WHERE a.id = 1", "select orders[select customer_email.p,id.op]"},
		{"SELECT * FROM orders NATURAL JOIN regions", "select orders[select *.o] regions[select *.o]"},
		{"SELECT name FROM customers NATURAL JOIN regions", "select customers[select name.op] regions[select name.p]"},
		{"SELECT j.name FROM (orders o JOIN regions r ON true) AS j", "select orders[select] regions[select name.o]"},
		{"SELECT o.id FROM (orders o JOIN regions r ON true) AS j", `? missing FROM-clause entry for table "o"`},
		{"SELECT u.code FROM regions a JOIN regions b USING (code) AS u", "select regions[select code.op]"},
		{"SELECT a.code FROM regions a FULL JOIN regions b USING (code)", "select regions[select code.op]"},
		{"SELECT code FROM regions a FULL JOIN regions b USING (code)", "select regions[select code.cp]"},
		{"WITH x AS (SELECT customer_email AS e FROM orders) SELECT upper(e) FROM x", "select orders[select customer_email.c]"},
		{"WITH x(a) AS (SELECT note FROM orders) SELECT a FROM x WHERE a > 'b'", "select orders[select note.op]"},
		{"WITH orders AS (SELECT name FROM regions) SELECT * FROM orders", "select regions[select name.o]"},
		{"WITH RECURSIVE t(n, e) AS (SELECT 1, note FROM orders UNION ALL SELECT n + 1, e FROM t WHERE n < 3) SELECT e FROM t", "select orders[select note.cp] f:app.run"},
		{"SELECT 'x' AS status UNION ALL SELECT customer_email FROM orders", "select orders[select customer_email.c]"},
		{"SELECT status FROM orders UNION SELECT note FROM orders ORDER BY 1", "select orders[select note.cp,status.cp]"},
		{"SELECT * FROM orders UNION ALL SELECT * FROM orders_archive", "select orders[select *.c] orders_archive[select *.c]"},
		{"SELECT a, b FROM unnest('{1}'::int[], '{x}'::text[]) AS u(a, b)", "select"},
		{"SELECT u.b FROM orders o, LATERAL unnest(ARRAY[o.id], ARRAY[o.customer_email]) AS u(a, b)", "select orders[select customer_email.cp,id.cp]"},
		{"SELECT * FROM ROWS FROM (unnest('{1}'::int[], '{2}'::int[]), generate_series(1, 2)) AS u", "select"},
		{"SELECT * FROM pg_catalog.unnest('{1}'::int[], '{2}'::int[]) u", "? function pg_catalog.unnest does not exist with 2 arguments"},
		{"SELECT unnest('{1}'::int[], '{2}'::int[])", "? function unnest does not exist with 2 arguments"},
		{"SELECT x FROM (SELECT unnest(array_agg(customer_email)) x FROM orders) s", "select orders[select customer_email.c]"},
		{"SELECT j.* FROM orders o, json_to_record(to_json(o)) AS j(customer_email text)", "select orders[select *.cp]"},
		{"SELECT key, value FROM orders o, json_each_text(to_json(o))", "select orders[select *.cp]"},
		{"SELECT i FROM generate_series(1, 3) AS g(i)", "select"},
		{"SELECT g FROM generate_series(1, 3) g, orders", "select orders[select]"},
		{"SELECT (SELECT id FROM generate_series(1, 3) g LIMIT 1) FROM orders", "select orders[select id.c]"},
		{"SELECT a.n FROM ROWS FROM (generate_series(1, 2), json_to_recordset('[]') AS (n int)) AS a(x, n)", "select"},
		{"SELECT id FROM orders TABLESAMPLE SYSTEM (10) REPEATABLE (1)", "select orders[select id.o]"},
		{"SELECT id FROM ONLY orders", "select orders[select id.o]"},
		{"SELECT id FROM orders FOR UPDATE", "select orders[select,update id.o]"},
		{"SELECT 1 FROM (SELECT id FROM orders) FOR UPDATE", "? FOR UPDATE of a sub-select is not understood; name the tables with OF"},
		{"SELECT 1 FROM (SELECT FROM orders) s FOR UPDATE", "? FOR UPDATE of a sub-select is not understood; name the tables with OF"},
		{"SELECT 1 FROM (regions r JOIN (SELECT id FROM orders) s ON true) j FOR UPDATE", "? FOR UPDATE of a sub-select is not understood; name the tables with OF"},
		{"SELECT o.id FROM orders o, regions r FOR SHARE OF o", "select orders[select,update id.o] regions[select]"},
		{"SELECT contact FROM orders_v", "select orders_v[select contact.o]"},
		{"SELECT relname FROM pg_class", "select pg_catalog.pg_class[select relname.o system]"},

		// What resolves to nothing.
		{"SELECT nope FROM orders", `? column "nope" does not exist`},
		{"SELECT id FROM nope", `? relation "nope" does not exist`},
		{"SELECT id FROM pg_temp.orders", "? pg_temp.orders is in a schema that is the server's own business"},
		{"SELECT o.to_json FROM orders o", "? o.to_json calls a function; write to_json(o)"},
		{"SELECT id FROM elsewhere.sales.orders", "? elsewhere.sales.orders is in another database"},
		{"SELECT id FROM orders o, orders_archive b", "? column id is ambiguous"},

		// What the grammar knows and nobody here does.
		{"SELECT JSON_VALUE('{}', '$.a')", "select"},
		{"SELECT JSON_VALUE(note, '$.a' PASSING id AS x RETURNING int DEFAULT amount ON EMPTY ERROR ON ERROR) FROM orders", "select orders[select amount.c,id.c,note.c]"},
		{"SELECT JSON_QUERY(note, status WITH WRAPPER KEEP QUOTES) FROM orders WHERE JSON_EXISTS(customer_email, '$')", "select orders[select customer_email.p,note.c,status.c]"},
		{"SELECT JSON_OBJECT('a': id, status VALUE amount NULL ON NULL RETURNING jsonb) FROM orders", "select orders[select amount.c,id.c,status.c]"},
		{"SELECT JSON_ARRAY(id, note FORMAT JSON), JSON_ARRAY(SELECT email FROM customers) FROM orders", "select orders[select id.c,note.c] customers[select email.c]"},
		{"SELECT JSON_ARRAYAGG(id ORDER BY amount DESC) FILTER (WHERE status = 'x') FROM orders", "select orders[select amount.cp,id.c,status.p]"},
		{"SELECT JSON_OBJECTAGG(id VALUE note) OVER (PARTITION BY status) FROM orders", "select orders[select id.c,note.c,status.p]"},
		{"SELECT JSON(note), JSON_SCALAR(id), JSON_SERIALIZE(status RETURNING bytea), amount::text IS JSON OBJECT FROM orders", "select orders[select amount.c,id.c,note.c,status.c]"},
		{"SELECT j.a, j.z FROM orders o, JSON_TABLE(o.note, '$[*]' PASSING o.id AS i COLUMNS (n FOR ORDINALITY, a int PATH '$.a' DEFAULT o.amount ON EMPTY, NESTED PATH '$.b[*]' COLUMNS (z text EXISTS))) AS j", "select orders[select amount.cp,id.cp,note.cp]"},
		{"SELECT JSON_VALUE('1', '$' RETURNING app.code)", "? type app.code is a domain, whose checks run code"},
		{"SELECT j.a FROM JSON_TABLE('1', '$' COLUMNS (a app.code PATH '$')) j", "? type app.code is a domain, whose checks run code"},
		{"SELECT JSON_OBJECT('a': app.purge_orders())", "select f:app.purge_orders"},
		{"SELECT j.b FROM JSON_TABLE('1', '$' COLUMNS (a int)) j", "? column j.b does not exist"},
		{"WITH RECURSIVE t(n, e) AS (SELECT 0, 'x'::text UNION ALL SELECT 1, o.note FROM t, orders o WHERE n < 2 AND e < 'm') SELECT count(*) FROM t", "select orders[select note.cp]"},
		{"WITH RECURSIVE a AS (SELECT code FROM regions), regions AS (SELECT note AS code FROM orders) SELECT code FROM a", "? regions is named in WITH RECURSIVE before it is written; put it first"},
		{"WITH RECURSIVE regions AS (SELECT note AS code FROM orders), a AS (SELECT code FROM regions) SELECT code FROM a", "select orders[select note.o]"},
		{"WITH RECURSIVE t AS (WITH t AS (SELECT note FROM orders) SELECT 'x'::text AS e UNION ALL SELECT note || '' FROM t) SELECT e FROM t", "? t means two things in WITH RECURSIVE"},
		{"WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n FROM t) CYCLE n SET c USING p SELECT n FROM t", "? it uses CYCLE in WITH, which is not understood"},
		{"SELECT INTERVAL(2) '1', B'1'::bit(3), 'x'::sales.orders", "? type sales.orders is the row of a relation"},
		{"INSERT INTO regions (code) SELECT note FROM orders FOR UPDATE", "insert regions[insert w:code] orders[select,update note.c]"},

		// Functions, operators and types that are not the system's.
		{"SELECT lower(status) FROM orders", "select orders[select status.c] f:sales.lower"},
		{"SELECT pg_catalog.lower(status) FROM orders", "select orders[select status.c]"},
		{"SELECT app.purge_orders()", "select f:app.purge_orders"},
		{"SELECT app.pure(1)", "select f:app.pure"},
		{"SELECT customer_email(o) FROM orders o", "select orders[select *.c] f:sales.customer_email"},
		{"SELECT nope(1)", "? function nope does not exist"},
		{"SELECT pg_sleep(1), nextval('s'), lo_get(1)", "select f:pg_catalog.pg_sleep f:pg_catalog.nextval f:pg_catalog.lo_get"},
		{"SELECT query_to_xml('SELECT 1', true, false, ''), table_to_xml('t', true, false, ''), database_to_xml(true, false, '')", "select f:pg_catalog.query_to_xml f:pg_catalog.table_to_xml f:pg_catalog.database_to_xml"},
		{"SELECT * FROM upper($1, $2) AS result", "select"}, // JDBC says so for {? = call upper(?)}: one of them is void
		{"SELECT ts_rewrite('a'::tsquery, 'SELECT 1')", "select f:pg_catalog.ts_rewrite"},
		{"SELECT * FROM ts_stat('SELECT 1')", "select f:pg_catalog.ts_stat"},
		{"SELECT * FROM dblink('a', 'b') AS t(s text)", "select f:public.dblink"},
		{"SELECT pg_read_file('x'), pg_ls_dir('x'), pg_notify('a', 'b'), currval('s'), pg_advisory_lock(1)", "select f:pg_catalog.pg_read_file f:pg_catalog.pg_ls_dir f:pg_catalog.pg_notify f:pg_catalog.currval f:pg_catalog.pg_advisory_lock"},
		{"SELECT pg_relation_size('orders'), inet_server_addr()", "select f:pg_catalog.pg_relation_size? f:pg_catalog.inet_server_addr"},
		{"SELECT pg_table_size(o.id), pg_catalog.pg_database_size($1) FROM orders o WHERE pg_relation_size('orders', 'fsm') > 0", "select orders[select id.c] f:pg_catalog.pg_table_size? f:pg_catalog.pg_database_size? f:pg_catalog.pg_relation_size?"},
		{"SELECT pg_is_other_temp_schema(pg_my_temp_schema())", "select"},
		{"SELECT ('orders'::regclass).pg_table_size", "select f:pg_catalog.pg_table_size"},
		{"SELECT pg_stat_get_live_tuples(c.oid), pg_stat_get_dead_tuples(c.oid), pg_stat_get_numscans(c.oid), pg_get_functiondef($1) FROM pg_class c", "select pg_catalog.pg_class[select oid.c system] f:pg_catalog.pg_stat_get_live_tuples? f:pg_catalog.pg_stat_get_dead_tuples? f:pg_catalog.pg_stat_get_numscans? f:pg_catalog.pg_get_functiondef?"},
		{"SELECT pg_table_size('orders'), ('orders'::regclass).pg_table_size", "select f:pg_catalog.pg_table_size"},
		{"SELECT pg_table_size(VARIADIC '{}')", "? function pg_table_size does not exist with 1 arguments"},
		{"SELECT 1 + 2", "select f:app.run"},
		{"SELECT 1 OPERATOR(pg_catalog.+) 2", "select"},
		{"SELECT 1 OPERATOR(app.===) 2", "select f:app.noisy"},
		{"SELECT 1 ==== 2", "? operator does not exist: ===="},
		{"SELECT 'x'::app.code", "? type app.code is a domain, whose checks run code"},
		{"SELECT app.code('x')", "? type app.code is a domain, whose checks run code"},
		{"SELECT 'sad'::mood", "select"},
		{"SELECT ''::hstore", "select f:public.hstore"},
		{"SELECT '1'::nope", `? type "nope" does not exist`},
		{"SELECT 'a'::app.grade", "select f:app.points"},
		{"SELECT id FROM app.pupils", "select app.pupils[select id.o]"},
		{"SELECT id FROM app.pupils WHERE grade > 1", "select app.pupils[select grade.p,id.o] f:app.points"},
		{"SELECT g.x + 1 FROM (SELECT grade AS x FROM app.pupils) g", "select app.pupils[select grade.c] f:app.run f:app.points"},
		{"SELECT p FROM app.pupils p", "select app.pupils[select *.c] f:app.points"},
		{"SELECT app.best()::int4", "select f:app.points f:app.best"},
		{"INSERT INTO app.pupils (grade) VALUES (1)", "insert app.pupils[insert w:grade] f:app.points"},
		{"INSERT INTO app.pupils (id) VALUES (1)", "insert app.pupils[insert w:id]"},
		{"UPDATE app.pupils SET grade = 1 WHERE id = 1", "update app.pupils[update id.p w:grade tr:id] f:app.points"},
		{"SELECT x.a FROM json_to_record('{}') AS x(a app.code)", "? type app.code is a domain, whose checks run code"},

		// Changes.
		{"INSERT INTO audit.log (actor, action) VALUES ('a', lower('B'))", "insert audit.log[insert w:action,actor] f:sales.lower"},
		{"INSERT INTO audit.log VALUES (1, now())", "insert audit.log[insert w:at,id]"},
		{"INSERT INTO audit.log DEFAULT VALUES", "insert audit.log[insert]"},
		{"INSERT INTO audit.log(id, at, actor, action) OVERRIDING SYSTEM VALUE VALUES (9, '2001-01-01', 'ceo', 'x')", "insert audit.log[insert w:action,actor,at,id]"},
		{"INSERT INTO regions SELECT email, name FROM customers", "insert regions[insert w:code,name] customers[select email.c,name.c]"},
		{"INSERT INTO regions SELECT * FROM regions", "insert regions[insert,select *.c w:code,name]"},
		{"INSERT INTO audit.log(actor) VALUES ('a') RETURNING *", "insert audit.log[insert *.o w:actor tr:*]"},
		{"INSERT INTO audit.log(actor) VALUES ('a') RETURNING id, upper(actor)", "insert audit.log[insert actor.c,id.o w:actor tr:actor,id]"},
		{"INSERT INTO audit.log AS l (id, actor) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET actor = 'y' || excluded.actor || l.action WHERE l.at < now()", "insert audit.log[insert,update action.c,at.p,id.p w:actor,id tr:action,at,id]"},
		{"INSERT INTO audit.log(id) VALUES (1) ON CONFLICT DO NOTHING", "insert audit.log[insert w:id]"},
		{"UPDATE orders SET status = 'paid'", "update orders[update w:status nowhere]"},
		{"UPDATE orders SET status = 'paid' WHERE true", "update orders[update w:status nowhere]"},
		{"UPDATE orders SET status = 'paid' WHERE EXISTS (SELECT 1 FROM regions r WHERE r.code = orders.note)", "update orders[update note.p w:status tr:note] regions[select code.p]"},
		{"UPDATE orders SET status = note, amount = amount WHERE id = 1", "update orders[update amount.c,id.p,note.c w:amount,status tr:amount,id,note]"},
		{"UPDATE orders o SET status = s.emp FROM hr.salaries s WHERE o.id = 1", "update orders[update id.p w:status tr:id] hr.salaries[select emp.c]"},
		{"UPDATE orders SET (status, note) = (SELECT emp, emp FROM hr.salaries) WHERE id = 1 RETURNING customer_email", "update orders[update customer_email.o,id.p w:note,status tr:customer_email,id] hr.salaries[select emp.c]"},
		{"DELETE FROM orders WHERE id = $1", "delete orders[delete id.p tr:id]"},
		{"DELETE FROM orders USING regions r WHERE r.code = orders.note RETURNING *", "delete orders[delete note.p,*.o tr:*,note] regions[select code.p,*.o]"},
		{"DELETE FROM orders WHERE CURRENT OF c", "? WHERE CURRENT OF is not understood"},
		{"SELECT x.d FROM orders o, XMLTABLE('/e' PASSING (o.note::xml) COLUMNS d text PATH o.status DEFAULT o.amount) x", "select orders[select amount.cp,note.cp,status.cp]"},
		{"MERGE INTO orders o USING regions r ON true WHEN MATCHED THEN DELETE", "update orders[delete nowhere] regions[select]"},
		{"MERGE INTO orders o USING regions r ON true WHEN MATCHED AND o.id = 1 THEN DELETE", "update orders[delete id.p tr:id] regions[select]"},
		{"MERGE INTO orders o USING regions r ON o.note = r.code WHEN NOT MATCHED BY SOURCE THEN DELETE", "update orders[delete note.p tr:note nowhere] regions[select code.p]"},
		{"MERGE INTO orders o USING regions r ON o.note = r.code WHEN NOT MATCHED BY SOURCE AND o.id < 5 THEN DELETE", "update orders[delete id.p,note.p tr:id,note] regions[select code.p]"},
		{"MERGE INTO orders o USING regions r ON o.note = r.code WHEN MATCHED AND o.id > 1 THEN UPDATE SET status = r.name WHEN NOT MATCHED THEN INSERT (id, note) VALUES (1, code) WHEN MATCHED THEN DELETE", "update orders[delete,insert,update id.p,note.p w:id,note,status tr:id,note] regions[select code.cp,name.c]"},
		{"MERGE INTO orders o USING regions r ON o.note = r.code WHEN MATCHED THEN DELETE RETURNING *", "update orders[delete note.p,*.o tr:*,note] regions[select code.p,*.o]"},
		{"MERGE INTO orders o USING regions r ON o.note = r.code WHEN MATCHED THEN DELETE RETURNING merge_action(), customer_email, upper(name)", "update orders[delete customer_email.o,note.p tr:customer_email,note] regions[select code.p,name.c]"},
		{"WITH m AS (MERGE INTO orders o USING regions r ON o.note = r.code WHEN MATCHED THEN DELETE RETURNING o.id, customer_email) SELECT id FROM m", "select orders[delete customer_email.c,id.o,note.p tr:customer_email,id,note] regions[select code.p]"},
		{"UPDATE orders SET status = 'x' WHERE id = 1 RETURNING old.status", "? missing FROM-clause entry for table \"old\""},
		{"WITH d AS (DELETE FROM orders_archive RETURNING id) SELECT count(*) FROM d", "select orders_archive[delete id.c tr:id nowhere]"},
		{"WITH x AS (INSERT INTO audit.log(actor) VALUES ('a') RETURNING *) SELECT * FROM x", "select audit.log[insert *.o w:actor tr:*]"},
		{"TRUNCATE orders, regions", "truncate orders[truncate] regions[truncate]"},
		{"TRUNCATE orders CASCADE", "? TRUNCATE CASCADE empties tables that it does not name"},

		// COPY, EXPLAIN, PREPARE, cursors.
		{"COPY orders TO STDOUT", "select orders[select *.o]"},
		{"COPY orders (id, note) TO STDOUT WITH (FORMAT csv, HEADER)", "select orders[select id.o,note.o]"},
		{"COPY (SELECT note FROM orders) TO STDOUT", "select orders[select note.o]"},
		{"COPY audit.log(actor, action, detail) FROM STDIN", "insert audit.log[insert w:action,actor,detail]"},
		{"COPY audit.log FROM STDIN WHERE actor <> 'x'", "insert audit.log[insert w:action,actor,at,detail,id]"},
		{"COPY audit.log (actor) FROM STDIN (FORMAT csv, ENCODING 'LATIN1', DEFAULT 'x', ON_ERROR ignore)", "insert audit.log[insert w:actor]"},
		{"COPY audit.log (actor) FROM STDIN (FREEZE)", "? option freeze of COPY is not understood"},
		{"COPY audit.log FROM '/etc/passwd'", "OTHER COPY with a file"},
		{"COPY (SELECT 1) TO PROGRAM 'id'", "OTHER COPY with a program"},
		{"COPY (DELETE FROM orders RETURNING id) TO STDOUT", "? COPY of DELETE is not understood; run it without COPY"},
		{"COPY orders TO STDOUT WITH (ENCODING 'latin1')", "select orders[select *.o]"},
		{"EXPLAIN SELECT id FROM orders", "select explain orders[select id.o]"},
		{"EXPLAIN (ANALYZE off, VERBOSE) SELECT id FROM orders", "select explain orders[select id.o]"},
		{"EXPLAIN (ANALYZE, COSTS off) DELETE FROM orders_archive", "OTHER EXPLAIN ANALYZE"},
		{"EXPLAIN ANALYZE SELECT 1", "OTHER EXPLAIN ANALYZE"},
		{"EXPLAIN (ANALYZE 'nonsense') SELECT 1", "OTHER EXPLAIN ANALYZE"},
		{"EXPLAIN (BUFFERS) SELECT 1", "? option BUFFERS of EXPLAIN is not understood"},
		{"PREPARE q (int) AS SELECT note FROM orders WHERE id = $1", "prepare @q orders[select id.p,note.o]"},
		{"PREPARE q AS DELETE FROM orders", "prepare @q orders[delete nowhere]"},
		{"EXECUTE q (1, app.purge_orders())", "execute @q f:app.purge_orders"},
		{"DEALLOCATE q", "deallocate @q"},
		{"DEALLOCATE ALL", "deallocate"},
		{"DECLARE c CURSOR FOR SELECT phone FROM customers", "declare @c customers[select phone.o]"},
		{"FETCH 5 FROM c", "fetch @c"},
		{"MOVE ALL c", "fetch @c"},
		{"CLOSE c", "close @c"},

		// Settings and transactions.
		{"SET extra_float_digits = 3", "set extra_float_digits=3"},
		{"SET Search_Path TO hr, 'x'", "set search_path=hr, x"},
		{"SET LOCAL ROLE dba", "set role=dba"},
		{"SET SESSION AUTHORIZATION dba", "set session_authorization=dba"},
		{"SET TIME ZONE 'UTC'", "set timezone=UTC"},
		{"SET NAMES 'SJIS'", "set client_encoding=SJIS"},
		{"SET x TO DEFAULT", "set x="},
		{"RESET ALL", "set all="},
		{"RESET role", "set role="},
		{"SHOW search_path", "show search_path="},
		{"DISCARD ALL", "set all="},
		{"DISCARD PLANS", "set"},
		{"DISCARD TEMPORARY", "set"},
		{`SET search_path TO "$user", 'sales', public; SELECT id FROM orders`, "set search_path=$user, sales, public; select orders[select id.o]"},
		{`SET search_path TO "$user", 'sales, public'; SELECT id FROM orders`, "? a setting before it changes what its names mean; send them one by one"},
		{"SET search_path TO hr; SELECT id FROM orders", "? a setting before it changes what its names mean; send them one by one"},
		{`SELECT set_config('search_path', '"$user",sales, "public"', false); SELECT id FROM orders`, "select set:search_path=(held); select orders[select id.o]"},
		{"SET SESSION AUTHORIZATION DEFAULT; RESET ALL; CLOSE ALL; SELECT id FROM orders", "set session_authorization=; set all=; close; select orders[select id.o]"},

		// Settings by function.
		{"SELECT set_config('TimeZone', 'UTC', false)", "select set:timezone=UTC"},
		{"SELECT current_setting('jit') AS cur, set_config('jit', 'off', false) AS new", "select get:jit set:jit=off"},
		{"SELECT set_config('application_name', $1, true)", "select set:application_name=?"},
		{"SELECT set_config('application_name', $1::text, true)", "select set:application_name=?"},
		{"SELECT set_config('application_name', '', $1)", "select set:application_name="},
		{"SELECT current_setting('app.x', true)", "select get:app.x"},
		{"SELECT set_config('bytea_output', 'hex', false) FROM pg_catalog.pg_settings WHERE name = 'bytea_output'", "select set:bytea_output=hex pg_catalog.pg_settings[select name.p system]"},
		{"SELECT set_config('bytea_output', 'hex', false) FROM pg_show_all_settings() WHERE name = 'bytea_output'", "select set:bytea_output=hex pg_catalog.pg_settings[select name.p system]"},
		{"SELECT s.a FROM pg_catalog.pg_show_all_settings() AS s (a)", "select pg_catalog.pg_settings[select name.o system]"},
		{"SELECT s.name, pg_catalog.current_setting(s.name) FROM pg_catalog.pg_settings s", "select get:any pg_catalog.pg_settings[select name.oc system]"},
		{"SELECT 1 FROM pg_settings s WHERE EXISTS (SELECT FROM orders WHERE current_setting(s.name) = status)", "select get:any pg_catalog.pg_settings[select name.p system] orders[select status.p]"},
		{"INSERT INTO audit.log (actor) VALUES (current_setting('application_name'))", "insert get:application_name audit.log[insert w:actor]"},
		{"EXPLAIN SELECT set_config('jit', 'off', false)", "select explain set:jit=off"},
		{"BEGIN READ ONLY; SELECT count(*) FROM orders; COMMIT", "transaction; select orders[select]; transaction"},
		{"SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "transaction"},
		{"SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "set default_transaction_read_only=0"},
		{"SAVEPOINT a; ROLLBACK TO a; RELEASE a; ROLLBACK AND CHAIN", "transaction; transaction; transaction; transaction"},
		{"SET CONSTRAINTS ALL DEFERRED; SET CONSTRAINTS ALL IMMEDIATE", "transaction; transaction"},
		{"SET CONSTRAINTS sales.c DEFERRED", "OTHER SET CONSTRAINTS"},
		{"PREPARE TRANSACTION 'x'", "OTHER PREPARE TRANSACTION"},
		{"LISTEN a; NOTIFY a, 'b'; UNLISTEN *", "listen; listen; listen"},

		// Without a model.
		{"DO $x$ BEGIN END $x$", "OTHER DO"},
		{"CALL app.close_month()", "OTHER CALL"},
		{"VACUUM orders", "OTHER VACUUM"},
		{"ANALYZE orders", "OTHER ANALYZE"},
		{"LOCK TABLE orders", "OTHER LOCK"},
		{"GRANT SELECT ON orders TO x", "OTHER GRANT"},
		{"REVOKE SELECT ON orders FROM x", "OTHER REVOKE"},
		{"ALTER ROLE CURRENT_USER SET search_path = hr", "OTHER ALTER ROLE"},
		{"ALTER TABLE orders OWNER TO x", "OTHER ALTER TABLE"},
		{"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "OTHER CREATE FUNCTION"},
		{"CREATE TRIGGER t AFTER INSERT ON orders EXECUTE FUNCTION f()", "OTHER CREATE TRIGGER"},
		{"CREATE EXTENSION dblink", "OTHER CREATE EXTENSION"},
		{"DROP FUNCTION f()", "OTHER DROP FUNCTION"},
		{"LOAD 'x'", "OTHER LOAD"},

		// Definitions.
		{"CREATE TABLE t (id bigserial PRIMARY KEY, a text NOT NULL DEFAULT now()::text, CHECK (length(a) < 5))", "define CREATE TABLE sales"},
		{"CREATE TABLE hr.t (id int REFERENCES sales.orders (id), b app.code)", "? type app.code is a domain, whose checks run code"},
		{"CREATE TABLE hr.t (id int REFERENCES sales.orders (id))", "define CREATE TABLE hr,sales"},
		{"CREATE TABLE t (a int DEFAULT app.purge_orders())", "define CREATE TABLE sales f:app.purge_orders"},
		{"CREATE TEMP TABLE orders (id int)", "? temporary relations are not allowed: they would hide others of the same name"},
		{"CREATE TABLE t AS SELECT email FROM customers", "define CREATE TABLE AS sales customers[select email.o]"},
		{"SELECT email INTO t FROM customers", "define SELECT INTO sales customers[select email.o]"},
		{"CREATE VIEW hr.v AS SELECT note FROM orders", "define CREATE VIEW hr orders[select note.o]"},
		{"CREATE MATERIALIZED VIEW v AS SELECT note FROM orders", "define CREATE MATERIALIZED VIEW sales orders[select note.o]"},
		{"ALTER TABLE orders ADD COLUMN x int, DROP COLUMN note", "define ALTER TABLE sales"},
		{"ALTER TABLE hr.salaries ALTER COLUMN salary TYPE text USING app.noisy(emp)", "define ALTER TABLE hr f:app.noisy"},
		{"ALTER TABLE orders RENAME TO x", "define ALTER TABLE sales"},
		{"ALTER TABLE orders SET SCHEMA hr", "define ALTER TABLE hr,sales"},
		{"CREATE INDEX CONCURRENTLY i ON orders (lower(status)) WHERE id > 1", "define CREATE INDEX sales f:sales.lower"},
		{"DROP TABLE orders", "define DROP TABLE sales"},
		{"DROP TABLE IF EXISTS unknown", "define DROP TABLE public,sales"},
		{"DROP TABLE hr.salaries, orders", "define DROP TABLE hr,sales"},
		{"DROP TABLE orders CASCADE", "? CASCADE also drops what it does not name"},
		{"DROP SCHEMA hr", "define DROP SCHEMA hr"},
		{"DROP TYPE app.code", "define DROP TYPE app"},
		{"CREATE SCHEMA x", "define CREATE SCHEMA x"},
		{"CREATE SEQUENCE s START 5; ALTER SEQUENCE s RESTART", "define CREATE SEQUENCE sales; define ALTER SEQUENCE public,sales"},
		{"CREATE TYPE m AS ENUM ('a', 'b'); ALTER TYPE sales.mood ADD VALUE 'c'", "define CREATE TYPE sales; define ALTER TYPE sales"},
		{"COMMENT ON COLUMN hr.salaries.emp IS 'x'", "define COMMENT ON COLUMN hr"},
		{"REFRESH MATERIALIZED VIEW contacts", "define REFRESH MATERIALIZED VIEW sales"},
		{"CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF sales.orders FOR VALUES FROM (1) TO (2)", "define CREATE TABLE sales; define CREATE TABLE sales"},
		{"CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF orders FOR VALUES FROM (1) TO (2)", "? what is defined before it may change what its names mean; send them one by one"},
		{"DROP TABLE sales.regions; SELECT code FROM regions", "? what is defined before it may change what its names mean; send them one by one"},
		{"SELECT code FROM regions; DROP TABLE sales.regions", "select regions[select code.o]; define DROP TABLE sales"},
	} {
		got := brief(analyze(t, c.text).SQLFacts())
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.text, got, c.want)
		}
	}
}

// TestRowsOfAChange: servers from 18 on know the row before a change and the row after it.
func TestRowsOfAChange(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"UPDATE orders SET status = 'x' WHERE id = 1 RETURNING old.status, new.note, id", "update orders[update id.op,note.o,status.o w:status tr:id,note,status]"},
		{"DELETE FROM orders WHERE id = 1 RETURNING old.*", "delete orders[delete id.p,*.o tr:*,id]"},
		{"DELETE FROM orders WHERE id = 1 RETURNING *", "delete orders[delete id.p,*.o tr:*,id]"},
		{"DELETE FROM orders WHERE id = 1 RETURNING to_jsonb(old)", "delete orders[delete id.p,*.c tr:*,id]"},
		{"DELETE FROM orders old USING regions new WHERE old.note = new.code RETURNING old.id, new.name", "delete orders[delete id.o,note.p tr:id,note] regions[select code.p,name.o]"},
		{"DELETE FROM orders WHERE old.id = 1", "? missing FROM-clause entry for table \"old\""},
		{"UPDATE orders SET status = old.status WHERE id = 1", "? missing FROM-clause entry for table \"old\""},
	} {
		if got := brief(analyzeOn(t, 180000, c.text).SQLFacts()); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.text, got, c.want)
		}
	}
}

// TestUndefined: the place is the name's in the text, and the tables are those that were named
// before.
func TestUndefined(t *testing.T) {
	kinds := map[postern.Undefined]string{
		postern.UndefinedColumn: "column", postern.UndefinedRelation: "relation", postern.UndefinedFunction: "function", postern.UndefinedType: "type",
	}
	for text, want := range map[string]string{
		"SELECT nope FROM orders":                                                "column nope 8 orders[select]",
		"SELECT 'ü', o.nope FROM orders o, regions":                              "column nope 13 orders[select] regions[select]",
		"SELECT id FROM orders WHERE sales.orders.nope = 1":                      "column nope 29 orders[select id.oc]",
		"SELECT 1; SELECT code FROM regions WHERE nope":                          "column nope 42 regions[select code.oc]",
		"SELECT nope FROM (SELECT id FROM orders) x":                             "column nope 8 orders[select id.c]",
		"SELECT (SELECT nope FROM regions) FROM hr.salaries":                     "column nope 16 hr.salaries[select] regions[select]",
		"INSERT INTO audit.log (nope) VALUES (1)":                                "column nope 24 audit.log[insert]",
		"INSERT INTO audit.log (id) VALUES (1) ON CONFLICT (nope) DO NOTHING":    "column nope 0 audit.log[insert w:id]",
		"UPDATE orders SET nope = 1 WHERE id = 1":                                "column nope 19 orders[update]",
		"COPY orders (id, nope) TO STDOUT":                                       "column nope 0 orders[select]",
		"COPY orders (id, nope) FROM STDIN":                                      "column nope 0 orders[insert w:id]",
		"EXPLAIN SELECT nope FROM orders":                                        "column nope 16 orders[select]",
		"MERGE INTO orders o USING regions r ON r.nope WHEN MATCHED THEN DELETE": "column nope 40 orders[] regions[select]",
		"SELECT ctid FROM orders o JOIN regions r ON true":                       "", // a join has none
		"SELECT o.lower FROM orders o":                                           "", // a call
		"SELECT nope FROM json_to_record('{}')":                                  "",
		"SELECT id, nope FROM orders o, orders_archive b":                        "", // ambiguous before that
		"CREATE INDEX ON orders (nope)":                                          "",
		"CREATE VIEW v AS SELECT nope FROM orders":                               "",

		"SELECT id FROM nope":                                              "relation nope 16",
		"SELECT id FROM orders, hr.nope":                                   "relation nope 24 orders[select]",
		"SELECT id FROM nowhere.orders":                                    "relation orders 16",
		"INSERT INTO nope VALUES (1)":                                      "relation nope 13",
		"UPDATE nope SET id = 1":                                           "relation nope 8",
		"MERGE INTO nope USING regions r ON true WHEN MATCHED THEN DELETE": "relation nope 12",
		"COPY nope TO STDOUT":                                              "relation nope 6",
		"CREATE VIEW v AS SELECT id FROM nope":                             "relation nope 33",
		"SELECT id FROM orders o WHERE sales.o.nope = 1":                   "relation  31 orders[select id.oc]",
		"SELECT x.id FROM orders o":                                        "relation  8 orders[select]",
		"SELECT x.* FROM orders o":                                         "relation  8 orders[select]",
		"SELECT id FROM pg_temp.orders":                                    "",
		"SELECT id FROM elsewhere.sales.orders":                            "",
		"CREATE TABLE sales.n (id int); SELECT id FROM n":                  "", // that one

		"SELECT nope(1)":                            "function nope 8",
		"SELECT sales.nope(1, 2)":                   "function nope 8",
		"SELECT 1 ==== 2":                           "function ==== 10",
		"SELECT lower('x', 'y', 'z')":               "", // there is one
		"SELECT set_config(VARIADIC ARRAY['role'])": "",
		"SELECT mood('glad')":                       "", // a cast
		"SELECT customer_email(o) FROM orders o":    "", // a column
		"SELECT '1'::nope":                          "type nope 13",
		"SELECT CAST('1' AS sales.nope)":            "type nope 20",
		"SELECT 'x'::sales.orders":                  "", // a row
		"SET search_path = hr; SELECT id FROM nope": "",
	} {
		got := ""
		if u := analyze(t, text).SQLFacts().Undefined; u != nil {
			parts := []string{kinds[u.Kind], u.Name, strconv.Itoa(u.Position)}
			for _, tb := range u.Tables {
				parts = append(parts, table(tb))
			}
			got = strings.Join(parts, " ")
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", text, got, want)
		}
	}
}
