package postgres_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/sql/postgres"
)

// masked is what a sales report may see: e-mails masked, some columns, some rows.
var masked = []postern.Obligation{
	{Table: &postern.TableRule{Schema: "sales", Table: "orders", Columns: []postern.ColumnRule{
		{Name: "amount"}, {Name: "customer_email", Mask: &postern.MaskRule{Name: "email", Method: postern.MaskRedact, Value: "***"}}, {Name: "id"}, {Name: "status"},
	}}},
	{Table: &postern.TableRule{Schema: "sales", Table: "regions", Columns: []postern.ColumnRule{{Name: "code"}, {Name: "name"}}, Filter: "code = 'DE' OR code = 'FR'"}},
	{MaxAffected: 5},
}

const (
	ordersRead  = `(SELECT id, CAST('***' AS text) AS customer_email, amount, status FROM sales.orders)`
	regionsRead = `(SELECT code, name FROM sales.regions WHERE code = 'DE' OR code = 'FR' OFFSET 0)`
)

// viewed is the same, with the tables behind views of their own.
func viewed() []postern.Obligation {
	var out []postern.Obligation
	for _, o := range masked {
		if o.Table != nil {
			rule := *o.Table
			rule.View = &postern.View{Schema: "postern_task", Name: rule.Schema + "." + rule.Table}
			o.Table = &rule
		}
		out = append(out, o)
	}
	return out
}

