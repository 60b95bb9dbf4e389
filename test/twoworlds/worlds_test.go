package twoworlds

import (
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

func TestMain(m *testing.M) { house.Main(m) }

// A harness that finds nothing proves nothing: it must see a difference where there is
// one, in every way in which a client could.
func TestDifferencesAreSeen(t *testing.T) {
	w := Start(t, Options{Customers: 50, Orders: 200, Levels: []Level{Source}, Policy: `
apiVersion: postern/v1
kind: Task
metadata: {name: everything}
spec:
  purpose: see that the worlds differ
  resources: {labels: {worlds: two}}
  permit: [{unrestricted: true}]
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: everything}
spec: {subjects: [{group: analysts}], tasks: [everything]}
`})
	for _, c := range []struct {
		task, text string
		differ     bool
	}{
		{"sales-browse", "SELECT * FROM sales.orders ORDER BY id", false},
		{"sales-browse", "SELECT note FROM sales.orders", false}, // refused in the same words
		{"sales-browse", "SELECT id FROM sales.orders WHERE customer_email LIKE 'z%'", false},
		{"everything", "SELECT id, amount, status FROM sales.orders ORDER BY id", false},
		{"everything", "SELECT customer_email FROM sales.orders WHERE id = 1", true},
		{"everything", "SELECT id FROM sales.orders WHERE customer_email LIKE 'z%'", true},
		{"everything", "SELECT id FROM sales.orders ORDER BY customer_email", true},
		{"everything", "SELECT 1/(max(length(customer_email)) - 18) FROM sales.orders", true},
		{"everything", "SELECT customer_email::int FROM sales.orders", true},
		{"everything", "SELECT app.noisy(customer_email) FROM sales.orders WHERE id = 1", true},
		{"everything", "COPY (SELECT customer_email FROM sales.orders) TO STDOUT (FORMAT binary)", true},
		{"everything", "EXPLAIN SELECT customer_email FROM sales.orders", true},
		{"everything", "DELETE FROM sales.orders WHERE customer_email LIKE 'user1%'", true},
	} {
		in := Input{Client{Task: c.task, Level: Source}, []Step{Query("BEGIN"), Query(c.text), Query("ROLLBACK")}}
		for _, format := range []int16{-1, 0, 1} {
			if format >= 0 {
				in.Steps[1] = Extended(c.text, format)
			}
			o, err := w.Compare(t.Context(), t, in)
			if err != nil {
				t.Fatalf("%s: %v", c.text, err)
			}
			if d := o.Difference(); (d != "") != c.differ {
				t.Errorf("%s for %s: %q", c.text, c.task, d)
			}
		}
	}
}

// Tokens may differ between the worlds, but not in which of them are equal.
func TestTokensAreComparedUpToABijection(t *testing.T) {
	row := func(s string) Message { return Message{'D', []byte(s)} }
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"tok_aaaaaaaaaa|tok_bbbbbbbbbb|tok_aaaaaaaaaa", "tok_cccccccccc|tok_dddddddddd|tok_cccccccccc", true},
		{"tok_aaaaaaaaaa|tok_bbbbbbbbbb|tok_aaaaaaaaaa", "tok_cccccccccc|tok_dddddddddd|tok_dddddddddd", false},
		{"tok_aaaaaaaaaa|tok_aaaaaaaaaa", "tok_cccccccccc|tok_dddddddddd", false},
		{"tok_aaaaaaaaaa|1", "tok_cccccccccc|2", false},
	} {
		o := Outcome{{row(c.a)}, {row(c.b)}}
		if d := o.Difference(); (d == "") != c.same {
			t.Errorf("%s and %s: %q", c.a, c.b, d)
		}
	}
}
