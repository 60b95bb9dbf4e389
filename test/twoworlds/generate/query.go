package generate

import (
	"strconv"
	"strings"
)

// query is a whole query, perhaps with CTEs and a set operation.
func (g *Generator) query(depth int) string {
	with := ""
	before := len(g.ctes)
	if depth > 1 && g.chance(22) {
		with = g.with(depth)
	}
	defer func() { g.ctes = g.ctes[:before] }()
	switch {
	case depth > 0 && g.chance(20):
		return with + g.setOperation(depth)
	case g.takes(3, "VALUES"):
		return with + "VALUES (1, " + g.expr(text, &scope{}, 1) + "), (2, " + g.expr(text, &scope{}, 1) + ") ORDER BY 1"
	case g.takes(2, "TABLE"):
		g.masked = true
		return with + "TABLE " + one(g, "sales.customers", "sales.orders") + " ORDER BY 1"
	}
	return with + g.simple(&scope{}, depth)
}

func (g *Generator) with(depth int) string {
	var parts []string
	recursive := ""
	for range 1 + g.r.IntN(2) {
		name := g.name("w")
		switch {
		case g.chance(25):
			g.saw("WITH RECURSIVE")
			recursive = "RECURSIVE "
			g.masked = true
			parts = append(parts, name+"(n, mail) AS (SELECT id, "+one(g, "customer_email", "upper(customer_email)", "customer_email || status")+" FROM sales.orders WHERE id < 4 UNION ALL SELECT w.n + 10, c.email || w.mail FROM "+name+" w JOIN sales.customers c ON c.id = w.n WHERE w.n < 30)")
			g.ctes = append(g.ctes, relation{name, []column{{"n", integer, false}, {"mail", text, true}}})
		default:
			g.saw("WITH")
			q, columns := g.shaped(&scope{}, depth-2)
			parts = append(parts, name+" AS "+one(g, "", "MATERIALIZED ", "NOT MATERIALIZED ")+"("+q+")")
			g.ctes = append(g.ctes, relation{name, columns})
		}
	}
	return "WITH " + recursive + strings.Join(parts, ", ") + " "
}

func (g *Generator) setOperation(depth int) string {
	g.saw("set operation")
	types := []kind{one(g, integer, text, number), text}
	side := func() string {
		s := &scope{}
		from := g.from(s, depth-1)
		list := make([]string, len(types))
		for i, k := range types {
			list[i] = g.expr(k, s, 1)
		}
		return "SELECT " + strings.Join(list, ", ") + from + g.where(s, 1)
	}
	op := g.rather("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL")
	g.saw(op)
	out := "(" + side() + ") " + op + " (" + side() + ")"
	if g.chance(70) {
		g.saw("ORDER BY position")
		out += " ORDER BY 1, 2"
	}
	return out
}

// shaped is a query of named columns, whose kinds are known.
func (g *Generator) shaped(outer *scope, depth int) (string, []column) {
	s := &scope{outer: outer}
	from := g.from(s, depth)
	var list []string
	var columns []column
	for range 1 + g.r.IntN(3) {
		k := kind(g.r.IntN(int(kinds)))
		name := g.name("c")
		before := g.masked
		g.masked = false
		list = append(list, g.expr(k, s, 2)+" AS "+name)
		columns = append(columns, column{name, k, g.masked})
		g.masked = g.masked || before
	}
	return "SELECT " + strings.Join(list, ", ") + from + g.where(s, 2) + few(g.limit(s)), columns
}

// few bounds what a part gives, for products of parts have no end.
func few(limit string) string {
	limit = strings.Replace(limit, " LIMIT ALL", " LIMIT 40", 1)
	if strings.Contains(limit, " LIMIT ") || strings.Contains(limit, " FETCH ") {
		return limit
	}
	return limit + " LIMIT 40"
}

// simple is one SELECT.
func (g *Generator) simple(outer *scope, depth int) string {
	s := &scope{outer: outer}
	from := g.from(s, depth)
	switch {
	case g.chance(28):
		return g.grouped(s, from)
	case g.chance(12):
		g.saw("*")
		g.masked = g.masked || g.shows(s)
		return "SELECT " + one(g, "*", s.entries[0].alias+".*", "*, "+g.expr(text, s, 1)) + from + g.where(s, 2) + g.limit(s)
	case g.takes(5, "whole row"):
		g.masked = g.masked || g.shows(s)
		a := s.entries[0].alias
		return "SELECT " + one(g, a, a+"::text", "to_jsonb("+a+")", "row_to_json("+a+")", "ROW("+a+".*)", "("+a+" IS NULL)") + from + g.where(s, 2) + g.limit(s)
	}
	var list []string
	for range 1 + g.r.IntN(4) {
		item := g.expr(kind(g.r.IntN(int(kinds))), s, 3)
		if g.chance(15) {
			item = g.windowed(s)
		}
		if g.chance(40) {
			item += " AS " + g.name("c")
		}
		list = append(list, item)
	}
	distinct := ""
	if g.takes(8, "DISTINCT") {
		return "SELECT DISTINCT " + strings.Join(list, ", ") + from + g.where(s, 2) + " ORDER BY 1"
	}
	if g.takes(6, "DISTINCT ON") {
		on := g.expr(text, s, 1)
		return "SELECT DISTINCT ON (" + on + ") " + strings.Join(list, ", ") + from + g.where(s, 2) + " ORDER BY " + on + ", " + g.expr(integer, s, 1)
	}
	return "SELECT " + distinct + strings.Join(list, ", ") + from + g.where(s, 3) + g.limit(s)
}