func TestRewriteToViews(t *testing.T) {
	const orders, regions = `postern_task."sales.orders"`, `postern_task."sales.regions"`
	for _, c := range []struct{ text, want string }{
		{"SELECT id, customer_email FROM orders", "SELECT id, customer_email FROM " + orders + " orders"},
		{"select * from sales.orders o where o.id=1", "SELECT * FROM " + orders + " o WHERE o.id = 1"},
		{"SELECT warehouse.sales.orders.id FROM sales.orders", "SELECT orders.id FROM " + orders + " orders"},
		{"SELECT c FROM orders AS o(a, b, c, d)", "SELECT c FROM " + orders + " o(a, c, d, status)"},
		{"SELECT name FROM regions", "SELECT name FROM " + regions + " regions"},
		{"COPY orders (status, id) TO STDOUT", "COPY (SELECT status, id FROM (SELECT id, customer_email, amount, status FROM " + orders + ") orders) TO STDOUT"},
		{"UPDATE customers SET name = 'x' FROM orders o WHERE o.id = customers.id", "UPDATE customers SET name = 'x' FROM " + orders + " o WHERE o.id = customers.id"},
		{"INSERT INTO orders (id) VALUES (1)", "INSERT INTO orders (id) VALUES (1)"},
	} {
		if got, err := analyze(t, c.text).Rewrite(viewed()); err != nil || got != c.want {
			t.Errorf("%s\n got %s (%v)\nwant %s", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"SELECT customer_email FROM orders FOR UPDATE", "SELECT id FROM ONLY orders", "UPDATE regions SET name = 'x'"} {
		if got, err := analyze(t, text).Rewrite(viewed()); !errors.Is(err, postgres.ErrCannot) {
			t.Errorf("%s became %s (%v)", text, got, err)
		}
	}
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"SELECT id, customer_email FROM orders", "SELECT id, customer_email FROM $O AS orders"},
		{"select * from sales.orders o where o.id=1", "SELECT * FROM $O AS o WHERE o.id = 1"},
		{"SELECT sales.orders.id, sales.orders.* FROM sales.orders", "SELECT orders.id, orders.* FROM $O AS orders"},
		{"SELECT warehouse.sales.orders.id FROM sales.orders", "SELECT orders.id FROM $O AS orders"},
		{"SELECT orders FROM orders", "SELECT orders FROM $O AS orders"},
		{"SELECT c FROM orders AS o(a, b, c, d)", "SELECT c FROM $O AS o(a, c, d, status)"},
		{"SELECT x.id FROM orders x JOIN orders y USING (id)", "SELECT x.id FROM $O AS x JOIN $O AS y USING (id)"},
		{"SELECT name FROM regions", "SELECT name FROM $R AS regions"},
		{"SELECT name FROM customers", "SELECT name FROM customers"},
		{"SELECT id FROM (SELECT * FROM orders WHERE customer_email LIKE 'a%') s", "SELECT id FROM (SELECT * FROM $O AS orders WHERE customer_email LIKE 'a%') s"},
		{"WITH x AS (SELECT * FROM orders) SELECT * FROM x, orders", "WITH x AS (SELECT * FROM $O AS orders) SELECT * FROM x, $O AS orders"},
		{"WITH orders AS (SELECT 1 AS n) SELECT * FROM orders", "WITH orders AS (SELECT 1 AS n) SELECT * FROM orders"},
		{"SELECT 'x' UNION ALL SELECT customer_email FROM orders", "SELECT 'x' UNION ALL SELECT customer_email FROM $O AS orders"},
		{"SELECT (SELECT max(customer_email) FROM orders)", "SELECT (SELECT max(customer_email) FROM $O AS orders)"},
		{"EXPLAIN (ANALYZE off, COSTS on, VERBOSE) SELECT id FROM orders", "EXPLAIN (VERBOSE, COSTS off, SUMMARY off) SELECT id FROM $O AS orders"},
		{"COPY orders TO STDOUT", "COPY (SELECT * FROM $O AS orders) TO STDOUT"},
		{"COPY orders (status, id) TO STDOUT (FORMAT csv)", "COPY (SELECT status, id FROM $O AS orders) TO STDOUT (FORMAT csv)"},
		{"PREPARE q AS SELECT id FROM orders WHERE id = $1", "PREPARE q AS SELECT id FROM $O AS orders WHERE id = $1"},
		{"DECLARE c CURSOR FOR SELECT id FROM orders", "DECLARE c CURSOR FOR SELECT id FROM $O AS orders"},
		{"BEGIN; SELECT id FROM orders; COMMIT", "BEGIN; SELECT id FROM $O AS orders; COMMIT"},
		{"CREATE TABLE t AS SELECT id FROM orders", "CREATE TABLE t AS SELECT id FROM $O AS orders"},

		// What wants more brackets than the library writes.
		{"SELECT id FROM orders WHERE (status IS DISTINCT FROM customer_email) IS TRUE", "SELECT id FROM $O AS orders WHERE (status IS DISTINCT FROM customer_email) IS TRUE"},
		{"SELECT id FROM orders WHERE status BETWEEN SYMMETRIC (customer_email COLLATE \"C\") AND 'x'", "SELECT id FROM $O AS orders WHERE status BETWEEN SYMMETRIC (customer_email COLLATE \"C\") AND 'x'"},
		{"SELECT id FROM orders WHERE id BETWEEN (status > ALL (SELECT o.customer_email FROM orders o))::int AND 2", "SELECT id FROM $O AS orders WHERE id BETWEEN (status > ALL (SELECT o.customer_email FROM $O AS o))::int AND 2"},
		{"SELECT pg_catalog.overlay(customer_email, status, 1, 2) FROM orders", "SELECT pg_catalog.overlay(customer_email, status, 1, 2) FROM $O AS orders"},

		// A filter is a fence; what tells nothing passes it.
		{"SELECT name FROM regions WHERE code = 'DE' AND name::int > 0", "SELECT name FROM (SELECT code, name FROM sales.regions WHERE (code = 'DE' OR code = 'FR') AND code = 'DE' OFFSET 0) AS regions WHERE code = 'DE' AND name::int > 0"},
		{"SELECT name FROM regions r(a, b), orders o WHERE 'x' < r.b AND o.status = 'y' AND r.a = $1", `? column "name" does not exist`},
		{"SELECT r.b FROM regions r(a, b), orders o WHERE 'x' < r.b AND o.status = 'y' AND r.a = $1", "SELECT r.b FROM (SELECT code, name FROM sales.regions WHERE (code = 'DE' OR code = 'FR') AND 'x' < name AND code = $1 OFFSET 0) r(a, b), $O AS o WHERE 'x' < r.b AND o.status = 'y' AND r.a = $1"},
		{"SELECT name FROM regions WHERE code = 'DE' OR name = 'x'", "SELECT name FROM $R AS regions WHERE code = 'DE' OR name = 'x'"},
		{"SELECT (SELECT name FROM regions WHERE code = o.status AND regions.name = o.id) FROM orders o", "SELECT (SELECT name FROM (SELECT code, name FROM sales.regions WHERE (code = 'DE' OR code = 'FR') AND code = o.status AND name = o.id OFFSET 0) AS regions WHERE code = o.status AND regions.name = o.id) FROM $O AS o"},
		{"SELECT (SELECT r.name FROM regions r WHERE r.code = regions.status) FROM orders AS regions", "SELECT (SELECT r.name FROM $R AS r WHERE r.code = regions.status) FROM $O AS regions"},
		{"DELETE FROM regions WHERE name::int = 1", "DELETE FROM regions WHERE (regions.code = 'DE' OR regions.code = 'FR') AND CASE WHEN regions.code = 'DE' OR regions.code = 'FR' THEN name::int = 1 END"},
		{"DELETE FROM regions WHERE code = 'A' AND (name::int = 1 OR 1/0 = 1) AND upper(name) = 'B'", "DELETE FROM regions WHERE (regions.code = 'DE' OR regions.code = 'FR') AND code = 'A' AND CASE WHEN regions.code = 'DE' OR regions.code = 'FR' THEN (name::int = 1 OR 1/0 = 1) AND upper(name) = 'B' END"},

		// Changes keep their target.
		{"UPDATE orders SET status = 'x' WHERE id = 1", "UPDATE orders SET status = 'x' WHERE id = 1"},
		{"UPDATE regions r SET name = 'x' WHERE code = 'DE'", "UPDATE regions r SET name = 'x' WHERE (r.code = 'DE' OR r.code = 'FR') AND code = 'DE'"},
		{"DELETE FROM regions", "DELETE FROM regions WHERE regions.code = 'DE' OR regions.code = 'FR'"},
		{"DELETE FROM regions WHERE code = 'A' AND name = 'B'", "DELETE FROM regions WHERE (regions.code = 'DE' OR regions.code = 'FR') AND code = 'A' AND name = 'B'"},
		{"INSERT INTO regions VALUES ('a', 'b') ON CONFLICT (code) DO UPDATE SET name = 'c'", "INSERT INTO regions VALUES ('a', 'b') ON CONFLICT (code) DO UPDATE SET name = 'c' WHERE regions.code = 'DE' OR regions.code = 'FR'"},
		{"DELETE FROM customers USING orders o WHERE o.id = customers.id", "DELETE FROM customers USING $O AS o WHERE o.id = customers.id"},
		{"INSERT INTO regions SELECT customer_email, status FROM orders", "INSERT INTO regions SELECT customer_email, status FROM $O AS orders"},
		{"DELETE FROM regions RETURNING *", "DELETE FROM regions WHERE regions.code = 'DE' OR regions.code = 'FR' RETURNING regions.code, regions.name"},
		{"DELETE FROM regions r USING orders o WHERE o.status = r.code RETURNING *", "DELETE FROM regions r USING $O AS o WHERE (r.code = 'DE' OR r.code = 'FR') AND o.status = r.code RETURNING r.code, r.name, o.*"},
		{"INSERT INTO orders (id) VALUES (1)", "INSERT INTO orders (id) VALUES (1)"},

		// What cannot be met.
		{"UPDATE orders SET status = customer_email WHERE id = 1", "? column customer_email of sales.orders is masked"},
		{"UPDATE orders SET status = 'x' WHERE note = 'y'", "? column note of sales.orders is not permitted"},
		{"DELETE FROM orders WHERE id = 1 RETURNING *", "? column customer_email of sales.orders is masked, so RETURNING *"},
		{"DELETE FROM orders WHERE id = 1 RETURNING to_jsonb(orders)", "? the whole row of sales.orders"},
		{"DELETE FROM orders o WHERE to_jsonb(o) IS NOT NULL", "? the whole row of sales.orders"},
		{"DELETE FROM orders o WHERE id = 1 RETURNING (o).*", "? the whole row of sales.orders"},
		{"SELECT id FROM orders WHERE status = 'x' FOR UPDATE", "SELECT id FROM orders WHERE status = 'x' FOR UPDATE"},
		{"SELECT id FROM orders WHERE customer_email = 'x' FOR UPDATE", "? sales.orders is masked or filtered, so its rows cannot be locked"},
		{"SELECT * FROM orders FOR UPDATE", "? sales.orders is masked or filtered, so its rows cannot be locked"},
		{"SELECT o FROM orders o FOR UPDATE", "? sales.orders is masked or filtered, so its rows cannot be locked"},
		{"SELECT note FROM orders FOR UPDATE", "? column note of sales.orders is not permitted"},
		{"SELECT a.id FROM orders a JOIN orders b ON a.id = b.id AND b.customer_email = '' FOR UPDATE OF a", "? sales.orders is masked or filtered, so its rows cannot be locked"},
		{"SELECT id FROM orders TABLESAMPLE SYSTEM (1)", "? sales.orders is masked or filtered, so it cannot be sampled"},
		{"SELECT id FROM ONLY orders", "? sales.orders is masked or filtered, so it cannot be read with ONLY"},
		{"MERGE INTO regions r USING orders o ON o.status = r.code WHEN MATCHED THEN DELETE", "? the rows of sales.regions are filtered, so it cannot be changed with MERGE"},
		{"MERGE INTO orders o USING customers c ON o.id = c.id WHEN MATCHED THEN DELETE RETURNING *", "? column customer_email of sales.orders is masked, so RETURNING *"},
		{"MERGE INTO orders o USING customers c ON o.id = c.id WHEN MATCHED THEN DELETE RETURNING customer_email", "? column customer_email of sales.orders is masked"},
		{"MERGE INTO customers c USING orders o ON o.id = c.id WHEN MATCHED THEN DELETE RETURNING *", "MERGE INTO customers c USING $O AS o ON o.id = c.id WHEN MATCHED THEN DELETE RETURNING *"},
		{"INSERT INTO orders_archive SELECT * FROM orders", "? * over sales.orders stands for 4 of its 7 columns"},
		{"SELECT b FROM (SELECT * FROM orders) AS s(a, b)", "? * over sales.orders stands for 4 of its 7 columns"},
		{"WITH x(a, b) AS (SELECT * FROM orders) SELECT b FROM x", "? * over sales.orders stands for 4 of its 7 columns"},
		{"DO $$ BEGIN END $$", "? there is no model of DO"},
		{"SELECT nope FROM orders", "? column \"nope\""},
		{"SELECT note FROM orders", "? column note of sales.orders is not permitted"},
		{"SELECT b FROM orders AS o(a, b, c, d)", "? column customer_id of sales.orders is not permitted"},
		{"SELECT (SELECT note FROM orders LIMIT 1) FROM customers AS c(a, b, note)", "? column note of sales.orders is not permitted"},
	} {
		got, err := analyze(t, c.text).Rewrite(masked)
		if refused, ok := strings.CutPrefix(c.want, "? "); ok {
			if !errors.Is(err, postgres.ErrCannot) || !strings.Contains(err.Error(), refused) {
				t.Errorf("%s\n got %q, %v\nwant an error: %s", c.text, got, err, refused)
			}
			continue
		}
		want := strings.NewReplacer("$O", ordersRead, "$R", regionsRead).Replace(c.want)
		if err != nil || normal(t, got) != normal(t, want) {
			t.Errorf("%s\n got %s, %v\nwant %s", c.text, got, err, want)
		}
	}
}

