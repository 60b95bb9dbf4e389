package generate

import (
	"fmt"
	"strconv"
	"strings"
)

// change is a statement that changes rows, which are put back.
func (g *Generator) change(s *Statement) {
	s.Writes = true
	s.Texts = []string{"BEGIN", pick(g, []choice[func() string]{
		{4, g.insert}, {3, g.update}, {3, g.remove}, {3, g.merge}, {3, g.modifying}, {3, g.locking},
	})(), "ROLLBACK"}
}

func (g *Generator) insert() string {
	g.saw("INSERT")
	id := 900000 + g.r.IntN(1000)
	out := "INSERT INTO sales.orders (id, customer_id, amount, status) "
	if g.takes(50, "INSERT of a query") {
		s := &scope{}
		from := g.from(s, 1)
		out += fmt.Sprintf("SELECT %d + (row_number() OVER ())::int, 1, %s, left(%s, 8)%s LIMIT 3", id, g.expr(number, s, 1), g.expr(text, s, 1), from+g.where(s, 2))
	} else {
		out += fmt.Sprintf("VALUES (%d, %d, 1.5, %s), (%d, 2, DEFAULT, %s)", one(g, id, 1+g.r.IntN(5)), 1+g.r.IntN(3), g.expr(text, &scope{}, 2), id+1, g.expr(text, &scope{}, 2))
	}
	if g.takes(60, "ON CONFLICT") {
		out += one(g, " ON CONFLICT DO NOTHING", " ON CONFLICT (id) DO NOTHING", " ON CONFLICT (id) DO UPDATE SET status = excluded.status || '+' WHERE orders.amount > 1", " ON CONFLICT (id) DO UPDATE SET amount = orders.amount + 1, status = (SELECT max(email) FROM sales.customers)")
		g.masked = g.masked || strings.Contains(out, "max(email)")
	}
	return out + g.returning("orders")
}

// returning is a RETURNING clause over the unmasked columns of a target.
func (g *Generator) returning(alias string) string {
	if !g.chance(60) {
		return ""
	}
	g.saw("RETURNING")
	s := g.target(alias)
	return " RETURNING " + alias + ".id, " + g.expr(one(g, text, number, integer), s, 2)
}

// target is what a change can see of its own relation.
func (g *Generator) target(alias string) *scope {
	return &scope{entries: []entry{{alias, []column{{"id", integer, false}, {"customer_id", integer, false}, {"amount", number, false}, {"status", text, false}, {"created_at", instant, false}}}}}
}

func (g *Generator) update() string {
	g.saw("UPDATE")
	s := g.target("o")
	out := "UPDATE sales.orders AS o SET " + one(g, "status = left("+g.expr(text, s, 2)+", 9)", "amount = "+g.expr(number, s, 1)+", status = 'done'", "(status, amount) = (SELECT left(max(email), 7), 1 FROM sales.customers)", "status = DEFAULT")
	g.masked = g.masked || strings.Contains(out, "max(email)")
	if g.takes(60, "UPDATE FROM") {
		from := &scope{}
		out += g.from(from, 0)
		s.entries = append(s.entries, from.entries...)
	}
	return out + " WHERE o.id < " + strconv.Itoa(2+g.r.IntN(30)) + " AND " + g.expr(boolean, s, 2) + g.returning("o")
}

func (g *Generator) remove() string {
	g.saw("DELETE")
	s := g.target("o")
	out := "DELETE FROM sales.orders AS o"
	if g.takes(60, "DELETE USING") {
		from := &scope{}
		out += " USING" + strings.TrimPrefix(g.from(from, 0), " FROM")
		s.entries = append(s.entries, from.entries...)
	}
	return out + " WHERE o.id > " + strconv.Itoa(g.r.IntN(20)) + " AND " + g.expr(boolean, s, 2) + g.returning("o")
}

func (g *Generator) merge() string {
	g.saw("MERGE")
	g.masked = true
	return "MERGE INTO sales.orders AS o USING (SELECT id, email, " + one(g, "name", "upper(email)", "country") + " AS label FROM sales.customers) AS c ON o.id = c.id AND " + g.expr(boolean, &scope{entries: []entry{{"c", []column{{"id", integer, false}, {"email", text, true}, {"label", text, true}}}}}, 1) +
		one(g, " WHEN MATCHED AND c.email LIKE 'a%' THEN DELETE", " WHEN MATCHED AND o.amount > 2 THEN UPDATE SET status = left(c.label, 8)", " WHEN MATCHED THEN DO NOTHING") +
		one(g, "", " WHEN NOT MATCHED THEN INSERT (id, status) VALUES (c.id + 800000, left(c.email, 5))", " WHEN NOT MATCHED AND c.id < 3 THEN INSERT (id, status) VALUES (c.id + 800000, length(c.email)::text)")
}

func (g *Generator) modifying() string {
	g.saw("data-modifying WITH")
	inner := pick(g, []choice[func() string]{
		{1, func() string {
			return "DELETE FROM sales.orders AS o WHERE o.id < 9 AND " + g.expr(boolean, g.target("o"), 2)
		}},
		{1, func() string {
			return "UPDATE sales.orders AS o SET status = " + g.expr(text, g.target("o"), 1) + " WHERE o.id < 12"
		}},
		{1, func() string {
			return "INSERT INTO sales.orders AS o (id, status) SELECT id + 700000, left(email, 6) FROM sales.customers WHERE id < 4"
		}},
	})()
	g.masked = g.masked || strings.Contains(inner, "email")
	s := &scope{entries: []entry{{"w", []column{{"id", integer, false}, {"status", text, false}}}}}
	from := g.item(s, 0)
	return "WITH w AS (" + inner + " RETURNING o.id, o.status) SELECT " + g.expr(text, s, 2) + ", " + g.expr(integer, s, 1) + " FROM w CROSS JOIN " + from + g.where(s, 1) + " ORDER BY 1, 2"
}

// locking reads with row locks, which only relations that show everything allow.
func (g *Generator) locking() string {
	g.saw("row locking")
	s := &scope{entries: []entry{{"p", []column{{"id", integer, false}, {"amount", number, false}, {"status", text, false}}}}}
	return "SELECT p.id, " + g.expr(text, s, 2) + " FROM sales.orders_pub p WHERE " + g.expr(boolean, s, 2) + " ORDER BY p.id LIMIT 5 FOR " + one(g, "UPDATE", "SHARE", "NO KEY UPDATE", "KEY SHARE") + one(g, "", " OF p", " SKIP LOCKED", " NOWAIT")
}
