package postgres

import (
	"strings"

	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/sql/postgres/lex"
)

// Shape appends to dst the text with its literals taken out, so that statements which
// differ in literals alone have one shape. It is for caches of what does not depend on
// literals; a hit still needs a comparison of the whole shape. False means unsure: the
// text is not plain, or literals may change its meaning. Two texts of one shape have the
// same facts.
func Shape(dst []byte, text string) ([]byte, bool) {
	if !Plain(text) {
		return dst, false
	}
	w := newWalk(text)
	for w.next() {
		switch {
		case w.literal && w.token.Kind == lex.String:
			dst = append(dst, '\'', '\'')
		case w.literal:
			dst = append(dst, '0')
		case w.token.Kind == lex.Space:
			dst = append(dst, ' ')
		case hole.Is("shape-quoted") && w.text()[0] == '"':
			dst = append(dst, '"', '"')
		default:
			dst = append(dst, w.text()...)
		}
	}
	return dst, !w.unsure
}

// A walk goes over the tokens of a plain text and tells the literals that do not change
// what the statement is.
type walk struct {
	source  string
	token   lex.Token
	literal bool
	unsure  bool // and the walk has ended

	at     int
	first  bool // no word of the statement was seen yet
	listed bool // a list that may name columns by position has begun
	before lex.Token
}

func newWalk(text string) walk {
	return walk{source: text, first: true, before: lex.Token{Kind: lex.Semi}}
}

func (w *walk) text() string { return w.source[w.token.Start:w.token.End] }

func (w *walk) next() bool {
	if w.at >= len(w.source) || w.unsure {
		return false
	}
	w.token, w.literal = lex.Next(w.source, w.at), false
	w.at = w.token.End
	s := w.text()
	switch w.token.Kind {
	case lex.Bad:
		w.unsure = true
		return false
	case lex.Space:
		return true
	case lex.Semi:
		w.first, w.listed, w.before = true, false, w.token
		return true
	case lex.String:
		w.literal = true
	case lex.Number:
		// An integer in ORDER BY, GROUP BY or DISTINCT ON names a column by its position, and
		// so it does behind two minuses.
		w.unsure = !isNumber(s)
		before := w.source[w.before.Start:w.before.End]
		w.literal = hole.Is("shape-position") || !w.listed || w.before.Kind == lex.Op && before != "-" || isOneOf(before, "limit", "offset")
	case lex.Word:
		w.unsure = w.first && !isOneOf(s, "select", "insert", "update", "delete", "with", "values") ||
			isOneOf(s, "set_config", "current_setting") && !hole.Is("shape-setting")
		w.listed = w.listed || isOneOf(s, "by", "distinct")
	default:
		w.unsure = isOneOf(s, `"set_config"`, `"current_setting"`)
	}
	if w.token.Kind != lex.Open {
		w.first = false
	}
	w.before = w.token
	return !w.unsure
}

// isNumber reports whether a token is one number to every server: those before
// PostgreSQL 15 begin a word where it ends.
func isNumber(s string) bool {
	const digits = "0123456789"
	s = strings.TrimLeft(s, digits)
	s = strings.TrimLeft(strings.TrimPrefix(s, "."), digits)
	if s == "" {
		return true
	}
	exponent := strings.TrimLeft(s[1:], "+-")
	return (s[0] == 'e' || s[0] == 'E') && exponent != "" && strings.Trim(exponent, digits) == ""
}

func isOneOf(s string, words ...string) bool {
	for _, w := range words {
		if len(s) == len(w) && strings.EqualFold(s, w) {
			return true
		}
	}
	return false
}