// TestSizesAreNotTold: NULL is asked of them, whatever they are asked about.
func TestSizesAreNotTold(t *testing.T) {
	blank := append(slices.Clone(masked), postern.Obligation{Blank: "pg_table_size"}, postern.Obligation{Blank: "pg_database_size"})
	for text, want := range map[string]string{
		"SELECT pg_size_pretty(pg_table_size('orders')), pg_relation_size('orders')": "SELECT pg_size_pretty(pg_table_size(CASE WHEN false THEN 'orders'::pg_catalog.regclass END)), pg_relation_size('orders')",
		"SELECT pg_catalog.pg_database_size($1)":                                     "SELECT pg_catalog.pg_database_size(CASE WHEN false THEN $1 END)",
		"SELECT o.id FROM orders o ORDER BY pg_table_size(o.id)":                     "SELECT o.id FROM $O AS o ORDER BY pg_table_size(CASE WHEN false THEN CAST(o.id AS pg_catalog.regclass) END)",
		"SELECT 1": "SELECT 1",
	} {
		got, err := analyze(t, text).Rewrite(blank)
		if want = strings.ReplaceAll(want, "$O", ordersRead); err != nil || normal(t, got) != normal(t, want) {
			t.Errorf("%s\n got %s, %v\nwant %s", text, got, err, want)
		}
	}
}

