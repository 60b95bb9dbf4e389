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
	t.Run("masked", func(t *testing.T) {
		r := h.Psql(t, "alice", "sales-report", "SELECT id, email, card FROM customers WHERE id = 900001;")
		if r.Code != 0 || strings.TrimSpace(r.Out) != "900001|***|************2222" {
			t.Errorf("%+v", r)
		}
	})
	t.Run("refused and goes on", func(t *testing.T) {
		r := h.Psql(t, "alice", "sales-report", `
			SELECT 'one', count(*) FROM regions;
			DROP TABLE orders;
			UPDATE sales.orders SET amount = 0;
			SELECT * FROM hr.salaries;
			SELECT 'two', count(*) FROM regions;`)
		if r.Code != 0 {
			t.Errorf("exit code %d", r.Code)
		}
		t.Log(r.All())
	})
}