// shows reports whether * over the scope has a masked column.
func (g *Generator) shows(s *scope) bool {
	for _, e := range s.entries {
		for _, c := range e.columns {
			if c.masked {
				return true
			}
		}
	}
	return false
}

func (g *Generator) where(s *scope, depth int) string {
	if !g.chance(60) {
		return ""
	}
	g.saw("WHERE")
	return " WHERE " + g.expr(boolean, s, depth)
}

func (g *Generator) limit(s *scope) string {
	out := ""
	if g.chance(55) {
		g.saw("ORDER BY")
		out = " ORDER BY " + g.expr(kind(g.r.IntN(int(document))), s, 2) + one(g, "", " DESC", " NULLS FIRST", " USING <") + ", " + g.expr(integer, s, 1)
	}
	if g.chance(35) {
		g.saw("LIMIT")
		out += " LIMIT " + one(g, strconv.Itoa(1+g.r.IntN(20)), "(SELECT count(*) / 4 FROM sales.customers)", "ALL")
		if g.chance(40) {
			g.saw("OFFSET")
			out += " OFFSET " + strconv.Itoa(g.r.IntN(5))
		}
	} else if out != "" && g.takes(8, "WITH TIES") {
		out += " FETCH FIRST 3 ROWS WITH TIES"
	}
	return out
}

func (g *Generator) grouped(s *scope, from string) string {
	g.saw("GROUP BY")
	key, other := g.expr(text, s, 1), g.expr(one(g, text, integer), s, 1)
	by := one(g, key, key+", "+other, "ROLLUP ("+key+", "+other+")", "CUBE ("+key+", "+other+")", "GROUPING SETS (("+key+"), ("+other+"), ())", "")
	var list []string
	switch {
	case strings.Contains(by, "ROLLUP"), strings.Contains(by, "CUBE"), strings.Contains(by, "GROUPING"):
		g.saw("grouping sets")
		list = append(list, "GROUPING("+key+")", key)
	case by != "":
		list = append(list, key)
	}
	for range 1 + g.r.IntN(2) {
		list = append(list, g.aggregate(s))
	}
	out := "SELECT " + strings.Join(list, ", ") + from + g.where(s, 2)
	if by != "" {
		out += " GROUP BY " + by
	}
	if g.chance(30) {
		g.saw("HAVING")
		out += " HAVING " + g.aggregateOf(s, "count") + " > " + strconv.Itoa(g.r.IntN(3))
	}
	if by != "" {
		out += " ORDER BY 1, 2"
	}
	return out
}

func (g *Generator) aggregateOf(s *scope, name string) string {
	return name + "(" + one(g, "", "DISTINCT ") + g.expr(text, s, 1) + ")"
}

func (g *Generator) aggregate(s *scope) string {
	out := pick(g, []choice[func() string]{
		{4, func() string { return g.aggregateOf(s, one(g, "count", "min", "max")) }},
		{2, func() string { return one(g, "sum", "avg", "min", "stddev_pop") + "(" + g.expr(number, s, 2) + ")" }},
		{3, func() string {
			g.saw("aggregate ORDER BY")
			name, between := one(g, "string_agg", "array_agg", "jsonb_agg"), ""
			if name == "string_agg" {
				between = ", ','"
			}
			return name + "(" + g.expr(text, s, 1) + between + " ORDER BY " + g.expr(integer, s, 1) + ")"
		}},
		{2, func() string {
			g.saw("WITHIN GROUP")
			return one(g, "percentile_disc(0.5)", "mode()") + " WITHIN GROUP (ORDER BY " + g.expr(one(g, text, number), s, 1) + ")"
		}},
		{1, func() string { return one(g, "bool_and", "bool_or", "every") + "(" + g.expr(boolean, s, 1) + ")" }},
		{1, func() string {
			return "jsonb_object_agg(coalesce(" + g.expr(text, s, 1) + ", 'none'), " + g.expr(integer, s, 1) + ")"
		}},
	})()
	if g.chance(30) {
		g.saw("FILTER")
		out += " FILTER (WHERE " + g.expr(boolean, s, 2) + ")"
	}
	return out
}

func (g *Generator) windowed(s *scope) string {
	g.saw("window")
	of := one(g, "count(*)", "min("+g.expr(text, s, 1)+")", "lag("+g.expr(text, s, 1)+")", "first_value("+g.expr(text, s, 1)+")", "row_number()", "dense_rank()", "ntile(3)", "sum("+g.expr(number, s, 1)+")")
	frame := ""
	if strings.HasPrefix(of, "sum") || strings.HasPrefix(of, "count") {
		frame = one(g, "", " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW", " GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING EXCLUDE TIES")
	}
	partition := ""
	if g.chance(60) {
		partition = "PARTITION BY " + g.expr(text, s, 1) + " "
	}
	return of + " OVER (" + partition + "ORDER BY " + g.expr(one(g, text, integer), s, 1) + ", " + g.expr(integer, s, 0) + frame + ")"
}
