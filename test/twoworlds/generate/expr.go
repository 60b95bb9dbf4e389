package generate

import (
	"fmt"
	"strconv"
	"strings"
)

// expr is an expression of a kind over what a scope sees.
func (g *Generator) expr(k kind, s *scope, depth int) string {
	if depth <= 0 {
		return g.columnOrConstant(k, s)
	}
	if g.chance(30) {
		return g.columnOrConstant(k, s)
	}
	if g.chance(10) {
		return g.general(k, s, depth)
	}
	switch k {
	case integer:
		return g.integer(s, depth)
	case number:
		return one(g, "("+g.expr(number, s, depth-1)+one(g, " + ", " - ", " * ")+g.expr(integer, s, depth-1)+")",
			"round("+g.expr(number, s, depth-1)+", 1)", "abs("+g.expr(number, s, depth-1)+")", g.expr(integer, s, depth-1)+"::numeric(12,2)",
			"("+g.expr(number, s, depth-1)+" / nullif("+g.expr(integer, s, depth-1)+", 0))", "extract(epoch FROM "+g.expr(instant, s, 0)+")")
	case text:
		return g.text(s, depth)
	case boolean:
		return g.boolean(s, depth)
	case instant:
		return one(g, "date_trunc("+one(g, "'day'", "'hour'", "'month'")+", "+g.expr(instant, s, depth-1)+")", "("+g.expr(instant, s, depth-1)+" + interval '1 day')",
			"("+g.expr(instant, s, depth-1)+" AT TIME ZONE 'UTC')::timestamptz", "greatest("+g.expr(instant, s, 0)+", "+g.expr(instant, s, 0)+")")
	case document, kinds:
	}
	return g.document(s, depth)
}

// columnOrConstant is the simplest expression of a kind, a column where there is one.
func (g *Generator) columnOrConstant(k kind, s *scope) string {
	var found []string
	var masked []bool
	for level := s; level != nil; level = level.outer {
		for _, e := range level.entries {
			for _, c := range e.columns {
				if c.kind == k {
					found = append(found, e.alias+"."+c.name)
					masked = append(masked, c.masked)
					if c.masked { // twice as likely
						found, masked = append(found, found[len(found)-1]), append(masked, true)
					}
				}
			}
		}
		if len(found) > 0 && g.chance(80) {
			break
		}
	}
	if len(found) > 0 && g.chance(90) {
		i := g.r.IntN(len(found))
		g.masked = g.masked || masked[i]
		return found[i]
	}
	switch k {
	case integer:
		return strconv.Itoa(g.r.IntN(30))
	case number:
		return strconv.Itoa(g.r.IntN(500)) + ".25"
	case text:
		return one(g, "'***'", "'open'", "'alice@example.com'", "''", "'DE'", "'it''s'", "NULL::text", "E'a\\nb'", "$$x$$", `'a\b'`)
	case boolean:
		return one(g, "true", "false", "NULL::boolean")
	case instant:
		return one(g, "timestamptz '2026-01-01 00:05+00'", "'2026-01-01 00:10+00'::timestamptz")
	case document, kinds:
	}
	return one(g, `'{"a": [1, {"b": "x"}]}'::jsonb`, `'[]'::jsonb`, `'"***"'::jsonb`)
}

// general are constructs that exist for every kind.
func (g *Generator) general(k kind, s *scope, depth int) string {
	a, b := func() string { return g.expr(k, s, depth-1) }, func() string { return g.expr(boolean, s, depth-1) }
	switch g.r.IntN(8) {
	case 0:
		g.saw("CASE")
		return "CASE WHEN " + b() + " THEN " + a() + " ELSE " + a() + " END"
	case 1:
		g.saw("CASE of a value")
		return "CASE " + g.expr(text, s, depth-1) + " WHEN " + g.expr(text, s, 0) + " THEN " + a() + " WHEN 'open' THEN " + a() + " END"
	case 2:
		g.saw("COALESCE")
		return "coalesce(" + a() + ", " + a() + ")"
	case 3:
		g.saw("NULLIF")
		return "nullif(" + a() + ", " + a() + ")"
	case 4:
		if k == document || k == boolean {
			return "(" + a() + ")"
		}
		g.saw("GREATEST")
		return one(g, "greatest(", "least(") + a() + ", " + a() + ")"
	case 5:
		g.saw("array")
		return "(ARRAY[" + a() + ", " + a() + "])[" + one(g, "1", "2", g.expr(integer, s, 0)) + "]"
	case 6:
		g.saw("row")
		name := g.name("r")
		return "(SELECT " + name + ".x FROM (SELECT " + a() + " AS x) AS " + name + ")"
	}
	g.saw("scalar sub-select")
	inner := &scope{outer: s}
	from := g.from(inner, 0)
	return "(SELECT " + g.expr(k, inner, 1) + from + g.where(inner, 1) + " ORDER BY 1 LIMIT 1)"
}

