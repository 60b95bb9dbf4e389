package generate

import (
	"regexp"
	"strconv"
	"strings"
)

// literal is what may be another value, after what may not: positions.
var literal = regexp.MustCompile(`\bBY \d+(?:, \d+)*|'(?:[^'\\]|'')*'|\b\d+\b`)

var query = regexp.MustCompile(`^(?:SELECT|WITH|VALUES|\() ?`)

// values are strings of which one is as good as another.
var values = []string{"'***'", "'open'", "'alice@example.com'", "''", "'DE'", "'it''s'", "'paid'", "'%a%'", "'user1%'", "'_lice%'", "'user1@example.com'"}

// Again is a query once more with other literals: a node decides once of all statements
// that differ in literals alone. It is false for what is more than one query, or has no
// literal that may change.
func (g *Generator) Again(s Statement) (Statement, bool) {
	if len(s.Texts) > 1 || !query.MatchString(s.Texts[0]) {
		return s, false
	}
	text := literal.ReplaceAllStringFunc(s.Texts[0], func(l string) string {
		switch {
		case strings.HasPrefix(l, "BY "):
			return l
		case l[0] != '\'':
			n, err := strconv.Atoi(l)
			if err != nil {
				return l
			}
			return strconv.Itoa(max(n+g.r.IntN(5)-1, 0))
		}
		for _, v := range values {
			if l == v {
				return one(g, values...)
			}
		}
		return l
	})
	if text == s.Texts[0] {
		return s, false
	}
	s.Texts = []string{text}
	return s, true
}
