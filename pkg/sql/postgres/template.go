package postgres

import (
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/posterngate/postern/pkg/sql/postgres/lex"
)

// A Template is the text that is sent for every statement of one shape, with gaps for
// its literals. It is immutable.
type Template struct {
	parts []string // one more than gaps
	gaps  []int    // which literal of the statement fills each
	count int      // of the literals of the statement
}

// maxGaps is the most literals of a statement that has a Template.
const maxGaps = 64

// NewTemplate makes the template of the shape of text, which was rewritten to sent. It
// asks rewrite to rewrite another text of that shape, whose literals occur nowhere else,
// and looks where they went. False means that there is none: a literal was changed on
// the way, or what comes out is not plain.
func NewTemplate(text, sent string, rewrite func(string) (string, error)) (*Template, bool) {
	marks := make(map[string]int)
	var marked strings.Builder
	// What the rewriter adds (names, constants of masks) is in sent already: a mark that
	// is not part of it can only come from a literal.
	base := 1_000_000_000 + rand.IntN(1_000_000_000) //nolint:gosec // a choice, not a secret
	w := newWalk(text)
	for w.next() {
		if !w.literal {
			marked.WriteString(w.text())
			continue
		}
		mark := strconv.Itoa(base + len(marks))
		if len(marks) == maxGaps || strings.Contains(text, mark) || strings.Contains(sent, mark) {
			return nil, false
		}
		if w.token.Kind == lex.String {
			mark = "'" + mark + "'"
		}
		marks[mark] = len(marks)
		marked.WriteString(mark)
	}
	if w.unsure {
		return nil, false
	}
	out, err := rewrite(marked.String())
	if err != nil || !Plain(out) {
		return nil, false
	}
	t, ok := split(out, marks)
	if !ok || string(t.Fill(nil, text)) != sent {
		return nil, false
	}
	return t, true
}

// split cuts a text at its marks. False means that one is missing.
func split(out string, marks map[string]int) (*Template, bool) {
	t := &Template{count: len(marks)}
	seen := make([]bool, len(marks))
	from := 0
	for at := 0; at < len(out); {
		tok := lex.Next(out, at)
		if tok.Kind == lex.Bad {
			return nil, false
		}
		at = tok.End
		if tok.Kind != lex.String && tok.Kind != lex.Number {
			continue
		}
		if i, ok := marks[out[tok.Start:tok.End]]; ok {
			t.parts, t.gaps = append(t.parts, out[from:tok.Start]), append(t.gaps, i)
			seen[i], from = true, tok.End
		}
	}
	t.parts = append(t.parts, out[from:])
	for _, s := range seen {
		if !s {
			return nil, false
		}
	}
	return t, true
}

// Fill appends the text that is sent for a statement of the template's shape: the
// client's own literals, which are plain, between the template's parts. It returns dst
// as it was where text has another number of literals.
func (t *Template) Fill(dst []byte, text string) []byte {
	var spans [maxGaps]lex.Token
	n := 0
	w := newWalk(text)
	for w.next() {
		if !w.literal {
			continue
		}
		if n == t.count {
			return dst
		}
		spans[n] = w.token
		n++
	}
	if n != t.count || w.unsure {
		return dst
	}
	for i, g := range t.gaps {
		dst = append(dst, t.parts[i]...)
		dst = append(dst, text[spans[g].Start:spans[g].End]...)
	}
	return append(dst, t.parts[len(t.gaps)]...)
}