// TestOldAndNewAreTheTarget: what the server knows of a row before and after its change is
// shown as the row is.
func TestOldAndNewAreTheTarget(t *testing.T) {
	for text, want := range map[string]string{
		"DELETE FROM regions RETURNING old.*, code":                       "DELETE FROM regions WHERE regions.code = 'DE' OR regions.code = 'FR' RETURNING old.code, old.name, code",
		"UPDATE regions SET name = 'x' WHERE code = 'DE' RETURNING *":     "UPDATE regions SET name = 'x' WHERE (regions.code = 'DE' OR regions.code = 'FR') AND code = 'DE' RETURNING regions.code, regions.name",
		"UPDATE orders SET status = 'x' WHERE id = 1 RETURNING old.*":     "? column customer_email of sales.orders is masked, so RETURNING *",
		"UPDATE orders SET status = 'x' WHERE id = 1 RETURNING new":       "? the whole row of sales.orders",
		"UPDATE orders SET status = 'x' WHERE id = 1 RETURNING (old).id":  "? the whole row of sales.orders",
		"INSERT INTO orders (id) VALUES (1) RETURNING new.customer_email": "? column customer_email of sales.orders is masked",
		"INSERT INTO orders (id) VALUES (1) RETURNING old.note":           "? column note of sales.orders is not permitted",
	} {
		got, err := analyzeOn(t, 180000, text).Rewrite(masked)
		if refused, ok := strings.CutPrefix(want, "? "); ok {
			if !errors.Is(err, postgres.ErrCannot) || !strings.Contains(err.Error(), refused) {
				t.Errorf("%s\n got %q, %v\nwant an error: %s", text, got, err, refused)
			}
			continue
		}
		if err != nil || normal(t, got) != normal(t, want) {
			t.Errorf("%s\n got %s, %v\nwant %s", text, got, err, want)
		}
	}
}