func (g *Generator) integer(s *scope, depth int) string {
	a, t := func() string { return g.expr(integer, s, depth-1) }, func() string { return g.expr(text, s, depth-1) }
	return pick(g, []choice[func() string]{
		{3, func() string { return "(" + a() + one(g, " + ", " - ", " % 7 + ", " & ", " # ") + a() + ")" }},
		{1, func() string { return "(" + a() + " / " + a() + ")" }},
		{4, func() string { return one(g, "length(", "octet_length(", "ascii(", "char_length(") + t() + ")" }},
		{1, func() string { return "position(" + t() + " IN " + t() + ")" }},
		{1, func() string { return "strpos(" + t() + ", '@')" }},
		{2, func() string { g.saw("cast"); return "(" + t() + ")::int" }},
		{2, func() string { g.saw("cast"); return "cast(" + g.expr(boolean, s, depth-1) + " AS int)" }},
		{2, func() string {
			return "extract(" + one(g, "minute", "hour", "dow") + " FROM " + g.expr(instant, s, depth-1) + ")::int"
		}},
		{1, func() string { return "(- " + a() + ")" }},
		{1, func() string { return "cardinality(string_to_array(" + t() + ", '.'))" }},
		{1, func() string { return "(hashtext(" + t() + ") % 10)" }},
	})()
}

func (g *Generator) text(s *scope, depth int) string {
	t, n := func() string { return g.expr(text, s, depth-1) }, func() string { return g.expr(integer, s, depth-1) }
	return pick(g, []choice[func() string]{
		{4, func() string { return "(" + t() + " || " + t() + ")" }},
		{4, func() string {
			return one(g, "upper(", "lower(", "reverse(", "md5(", "initcap(", "btrim(", "quote_literal(") + t() + ")"
		}},
		{3, func() string { return "substring(" + t() + " FROM " + strconv.Itoa(1+g.r.IntN(5)) + " FOR 3)" }},
		{2, func() string { return one(g, "left(", "right(") + t() + ", " + strconv.Itoa(g.r.IntN(6)) + ")" }},
		{1, func() string { return "substring(" + t() + ", '@(.*)$')" }},
		{2, func() string { return "split_part(" + t() + ", '@', 1)" }},
		{2, func() string { return "replace(" + t() + ", 'a', 'b')" }},
		{1, func() string { return "translate(" + t() + ", 'abc', 'xyz')" }},
		{1, func() string { return "regexp_replace(" + t() + ", '[a-m]+', '#')" }},
		{2, func() string { g.saw("cast"); return "(" + g.expr(kind(g.r.IntN(int(kinds))), s, depth-1) + ")::text" }},
		{1, func() string { g.saw("cast"); return "cast(" + t() + " AS varchar(5))" }},
		{1, func() string { return "concat_ws('-', " + t() + ", " + n() + ")" }},
		{1, func() string { return "format('%s/%s', " + t() + ", " + n() + ")" }},
		{1, func() string { return "to_char(" + g.expr(number, s, depth-1) + ", 'FM999.0')" }},
		{1, func() string { g.saw("COLLATE"); return "(" + t() + ` COLLATE "C")` }},
		{1, func() string { return "encode(convert_to(" + t() + ", 'UTF8'), 'hex')" }},
		{1, func() string { return "array_to_string(ARRAY[" + t() + ", " + t() + "], '+')" }},
		{1, func() string {
			g.saw("JSON operator")
			return "(" + g.expr(document, s, depth-1) + one(g, " ->> 'a')", " #>> '{a,1}')", " ->> 0)")
		}},
		{1, func() string { return "overlay(" + t() + " PLACING 'xx' FROM 2)" }},
		{1, func() string {
			g.saw("array sub-select")
			inner := &scope{outer: s}
			from := g.from(inner, 0)
			return "array_to_string(ARRAY(SELECT " + g.expr(text, inner, 1) + from + " ORDER BY 1 LIMIT 5), ',')"
		}},
	})()
}

