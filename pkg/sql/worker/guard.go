package worker

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/posterngate/postern/pkg/sql"
	"github.com/posterngate/postern/pkg/sql/postgres/lex"
)

// The bounds on a text. The grammar and what walks its trees are recursive in C, so a
// deep enough text would end the child; these keep well below that.
const (
	MaxText    = 1 << 20 // bytes
	MaxNesting = 200     // brackets
	MaxOpen    = 5000    // tokens that may be part of one expression at once
	MaxTokens  = 500_000 // more than the 65,535 parameters of one statement need, each with a cast
	MaxSets    = 500     // UNION, INTERSECT and EXCEPT
)

// guard holds a text to the bounds. The error is a *sql.SyntaxError.
func guard(text string) error {
	if len(text) > MaxText {
		return refuse("statement of %d bytes is longer than the %d that are read", len(text), MaxText)
	}
	if strings.IndexByte(text, 0) >= 0 {
		return refuse("statement contains a zero byte")
	}
	if !utf8.ValidString(text) {
		return refuse("statement is not valid UTF-8")
	}
	// open counts, per bracket that is open, the tokens since the last comma. Their sum
	// bounds how deep an expression can be: a comma ends one and so does a bracket.
	var open [MaxNesting + 1]int
	depth, sum, sets := 0, 0, 0
	tokens := 0
	for at := 0; at < len(text); {
		t := lex.Next(text, at)
		at = t.End
		if t.Kind == lex.Space {
			continue
		}
		if tokens++; tokens > MaxTokens {
			return refuse("statement has more than %d words and signs", MaxTokens)
		}
		weight := 1
		switch t.Kind {
		case lex.Bad:
			// The parser says what is wrong with it.
		case lex.Op:
			weight = t.End - t.Start // "+-+-" may be many operators
		case lex.Open:
			if depth == MaxNesting {
				return refuse("statement is nested deeper than %d brackets", MaxNesting)
			}
			open[depth]++
			sum++
			depth++
			continue
		case lex.Close:
			if depth > 0 {
				sum -= open[depth]
				open[depth] = 0
				depth--
			}
			continue
		case lex.Comma, lex.Semi:
			sum -= open[depth]
			open[depth] = 0
			if t.Kind == lex.Semi && depth == 0 {
				sets = 0
			}
			continue
		case lex.Word:
			if isSet(text[t.Start:t.End]) {
				if sets++; sets > MaxSets {
					return refuse("statement has more than %d UNION, INTERSECT and EXCEPT", MaxSets)
				}
			}
		}
		open[depth] += weight
		if sum += weight; sum > MaxOpen {
			return refuse("statement has an expression of more than %d terms", MaxOpen)
		}
	}
	return nil
}

func isSet(w string) bool {
	switch len(w) {
	case 5:
		return strings.EqualFold(w, "union")
	case 6:
		return strings.EqualFold(w, "except")
	case 9:
		return strings.EqualFold(w, "intersect")
	}
	return false
}

func refuse(format string, args ...any) error {
	return &sql.SyntaxError{Message: fmt.Sprintf(format, args...)}
}
