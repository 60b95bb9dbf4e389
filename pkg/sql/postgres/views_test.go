package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/sql/postgres"
	"github.com/posterngate/postern/pkg/sql/sqltest"
)

// TestWhatLiesBeneathViews: from the text of a view, and from what it depends on where
// the text says nothing.
func TestWhatLiesBeneathViews(t *testing.T) {
	b := sqltest.New().
		Table("sales.customers", "id int", "name text", "email text", "country text").
		Table("sales.orders", "id int", "customer_id int", "amount numeric", "status text").
		Relation("sales.contacts", sql.KindView, "id int", "address text").
		Relation("sales.paid", sql.KindView, "who text", "total numeric").
		Relation("sales.top", sql.KindMaterializedView, "label text").
		Relation("sales.odd", sql.KindView, "x int").
		Relation("sales.unread", sql.KindView, "x int").
		Relation("sales.rows", sql.KindView, "c text")
	cat := b.Catalog()
	rel := func(name string) *sql.Relation { return cat.Relations[sql.Name{Schema: "sales", Name: name}] }
	rel("contacts").Definition = " SELECT customers.id, customers.email AS address FROM sales.customers WHERE (customers.country = 'DE'::text);"
	rel("paid").Definition = ` SELECT c.address AS who, sum(o.amount) AS total
   FROM (sales.contacts c JOIN sales.orders o ON ((o.customer_id = c.id))) GROUP BY c.address;`
	rel("top").Definition = " SELECT ((paid.who || ':'::text) || (paid.total)::text) AS label FROM sales.paid ORDER BY paid.total DESC LIMIT 10;"
	rel("odd").Definition = " SELECT nosuch.function(customers.id) AS x FROM sales.customers TABLESAMPLE nothing;;"
	rel("rows").Definition = " SELECT (c.*)::text AS c FROM sales.customers c;"
	for _, name := range []string{"odd", "unread"} {
		rel(name).Depends = []sql.Origin{{Relation: sql.Name{Schema: "sales", Name: "contacts"}, Column: "address"}}
	}
	postgres.ResolveViews(t.Context(), pool, cat)

	const out, computed, predicate = sql.RoleOutput, sql.RoleComputed, sql.RolePredicate
	email := "sales.customers.email"
	for _, c := range []struct {
		view, column string
		want         map[string]sql.ColumnRole
	}{
		{"contacts", "id", map[string]sql.ColumnRole{"sales.customers.id": out}},
		{"contacts", "address", map[string]sql.ColumnRole{email: out}},
		{"contacts", "", map[string]sql.ColumnRole{"sales.customers.": 0, "sales.customers.country": predicate}},
		{"paid", "who", map[string]sql.ColumnRole{"sales.contacts.address": out, email: out}},
		{"paid", "total", map[string]sql.ColumnRole{"sales.orders.amount": computed}},
		{"paid", "", map[string]sql.ColumnRole{
			"sales.contacts.": 0, "sales.orders.": 0, "sales.customers.": 0, "sales.customers.country": predicate, "sales.orders.customer_id": predicate,
			"sales.contacts.id": predicate, "sales.customers.id": predicate, "sales.contacts.address": predicate, email: predicate,
		}},
		{"top", "label", map[string]sql.ColumnRole{"sales.paid.who": computed, "sales.paid.total": computed, "sales.contacts.address": computed, email: computed, "sales.orders.amount": computed}},
		{"rows", "c", map[string]sql.ColumnRole{"sales.customers.id": computed, "sales.customers.name": computed, email: computed, "sales.customers.country": computed}},
		{"odd", "", map[string]sql.ColumnRole{"sales.contacts.address": computed | predicate, email: computed | predicate}},
		{"unread", "", map[string]sql.ColumnRole{"sales.contacts.address": computed | predicate, email: computed | predicate}},
	} {
		beneath := rel(c.view).Beneath
		if beneath == nil {
			t.Fatalf("%s: nothing beneath", c.view)
		}
		from := beneath.Always
		if c.column != "" {
			from = beneath.Columns[c.column]
		}
		got := map[string]sql.ColumnRole{}
		for _, o := range from {
			got[o.Relation.String()+"."+o.Column] = o.Role
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s.%s comes from %v, want %v", c.view, c.column, got, c.want)
		}
	}
	if slices.ContainsFunc([]string{"customers", "orders"}, func(n string) bool { return rel(n).Beneath != nil }) || strings.Contains(rel("contacts").Definition, "SELECT") {
		t.Error("tables have something beneath them, or texts were kept")
	}
}
