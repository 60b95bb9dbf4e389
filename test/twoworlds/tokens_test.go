package twoworlds

import (
	"strings"
	"testing"

	"github.com/posterngate/postern/test/e2e/house"
)

// tokenPolicy is a task that sees e-mail addresses as tokens of one domain.
const tokenPolicy = `
kind: Secret
metadata: {name: token-key}
spec: {data: {value: "a key of tokens, which nobody ever sees"}}
---
kind: Mask
metadata: {name: pseudonym}
spec: {method: token, domain: email, key: {secret: token-key}}
---
kind: Task
metadata: {name: pseudonyms}
spec:
  purpose: count people without knowing them
  resources: {labels: {worlds: two}}
  permit:
    - {table: sales.orders, verbs: [select], columns: [id, customer_id, customer_email, status], mask: {customer_email: pseudonym}}
    - {table: sales.customers, verbs: [select], columns: [id, name, email], mask: {email: pseudonym, name: email}}
  duration: 1h
---
kind: Binding
metadata: {name: pseudonyms}
spec: {subjects: [{group: analysts}], tasks: [pseudonyms]}
`

// TestTokens: tokens differ from world to world and are equal where values are, in every
// column of their domain; nothing else can be done with the column.
func TestTokens(t *testing.T) {
	w := Start(t, Options{Customers: 40, Orders: 90, Policy: tokenPolicy, SQL: `
		UPDATE sales.orders o SET customer_email = c.email FROM sales.customers c WHERE c.id = o.customer_id;
		UPDATE sales.customers SET email = 'nobody' || id WHERE email IS NULL OR email = '';
		UPDATE sales.orders SET customer_email = 'nobody' || customer_id WHERE customer_email IS NULL OR customer_email = '';`})
	for _, l := range []Level{Source, Result} {
		for _, c := range []struct {
			text  string
			shown bool
		}{
			{"SELECT id, customer_email FROM sales.orders ORDER BY id", true},
			{"SELECT o.customer_email AS a, c.email AS b, c.name FROM sales.orders o JOIN sales.customers c ON c.id = o.customer_id ORDER BY o.id", true},
			{"SELECT x.customer_email FROM (SELECT * FROM (SELECT id, customer_email FROM sales.orders) y) x ORDER BY x.id", true},
			{"SELECT * FROM sales.orders ORDER BY id", l == Source},
			{"SELECT customer_email FROM sales.orders ORDER BY customer_email", false},
			{"SELECT id FROM sales.orders WHERE customer_email = 'alice@example.com'", false},
			{"SELECT upper(customer_email) FROM sales.orders", false},
			{"SELECT customer_email || '' FROM sales.orders", false},
			{"SELECT max(customer_email) FROM sales.orders", false},
			{"SELECT count(*) FROM sales.orders GROUP BY customer_email", false},
			{"SELECT DISTINCT customer_email FROM sales.orders", false},
			{"SELECT customer_email FROM sales.orders UNION SELECT email FROM sales.customers", false},
			{"SELECT o FROM sales.orders o", false},
			{"SELECT to_json(o) FROM sales.orders o", false},
			{"SELECT o.* IS NULL FROM sales.orders o", false},
			{"SELECT 1 FROM sales.orders o JOIN sales.customers c ON c.email = o.customer_email", false},
			{"COPY (SELECT customer_email FROM sales.orders) TO STDOUT", false},
			{"COPY sales.orders (id, customer_email) TO STDOUT", false},
			{"SELECT 1; SELECT customer_email FROM sales.orders", false},
			{"SELECT id, row_number() OVER (ORDER BY customer_email) FROM sales.orders", false},
			{"SELECT CASE WHEN customer_email LIKE 'a%' THEN 1 END FROM sales.orders", false},
			{"SELECT (SELECT customer_email) FROM sales.orders", false},
			{"SELECT id FROM sales.orders LIMIT (SELECT length(customer_email) FROM sales.orders WHERE id = 1)", false},
		} {
			for _, format := range []int16{-1, 0, 1} {
				in := Input{Client{Task: "pseudonyms", Level: l}, []Step{Query(c.text)}}
				if format >= 0 {
					if strings.Contains(c.text, ";") {
						continue
					}
					in.Steps[0] = Extended(c.text, format)
				}
				o, err := w.Compare(t.Context(), t, in)
				if err != nil {
					t.Fatalf("%s: %v", c.text, err)
				}
				tokens := o[0].Contains("tok_")
				if d := o.Difference(); d != "" || tokens != c.shown || o[0].Only("DdNE").Contains("@example") || o[1].Only("DdNE").Contains("@other") {
					t.Errorf("%s, %s, format %d: tokens %v; %s %.300s", l.Short(), c.text, format, tokens, d, o[0].Last())
				}
				if !c.shown && len(o[0].Errors()) == 0 {
					t.Errorf("%s, %s: %.300s", l.Short(), c.text, o[0].Last())
				}
			}
		}
		// One value, one token: in both columns of the domain, and on another session.
		o, err := w.Compare(t.Context(), t, Input{Client{Task: "pseudonyms", Level: l}, []Step{Query("SELECT o.customer_email, c.email FROM sales.orders o JOIN sales.customers c ON c.id = o.customer_id ORDER BY o.id")}})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range o[0].Only("D") {
			if found := Tokens.FindAll(m.Body, -1); len(found) != 2 || string(found[0]) != string(found[1]) {
				t.Fatalf("%s: one person has two tokens: %q", l.Short(), m.Body)
			}
		}
	}
	if strings.Contains(w.House.Log(), "a key of tokens") {
		t.Error("the key is in a log")
	}
	w.House.Apply(t, "ada", "kind: Secret\nmetadata: {name: token-key}\nspec: {data: {value: short}}\n")
	house.Eventually(t, func() string { return "a key that is too short lends nothing" }, func() bool {
		p, seen, err := w.Open(t.Context(), t, Client{Task: "pseudonyms", Level: Source, Refused: true})
		if err != nil {
			return false
		}
		p.Close()
		return len(seen[0].Errors()) == 1 && len(seen[1].Errors()) == 1
	})
}
