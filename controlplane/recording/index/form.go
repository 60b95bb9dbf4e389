package index

import "strings"

// The form of a text has a gap for each of its literals: for what stands in single quotes,
// and for words that begin with a digit and are not a parameter's number. Which language
// the text is in does not matter, for Fill makes the very same text of both again. A gap
// never parts a word, so that the words of form and literals together are those of the
// text.
const gap = "\x1f"

// cut appends the form of a text to form, and the literals with gaps between them to
// literals. Where there are none, or the text has gaps itself, it appends nothing.
func cut(form, literals []byte, text string) (_, _ []byte) {
	if strings.Contains(text, gap) {
		return form, literals
	}
	rest := 0 // begins what is in neither yet
	take := func(from, to int) {
		if rest > 0 {
			literals = append(literals, gap...)
		}
		form = append(append(form, text[rest:from]...), gap...)
		literals = append(literals, text[from:to]...)
		rest = to
	}
	for at := 0; at < len(text); {
		switch b := text[at]; {
		case b == '\'':
			n := strings.IndexByte(text[at+1:], '\'')
			if n < 0 {
				at = len(text)
				continue
			}
			take(at, at+n+2)
			at += n + 2
		case '0' <= b && b <= '9' && (at == 0 || text[at-1] != '$'):
			end := at + 1
			for end < len(text) && (text[end] == '.' || wordly(text[end])) {
				end++
			}
			take(at, end)
			at = end
		case wordly(b):
			for at < len(text) && wordly(text[at]) {
				at++
			}
		default:
			at++
		}
	}
	if rest > 0 {
		form = append(form, text[rest:]...)
	}
	return form, literals
}

// wordly reports whether a byte may be of a word: each of one is, and others may be.
func wordly(b byte) bool {
	return b == '_' || '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b >= 0x80
}

// Fill is the text of a wording whose literals were cut out; without literals it is whole.
func Fill(form, literals string) string {
	if literals == "" {
		return form
	}
	var b strings.Builder
	b.Grow(len(form) + len(literals))
	for {
		before, after, more := strings.Cut(form, gap)
		b.WriteString(before)
		if !more {
			return b.String()
		}
		var one string
		one, literals, _ = strings.Cut(literals, gap)
		b.WriteString(one)
		form = after
	}
}