// normal is a text as the deparser writes it.
func normal(t *testing.T, text string) string {
	t.Helper()
	tree, err := pool.Parse(t.Context(), text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	out, err := pool.Deparse(t.Context(), tree)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

func TestRewriteWithoutRules(t *testing.T) {
	an := analyze(t, "select /* x */ id from sales.orders")
	for _, obs := range [][]postern.Obligation{nil, {{MaxRows: 5}}, {{Table: &postern.TableRule{Schema: "hr", Table: "salaries"}}}} {
		if got, err := an.Rewrite(obs); err != nil || got != "SELECT id FROM sales.orders" || got != an.Canonical() {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func TestRewriteRefusesBrokenRules(t *testing.T) {
	for name, rule := range map[string]postern.TableRule{
		"column":    {Columns: []postern.ColumnRule{{Name: "nope"}}},
		"statement": {Columns: []postern.ColumnRule{{Name: "id"}}, Filter: "true); DELETE FROM sales.orders; SELECT (1"},
		"union":     {Columns: []postern.ColumnRule{{Name: "id"}}, Filter: "true) UNION SELECT id FROM sales.orders WHERE (true"},
		"order":     {Columns: []postern.ColumnRule{{Name: "id"}}, Filter: "true) ORDER BY (1"},
		"syntax":    {Columns: []postern.ColumnRule{{Name: "id"}}, Filter: "("},
		"mask":      {Columns: []postern.ColumnRule{{Name: "id", Mask: &postern.MaskRule{Method: postern.MaskRedact}}}},
		"no method": {Columns: []postern.ColumnRule{{Name: "id", Mask: &postern.MaskRule{}}}},
		"token":     {Columns: []postern.ColumnRule{{Name: "status", Mask: &postern.MaskRule{Method: postern.MaskToken}}}},
	} {
		rule.Schema, rule.Table = "sales", "orders"
		if got, err := analyze(t, "SELECT id FROM orders").Rewrite([]postern.Obligation{{Table: &rule}}); err == nil {
			t.Errorf("%s: rewritten as %s", name, got)
		}
	}
}

// TestReturningAll writes out RETURNING * for a table of which some columns are not seen.
func TestReturningAll(t *testing.T) {
	rule := []postern.Obligation{{Table: &postern.TableRule{Schema: "sales", Table: "orders", Columns: []postern.ColumnRule{{Name: "id"}, {Name: "status"}}}}}
	for _, c := range []struct{ text, want string }{
		{"INSERT INTO orders (id) VALUES (1) RETURNING *", "INSERT INTO orders (id) VALUES (1) RETURNING orders.id, orders.status"},
		{"UPDATE orders o SET status = 'x' WHERE id = 1 RETURNING o.*, 1", "UPDATE orders o SET status = 'x' WHERE id = 1 RETURNING o.id, o.status, 1"},
		{"WITH d AS (DELETE FROM orders WHERE id = 1 RETURNING *) SELECT * FROM d", "WITH d AS (DELETE FROM orders WHERE id = 1 RETURNING orders.id, orders.status) SELECT * FROM d"},
		{"PREPARE q AS DELETE FROM orders WHERE id = $1 RETURNING *", "PREPARE q AS DELETE FROM orders WHERE id = $1 RETURNING orders.id, orders.status"},
		{"DELETE FROM orders WHERE id = 1 RETURNING *, note", "? column note of sales.orders is not permitted"},
		{"DELETE FROM orders WHERE id = 1 RETURNING orders", "? the whole row of sales.orders"},
		{"DELETE FROM orders WHERE id = 1 RETURNING *, row_to_json(orders)", "? the whole row of sales.orders"},
		{"WITH d(a, b) AS (DELETE FROM orders WHERE id = 1 RETURNING *) SELECT b FROM d", "? * over sales.orders stands for 2 of its"},
		{"WITH d AS (DELETE FROM orders WHERE id = 1 RETURNING *) INSERT INTO regions SELECT * FROM d", "? * over sales.orders stands for 2 of its"},
		{"WITH d AS (DELETE FROM orders WHERE id = 1 RETURNING *) SELECT note FROM d", "? column note of sales.orders is not permitted"},
	} {
		got, err := analyze(t, c.text).Rewrite(rule)
		if err != nil {
			got = "? " + strings.TrimPrefix(err.Error(), "rewrite: cannot be met: ")
		}
		if got != c.want && (err == nil || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s\n got %s\nwant %s", c.text, got, c.want)
		}
	}
}

func TestPlainAndCanonical(t *testing.T) {
	for _, c := range []struct {
		text  string
		plain bool
		want  string
	}{
		{"select 1", true, "SELECT 1"},
		{"select /* c */ 1", false, "SELECT 1"},
		{`select E'\'; drop table x; --'`, false, `SELECT '''; drop table x; --'`},
		{"SELECT $q$ ; DELETE FROM sales.orders; $q$", false, "SELECT ' ; DELETE FROM sales.orders; '"},
		{"explain select 1", false, "EXPLAIN (COSTS OFF, SUMMARY OFF) SELECT 1"},
		{"SELECT 'é'", false, "SELECT 'é'"},
	} {
		an := analyze(t, c.text)
		if an.Plain() != c.plain || !strings.EqualFold(an.Canonical(), c.want) {
			t.Errorf("%s: plain = %v, canonical %q; want %v, %q", c.text, an.Plain(), an.Canonical(), c.plain, c.want)
		}
	}
}

// TestVisibleNamesStay compares the names of result columns before and after.
func TestVisibleNamesStay(t *testing.T) {
	for _, text := range []string{
		"SELECT id, customer_email, upper(customer_email), status AS s, sales.orders.amount FROM sales.orders",
		"SELECT o, (o).status, to_jsonb(o) FROM orders o",
	} {
		an := analyze(t, text)
		out, err := an.Rewrite(masked)
		if err != nil {
			t.Fatal(err)
		}
		before, after := an.SQLFacts().Statements[0].Outputs, analyze(t, out).SQLFacts().Statements[0].Outputs
		if len(before) != len(after) {
			t.Fatalf("%s: %d columns became %d", text, len(before), len(after))
		}
		for i := range before {
			if before[i].Name != after[i].Name {
				t.Errorf("%s: column %s became %s", text, before[i].Name, after[i].Name)
			}
		}
	}
}
