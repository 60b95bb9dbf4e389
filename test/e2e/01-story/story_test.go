package story

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// TestPsql is what an analyst sees in the stock psql.
func TestPsql(t *testing.T) {
	h := house.Start(t)
	// "no leaks" looks at everything that the other parts have shown.
	var seen strings.Builder
	psql := func(t *testing.T, task, script string, args ...string) house.Result {
		t.Helper()
		r := h.Psql(t, "alice", task, script, args...)
		seen.WriteString(r.All())
		return r
	}
	t.Run("emails and cards are masked", func(t *testing.T) {
		r := psql(t, "sales-report", "SELECT id, email, card FROM customers WHERE id = 900001;")
		if r.Code != 0 || strings.TrimSpace(r.Out) != "900001|***|************2222" {
			t.Errorf("%+v", r)
		}
		r = psql(t, "sales-report", "SELECT * FROM sales.customers WHERE id = 900001; TABLE orders; SELECT c FROM customers c WHERE id = 900001;")
		if r.Code != 0 || strings.Count(r.Out, "\n") != 2+house.Orders+1 {
			t.Errorf("code %d, %d lines, %s", r.Code, strings.Count(r.Out, "\n"), r.Err)
		}
	})
	t.Run("a mask cannot be got around", func(t *testing.T) {
		for _, q := range []string{
			"SELECT upper(email) FROM customers WHERE id = 900001",
			"SELECT count(*) FROM customers WHERE email = '" + house.CanaryEmail + "'",
			"SELECT id FROM customers WHERE email LIKE 'canary@%'",
			"SELECT string_agg(email, ',') FROM customers",
			"SELECT row_to_json(c) FROM customers c WHERE id = 900001",
			"SELECT email FROM customers UNION ALL SELECT customer_email FROM orders",
			"WITH x AS (SELECT * FROM customers) SELECT * FROM x WHERE id = 900001",
			"SELECT o.customer_email, c.email FROM orders o JOIN customers c ON c.email = o.customer_email WHERE c.id = 900001",
			"SELECT email::xml FROM customers",
			"SELECT card::int8 FROM customers WHERE id = 900001",
		} {
			r := psql(t, "sales-report", q+";")
			if leaks := house.Leaks(strings.ReplaceAll(r.All(), q, "")); len(leaks) > 0 {
				t.Errorf("%s shows %v:\n%s", q, leaks, r.All())
			}
			if strings.Contains(q, "email = '") || strings.Contains(q, "LIKE") {
				if out := strings.TrimSpace(r.Out); out != "0" && out != "" {
					t.Errorf("%s tells that the value is there: %s", q, r.All())
				}
			}
		}
	})
	t.Run("what is not permitted is refused, and the session goes on", func(t *testing.T) {
		r := psql(t, "sales-report", `
			SELECT 'one', count(*) FROM regions;
			DROP TABLE orders;
			UPDATE sales.orders SET amount = 0;
			SELECT * FROM hr.salaries;
			SELECT note FROM orders;
			SELECT 'two', count(*) FROM regions;`)
		house.Has(t, r.Out, "one|6", "two|6")
		house.Has(t, r.Err,
			`ERROR:  42501: postern: task "sales-report" does not allow DROP TABLE`,
			`ERROR:  42501: postern: task "sales-report" does not allow UPDATE on sales.orders`,
			`ERROR:  42501: postern: task "sales-report" does not allow SELECT on hr.salaries`,
			`DETAIL:  rule sales-report/permit: allowed: select on sales.orders, sales.customers, sales.regions`,
			`HINT:  ask for a task that may: postern tasks`, `HINT:  your task "schema-change" may: postern connect schema-change.warehouse`)
		if n := strings.Count(r.Err, "ERROR:  42501"); n != 4 || r.Code != 0 {
			t.Errorf("%d refusals, code %d:\n%s", n, r.Code, r.Err)
		}
		if r := psql(t, "sales-report", "DROP TABLE orders;", "-v", "ON_ERROR_STOP=1"); r.Code != 3 {
			t.Errorf("with ON_ERROR_STOP psql ended with %d:\n%s", r.Code, r.All())
		}
		if got := h.Target(t, "SELECT count(*) FROM sales.orders"); got[0][0] != "401" {
			t.Errorf("orders at the target: %v", got)
		}
	})
	t.Run("describing works", func(t *testing.T) {
		r := psql(t, "sales-report", "\\d\n\\dt\n\\d customers\n\\dn\n\\d+ sales.orders\n\\conninfo\n\\df lower\n\\l\n\\dT\n\\di\n\\dt+\n\\di+\n\\dv+\n\\l+\n\\dconfig\n\\dconfig *zone*\n")
		if strings.Contains(r.Err, "ERROR") {
			t.Errorf("psql's own questions are refused:\n%s", r.Err)
		}
		house.Has(t, r.Out, "sales|customers|table", "email|text|", "orders_customer", "TimeZone|", `search_path|"sales"`)
	})
	t.Run("no leaks", func(t *testing.T) {
		text := strings.ReplaceAll(seen.String(), "'"+house.CanaryEmail+"'", "")
		if leaks := house.Leaks(text); len(leaks) > 0 {
			t.Errorf("%v reached the client", leaks)
		}
		if leaks := house.Leaks(h.Log()); len(leaks) > 0 {
			t.Errorf("%v reached the log", leaks)
		}
		if strings.Contains(text, "warehouse_app") && strings.Contains(h.Log(), "SCRAM") {
			t.Error("the login of the target shows")
		}
	})
	t.Run("logs hold no secret", func(t *testing.T) {
		for what, secret := range map[string]string{"alice's data token": h.DataToken(t, "alice"), "ada's API token": h.APIToken(t, "ada")} {
			if strings.Contains(h.Log(), secret) {
				t.Errorf("%s is in the log", what)
			}
		}
	})
}
