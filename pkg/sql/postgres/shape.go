package postgres

import (
	"strings"

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
	first, listed, before := true, false, lex.Token{Kind: lex.Semi}
	for at := 0; at < len(text); {
		t := lex.Next(text, at)
		at = t.End
		s := text[t.Start:t.End]
		switch t.Kind {
		case lex.Bad:
			return dst, false
		case lex.Space:
			dst = append(dst, ' ')
			continue
		case lex.Semi:
			first, listed = true, false
			dst = append(dst, s...)
			before = t
			continue
		case lex.String:
			dst = append(dst, '\'', '\'')
		case lex.Number:
			// An integer in ORDER BY, GROUP BY or DISTINCT ON names a column by its position.
			if listed && before.Kind != lex.Op && !isOneOf(text[before.Start:before.End], "limit", "offset") {
				dst = append(dst, s...)
			} else {
				dst = append(dst, '0')
			}
		case lex.Word:
			if first && !isOneOf(s, "select", "insert", "update", "delete", "with", "values") {
				return dst, false
			}
			if isOneOf(s, "by", "distinct") {
				listed = true
			}
			if isOneOf(s, "set_config", "current_setting") {
				return dst, false
			}
			dst = append(dst, s...)
		default:
			if isOneOf(s, `"set_config"`, `"current_setting"`) {
				return dst, false
			}
			dst = append(dst, s...)
		}
		if t.Kind != lex.Open {
			first = false
		}
		before = t
	}
	return dst, true
}

func isOneOf(s string, words ...string) bool {
	for _, w := range words {
		if len(s) == len(w) && strings.EqualFold(s, w) {
			return true
		}
	}
	return false
}
