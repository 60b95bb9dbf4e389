// Package generate writes statements that a task may use: seeded, well typed, over the
// relations of package twoworlds, with masked columns in every position that the grammar
// has. It knows the grammar and nothing of the analyser.
package generate

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// A Statement is one thing to do on a connection, which leaves the session as it was.
type Statement struct {
	Texts      []string // simple queries, in order
	Masked     bool     // a masked column is part of it
	Writes     bool     // it changes rows, between BEGIN and ROLLBACK
	Constructs []string // of the grammar, sorted, each once
}

// A Generator writes statements, the same ones for one seed. It is not safe for
// concurrent use.
type Generator struct {
	r      *rand.Rand
	names  int
	used   map[string]bool
	masked bool
	ctes   []relation
	made   int            // statements
	seen   map[string]int // of those, with a construct
}

// New makes a generator.
func New(seed uint64) *Generator {
	return &Generator{r: rand.New(rand.NewPCG(seed, 0x706f737465726e)), seen: map[string]int{}} //nolint:gosec // it must be the same each time
}

// kind is the type of a value, as far as the generator tells them apart.
type kind int

const (
	integer kind = iota
	number
	text
	boolean
	instant
	document
	kinds
)

type column struct {
	name   string
	kind   kind
	masked bool
}

// A relation is what can stand in FROM.
type relation struct {
	name    string
	columns []column
}

var relations = []relation{
	{"sales.orders", []column{{"id", integer, false}, {"customer_id", integer, false}, {"customer_email", text, true}, {"amount", number, false}, {"status", text, false}, {"created_at", instant, false}}},
	{"sales.customers", []column{{"id", integer, false}, {"name", text, false}, {"email", text, true}, {"country", text, false}, {"created_at", instant, false}}},
	{"sales.orders", []column{{"id", integer, false}, {"customer_email", text, true}}},
	{"sales.orders_pub", []column{{"id", integer, false}, {"amount", number, false}, {"status", text, false}}},
}

// An entry is a relation in FROM, under its alias.
type entry struct {
	alias   string
	columns []column
}

// scope is what names can see.
type scope struct {
	entries []entry
	outer   *scope
}

// Next writes a statement.
func (g *Generator) Next() Statement {
	g.names, g.used, g.masked, g.ctes = 0, map[string]bool{}, false, nil
	var s Statement
	pick(g, []choice[func(*Statement)]{
		{50, func(s *Statement) { s.Texts = []string{g.query(3)} }},
		{8, g.prepared}, {8, g.cursor}, {5, g.copy}, {5, g.explain}, {24, g.change},
	})(&s)
	s.Masked, s.Constructs = g.masked, slices.Sorted(maps.Keys(g.used))
	g.made++
	for _, c := range s.Constructs {
		g.seen[c]++
	}
	return s
}

type choice[T any] struct {
	weight int
	value  T
}

func pick[T any](g *Generator, choices []choice[T]) T {
	total := 0
	for _, c := range choices {
		total += c.weight
	}
	n := g.r.IntN(total)
	for _, c := range choices {
		if n -= c.weight; n < 0 {
			return c.value
		}
	}
	return choices[0].value
}

func one[T any](g *Generator, of ...T) T { return of[g.r.IntN(len(of))] }

func (g *Generator) chance(percent int) bool { return g.r.IntN(100) < percent }

// one statement in so many has each construct, about, whatever its odds are.
const everySo = 35

// starves reports whether a construct was seen too rarely so far.
func (g *Generator) starves(construct string) bool { return g.seen[construct]*everySo < g.made }

// takes is chance for a construct, which is then noted; better for one that starves.
func (g *Generator) takes(percent int, construct string) bool {
	if g.starves(construct) {
		percent = max(percent, 40)
	}
	if !g.chance(percent) {
		return false
	}
	g.saw(construct)
	return true
}

// rather is one of some constructs, and mostly one that starves.
func (g *Generator) rather(of ...string) string {
	if starving := slices.DeleteFunc(slices.Clone(of), func(c string) bool { return !g.starves(c) }); len(starving) > 0 && g.chance(70) {
		of = starving
	}
	return one(g, of...)
}

// saw notes a construct.
func (g *Generator) saw(construct string) { g.used[construct] = true }

func (g *Generator) name(prefix string) string {
	g.names++
	return fmt.Sprintf("%s%d", prefix, g.names)
}

func (g *Generator) prepared(s *Statement) {
	g.saw("PREPARE")
	name := g.name("p")
	q := g.query(2)
	arguments := ""
	if list, ok := strings.CutPrefix(q, "SELECT "); ok {
		q = "SELECT $1::int AS given, $2::text AS also, " + list
		if g.used["DISTINCT"] || g.used["DISTINCT ON"] || g.used["set operation"] || g.used["GROUP BY"] {
			q = "SELECT x.*, $1::int AS given, $2::text AS also FROM (SELECT " + list + ") x"
		}
		arguments = "(7, '***')"
	}
	s.Texts = []string{"PREPARE " + name + " AS " + q, "EXECUTE " + name + arguments, "DEALLOCATE " + name}
}

func (g *Generator) cursor(s *Statement) {
	g.saw("cursor")
	name := g.name("cur")
	options := one(g, "", "NO SCROLL ", "SCROLL ")
	s.Texts = []string{"BEGIN", "DECLARE " + name + " " + options + "CURSOR FOR " + g.query(2), "FETCH " + one(g, "", "3 FROM ", "ALL FROM ", "FORWARD 2 FROM ", "NEXT FROM ") + name, "MOVE 1 FROM " + name, "FETCH 2 FROM " + name, "CLOSE " + name, "ROLLBACK"}
}

func (g *Generator) copy(s *Statement) {
	g.saw("COPY")
	what := "(" + g.query(2) + ")"
	if g.chance(25) {
		g.masked = true
		what = one(g, "sales.orders (id, customer_email)", "sales.customers (email, country)", "sales.orders (customer_email)")
	}
	s.Texts = []string{"COPY " + what + " TO STDOUT" + one(g, "", " (FORMAT csv, HEADER)", " (FORMAT binary)", " (FORMAT csv, DELIMITER ';', FORCE_QUOTE *)", " (NULL 'none')")}
}

func (g *Generator) explain(s *Statement) {
	g.saw("EXPLAIN")
	s.Texts = []string{"EXPLAIN " + one(g, "", "(VERBOSE) ", "(FORMAT json) ", "(COSTS off) ") + g.query(2)}
}
