package generate

import (
	"strconv"
	"strings"
)

// from is a FROM clause, whose entries are added to s.
func (g *Generator) from(s *scope, depth int) string {
	out := " FROM " + g.item(s, depth)
	for range pick(g, []choice[int]{{55, 0}, {35, 1}, {10, 2}}) {
		out = g.join(out, s, depth)
	}
	return out
}

func (g *Generator) join(left string, s *scope, depth int) string {
	how := one(g, " JOIN ", " LEFT JOIN ", " RIGHT JOIN ", " FULL JOIN ", " CROSS JOIN ", ", ", " NATURAL JOIN ", " USING ", " LATERAL ")
	sees := scope{entries: s.entries, outer: s.outer}
	switch how {
	case ", ", " CROSS JOIN ":
		g.saw("CROSS JOIN")
		if strings.Contains(left, " JOIN ") || how == ", " {
			how = " CROSS JOIN "
		}
		return left + how + g.item(s, depth)
	case " NATURAL JOIN ":
		g.saw("NATURAL JOIN")
		g.masked = true
		alias := g.name("n")
		s.entries = append(s.entries, entry{alias, []column{{"status" + alias, text, false}}})
		return left + " CROSS JOIN (SELECT coalesce(" + one(g, "customer_email", "status || customer_email") + ", status) AS status" + alias + " FROM sales.orders " + one(g, "NATURAL JOIN sales.orders_pub", "NATURAL LEFT JOIN (SELECT id, customer_email FROM sales.orders) AS y", "NATURAL JOIN (SELECT id, email AS customer_email FROM sales.customers) AS y") + ") AS " + alias
	case " USING ":
		g.saw("JOIN USING")
		alias := g.name("u")
		g.masked = true
		s.entries = append(s.entries, entry{alias, []column{{"id", integer, false}, {"email", text, true}}})
		return left + " CROSS JOIN (SELECT id, " + alias + "b.customer_email AS email FROM sales.orders " + alias + "a " + one(g, "JOIN", "LEFT JOIN") + " sales.orders " + alias + "b USING (" + one(g, "id", "id, customer_email", "id, status") + ")) AS " + alias
	case " LATERAL ":
		g.saw("LATERAL")
		alias := g.name("l")
		before := len(g.ctes)
		q, columns := g.shaped(&sees, 0)
		g.ctes = g.ctes[:before]
		s.entries = append(s.entries, entry{alias, columns})
		return left + " CROSS JOIN LATERAL (" + q + ") AS " + alias
	}
	g.saw(strings.TrimSpace(how))
	right := g.item(s, depth)
	a, b := sees.entries[len(sees.entries)-1], s.entries[len(s.entries)-1]
	if how == " FULL JOIN " { // only what can be merged or hashed
		k := one(g, text, integer)
		return left + how + right + " ON " + g.columnOrConstant(k, &scope{entries: []entry{a}}) + " = " + g.columnOrConstant(k, &scope{entries: []entry{b}})
	}
	return left + how + right + " ON " + g.expr(boolean, &scope{entries: []entry{a, b}, outer: s.outer}, 1)
}

// item is one entry of FROM.
func (g *Generator) item(s *scope, depth int) string {
	switch {
	case len(g.ctes) > 0 && g.chance(50):
		r := one(g, g.ctes...)
		alias := g.name("t")
		s.entries = append(s.entries, entry{alias, r.columns})
		return r.name + " " + alias
	case depth > 0 && g.chance(22):
		g.saw("sub-select in FROM")
		q, columns := g.shaped(s.outer, depth-1)
		alias := g.name("s")
		s.entries = append(s.entries, entry{alias, columns})
		return "(" + q + ") AS " + alias
	case g.chance(5):
		g.saw("VALUES in FROM")
		alias := g.name("v")
		s.entries = append(s.entries, entry{alias, []column{{"k", integer, false}, {"label", text, false}}})
		return "(VALUES (1, 'open'), (2, 'paid'), (3, '***')) AS " + alias + "(k, label)"
	case g.chance(6):
		g.saw("function in FROM")
		alias := g.name("f")
		s.entries = append(s.entries, entry{alias, []column{{"n", integer, false}}})
		return "generate_series(1, " + strconv.Itoa(1+g.r.IntN(4)) + ")" + " AS " + alias + "(n)"
	}
	r := one(g, relations[:]...)
	if g.chance(40) {
		r = relations[g.r.IntN(2)]
	}
	alias := g.name("t")
	if len(r.columns) == 2 && g.chance(50) { // renamed by position
		g.saw("column aliases")
		s.entries = append(s.entries, entry{alias, []column{{"a", integer, false}, {"b", integer, false}, {"c", text, true}}})
		return r.name + " AS " + alias + "(a, b, c)"
	}
	s.entries = append(s.entries, entry{alias, r.columns})
	return r.name + " " + alias
}
