package story

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// TestExplain: what would happen to a statement is told whole, and nothing of it is sent.
func TestExplain(t *testing.T) {
	t.Parallel()
	h := house.Start(t)
	for _, c := range []struct {
		task, statement string
		says            []string
	}{
		{"sales-report", "SELECT c.email FROM customers c JOIN orders o ON o.customer_id = c.id", []string{
			"verdict    allow", "rule       sales-report/permit", "relations  sales.customers, sales.orders\n", "columns    sales.customers.email, ", "masked     sales.customers.email by email", "sent       SELECT c.email FROM (SELECT",
		}},
		{"sales-report", "DELETE FROM sales.orders", []string{
			"verdict    deny", "because    task \"sales-report\" does not allow DELETE on sales.orders", "detail     allowed: select on sales.orders", "next       ask for a task that may", "relations  sales.orders\n",
		}},
		{"sales-report", "SELECT id FROM custmers", []string{"verdict    deny", "because    relation \"custmers\" does not exist", "next       perhaps table sales.customers is meant"}},
		{"sales-report", "DROP TABLE orders", []string{"verdict    deny", "next       your task \"schema-change\" may: postern connect schema-change.warehouse"}},
		{"sales-report", "CREATE TEMP TABLE t AS SELECT 1", []string{"verdict    deny", "could not be understood", "detail     temporary relations are not allowed"}},
		{"purge-order", "DELETE FROM sales.orders WHERE id = 7", []string{"verdict    hold", "detail     approval rule: ", "sent       DELETE FROM sales.orders WHERE id = 7"}},
	} {
		r := h.CLI(t, "alice", "explain", c.task, c.statement)
		if r.Code != 0 {
			t.Errorf("%s: %+v", c.statement, r)
		}
		for _, s := range c.says {
			if !strings.Contains(r.Out, s) {
				t.Errorf("%s: %q is missing in:\n%s", c.statement, s, r.Out)
			}
		}
	}
	if !exists(t, h, 7) {
		t.Error("what was explained was run")
	}
}
