package recording

import (
	"strings"

	"github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/sql/postgres/lex"
)

// indexed is what the index keeps of a statement's text. Whoever searches it must not
// learn what a mask hides: WHERE email = 'x' says that x is there, though nobody saw
// it. So literals stay only in a statement that was let through and used known columns,
// none of them masked; the recording has the whole text, for those who may replay.
func indexed(protocol string, e *record.Event) string {
	if e.Verdict == postern.VerdictAllow && len(e.Touched) > 0 && protocol != string(postern.HTTP) {
		masked := false
		for _, t := range e.Touched {
			masked = masked || t.Mask != ""
		}
		if !masked {
			return clip(e.Text)
		}
	}
	switch postern.Protocol(protocol) {
	case postern.Postgres:
		return clip(withoutLiterals(e.Text))
	case postern.HTTP:
		return clip(withoutValues(e))
	case postern.SSH:
	}
	return "" // where its literals are is not known
}

// withoutValues is a request without its query and values of its path, or a message of MCP,
// whose arguments stand beside it; resources are named by what may be a value. What the
// node says of a request that it has understood knows calls of gRPC.
func withoutValues(e *record.Event) string {
	text := e.Text
	method, rest, _ := strings.Cut(text, " ")
	if strings.Contains(method, "/") {
		if at := strings.LastIndex(rest, " at "); at >= 0 && method != "tools/call" && method != "prompts/get" {
			return method + " ?" + rest[at:]
		}
		return text
	}
	switch {
	case len(e.Touched) > 0:
		return method + " " + e.Touched[0].Column
	case e.Kind == record.KindDenied && e.Tag != "":
		return method + " " + e.Tag
	}
	path, _, _ := strings.Cut(rest, "?")
	return method + " " + http.Shape(path)
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
