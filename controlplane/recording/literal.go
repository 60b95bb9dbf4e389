package recording

import (
	"strings"

	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/sql/postgres/lex"
)

// indexed is what the index keeps of a statement's text. Whoever searches it must not
// learn what a mask hides: WHERE email = 'x' says that x is there, though nobody saw
// it. So literals stay only in a statement that was let through and used known columns,
// none of them masked; the recording has the whole text, for those who may replay.
func indexed(protocol string, e *record.Event) string {
	if e.Verdict == postern.VerdictAllow && len(e.Touched) > 0 {
		masked := false
		for _, t := range e.Touched {
			masked = masked || t.Mask != ""
		}
		if !masked {
			return clip(e.Text)
		}
	}
	if protocol != "postgres" {
		return "" // where its literals are is not known
	}
	return clip(withoutLiterals(e.Text))
}

// maxLexed bounds what is read of a text: without literals the index keeps less.
const maxLexed = 64 << 10

// withoutLiterals puts a question mark for each literal, and a space for each comment.
// What does not read as tokens is left out from there on.
func withoutLiterals(text string) string {
	var b strings.Builder
	for at := 0; at < len(text) && at < maxLexed; {
		t := lex.Next(text, at)
		switch t.Kind {
		case lex.Bad:
			b.WriteString("...")
			return b.String()
		case lex.Space:
			b.WriteByte(' ')
		case lex.String, lex.Number:
			b.WriteByte('?')
		default:
			b.WriteString(text[t.Start:t.End])
		}
		at = t.End
	}
	return b.String()
}