func (g *Generator) boolean(s *scope, depth int) string {
	k := one(g, integer, text, text, number, instant)
	a := func() string { return g.expr(k, s, depth-1) }
	t, b := func() string { return g.expr(text, s, depth-1) }, func() string { return g.expr(boolean, s, depth-1) }
	return pick(g, []choice[func() string]{
		{6, func() string { return "(" + a() + " " + one(g, "=", "<>", "<", "<=", ">", ">=") + " " + a() + ")" }},
		{4, func() string {
			return "(" + t() + one(g, " LIKE ", " NOT LIKE ", " ILIKE ") + one(g, "'%a%'", "'user1%'", "'_lice%'", t()) + ")"
		}},
		{1, func() string { return "(" + t() + one(g, " ~ ", " ~* ", " !~ ") + "'^[a-k].*@')" }},
		{1, func() string { g.saw("SIMILAR TO"); return "(" + t() + " SIMILAR TO '%(alice|user)%')" }},
		{3, func() string { return "(" + b() + one(g, " AND ", " OR ") + b() + ")" }},
		{1, func() string { return "(NOT " + b() + ")" }},
		{2, func() string { return "(" + a() + one(g, " IS NULL", " IS NOT NULL") + ")" }},
		{1, func() string { return "(" + a() + one(g, " IS DISTINCT FROM ", " IS NOT DISTINCT FROM ") + a() + ")" }},
		{1, func() string {
			g.saw("IS TRUE")
			return "(" + b() + one(g, " IS TRUE", " IS NOT FALSE", " IS UNKNOWN") + ")"
		}},
		{2, func() string {
			g.saw("BETWEEN")
			return "(" + a() + one(g, " BETWEEN ", " NOT BETWEEN ", " BETWEEN SYMMETRIC ") + a() + " AND " + a() + ")"
		}},
		{2, func() string {
			g.saw("IN list")
			return "(" + a() + one(g, " IN (", " NOT IN (") + a() + ", " + a() + "))"
		}},
		{1, func() string {
			g.saw("row comparison")
			return "((" + a() + ", " + t() + ") " + one(g, "=", "<", "IN") + " " + "((" + a() + ", " + t() + ")))"
		}},
		{1, func() string {
			g.saw("ANY of an array")
			return "(" + t() + one(g, " = ANY (", " <> ALL (") + "ARRAY[" + t() + ", '***']))"
		}},
		{2, func() string {
			g.saw("EXISTS")
			inner := &scope{outer: s}
			return one(g, "", "NOT ") + "EXISTS (SELECT " + one(g, "1", "*") + g.from(inner, 0) + " WHERE " + g.expr(boolean, inner, 1) + ")"
		}},
		{2, func() string {
			g.saw("IN sub-select")
			inner := &scope{outer: s}
			from := g.from(inner, 0)
			return "(" + t() + one(g, " IN ", " NOT IN ", " = ANY ", " > ALL ") + "(SELECT " + g.expr(text, inner, 1) + from + g.where(inner, 1) + "))"
		}},
		{1, func() string {
			g.saw("JSON operator")
			return "(" + g.expr(document, s, depth-1) + one(g, " ? 'a')", ` @> '{"a": 1}')`, " = '{}'::jsonb)", ` @? '$.a[*] ? (@ > 1)')`)
		}},
		{1, func() string { return "starts_with(" + t() + ", 'a')" }},
		{1, func() string { g.saw("cast"); return "(" + t() + ")::boolean" }},
	})()
}

func (g *Generator) document(s *scope, depth int) string {
	t := func() string { return g.expr(text, s, depth-1) }
	d := func() string { return g.expr(document, s, depth-1) }
	g.saw("JSON")
	return pick(g, []choice[func() string]{
		{3, func() string { return "to_jsonb(" + t() + ")" }},
		{3, func() string { return "jsonb_build_object('a', " + t() + ", 'b', " + g.expr(integer, s, depth-1) + ")" }},
		{2, func() string { return "jsonb_build_array(" + t() + ", " + g.expr(number, s, depth-1) + ")" }},
		{2, func() string { return "(" + d() + one(g, " -> 'a')", " -> 0)", " #> '{a,0}')", " - 'a')") }},
		{1, func() string { return "(" + d() + " || " + d() + ")" }},
		{1, func() string { return "jsonb_set(" + d() + ", '{a}', " + d() + ")" }},
		{1, func() string { return fmt.Sprintf("jsonb_path_query_first(%s, '$.a')", d()) }},
		{1, func() string { g.saw("row"); return "to_jsonb(ROW(" + strings.Join([]string{t(), t()}, ", ") + "))" }},
	})()
}
