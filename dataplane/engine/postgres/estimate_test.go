package postgres

import (
	"strings"
	"testing"
)

func TestPlanRows(t *testing.T) {
	for _, c := range []struct {
		plan string
		want int64
	}{
		{`[{"Plan": {"Node Type": "Seq Scan", "Plan Rows": 12}}]`, 12},
		{`[{"Plan": {"Node Type": "Limit", "Plan Rows": 5, "Plans": [{"Node Type": "Seq Scan", "Plan Rows": 400, "Parent Relationship": "Outer"}]}}]`, 5},
		{`[{"Plan": {"Node Type": "ModifyTable", "Plan Rows": 0, "Plans": [{"Node Type": "CTE Scan", "Plan Rows": 9, "Parent Relationship": "InitPlan"}, {"Node Type": "Seq Scan", "Plan Rows": 400, "Parent Relationship": "Outer"}]}}]`, 400},
		{`[{"Plan": {"Node Type": "ModifyTable", "Plan Rows": 7, "Plans": [{"Node Type": "A", "Plan Rows": 4, "Parent Relationship": "Member"}, {"Node Type": "B", "Plan Rows": 5, "Parent Relationship": "Member"}]}}]`, 9},
		{`[{"Plan": {"Node Type": "Seq Scan", "Plan Rows": -1}}]`, -1},
		{`[{"Plan": {"Node Type": "Seq Scan", "Plan Rows": 1e300}}]`, -1},
		{`[]`, -1},
		{`[{}]`, -1},
		{`Seq Scan`, -1},
	} {
		got, err := planRows([]byte(c.plan))
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("%s: %d, %v; want %d", c.plan, got, err, c.want)
		}
	}
}

// What people have not allowed yet is planned, and never run.
func TestEstimateRunsNothing(t *testing.T) {
	h := newHouse(t)
	h.connect(t, "")
	c := &conn{e: h.engine, s: h.door.Last()}
	shared.pg.SQL(t, "insert into sales.orders values (901) on conflict do nothing")
	for text, works := range map[string]bool{
		"select id from sales.orders":                                                        true,
		"delete from sales.orders where id = 901":                                            true,
		"delete from sales.orders where id = $1":                                             true,
		"select id from sales.orders; delete from sales.orders where id = 901":               false,
		"select id from sales.orders where id = $1; delete from sales.orders where id = 901": false,
		"delete from sales.orders where id = 901; select id from sales.orders where id = $1": false,
		"select id from sales.orders; delete from sales.orders where id = 901; --":           false,
	} {
		if _, err := c.estimate(testContext(t), text); (err == nil) != works {
			t.Errorf("%s: %v", text, err)
		}
	}
	if n := shared.pg.SQL(t, "select count(*) from sales.orders where id = 901")[0][0]; n != "1" {
		t.Error("a statement that was but to be estimated has run")
	}
}

func TestParameters(t *testing.T) {
	for text, want := range map[string]int{
		"SELECT 1": 0, "SELECT $1, $3": 3, "SELECT '$7', \"$8\"": 0, "SELECT $" + strings.Repeat("9", 40): 65535,
	} {
		if n := parameters(text); n != want {
			t.Errorf("%s has %d, want %d", text, n, want)
		}
	}
}

func FuzzPlanRows(f *testing.F) {
	f.Add([]byte(`[{"Plan": {"Node Type": "ModifyTable", "Plans": [{"Plan Rows": 3}]}}]`))
	f.Fuzz(func(t *testing.T, p []byte) {
		if n, err := planRows(p); err == nil && n < 0 {
			t.Errorf("%q has %d rows", p, n)
		}
	})
}
