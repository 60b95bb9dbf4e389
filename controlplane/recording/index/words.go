package index

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of words.
const (
	maxWord  = 64  // bytes; a longer one counts by its beginning
	maxWords = 512 // different ones of a text; the rest is not found by
	maxTerms = 32  // of a question
)

// Words are what a text is found by: runs of letters, digits and underscores, in lower
// case, each once. They hold no other character.
func Words(text string) []string { return words(nil, map[string]bool{}, text, maxWords, nil) }

// Terms are the words of a question, and whether each stands for all that begin so.
func Terms(text string) (terms []string, prefix []bool) {
	terms = words(nil, map[string]bool{}, text, maxTerms, func(star bool) { prefix = append(prefix, star) })
	return terms, prefix
}

// words appends to out the words that were not seen before, until there are so many, and
// calls kept for each, with whether a star follows it.
func words(out []string, seen map[string]bool, text string, most int, kept func(star bool)) []string {
	for at := 0; at < len(text) && len(out) < most; {
		r, n := utf8.DecodeRuneInString(text[at:])
		if !inWord(r) {
			at += n
			continue
		}
		end := at
		for end < len(text) {
			r, n := utf8.DecodeRuneInString(text[end:])
			if !inWord(r) {
				break
			}
			end += n
		}
		w := clipWord(strings.ToLower(text[at:end]))
		at = end
		if !seen[w] {
			seen[w] = true
			out = append(out, w)
			if kept != nil {
				kept(end < len(text) && text[end] == '*')
			}
		}
	}
	return out
}

func inWord(r rune) bool {
	return r == '_' || r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))
}

func clipWord(w string) string {
	if len(w) <= maxWord {
		return w
	}
	at := maxWord
	for !utf8.RuneStart(w[at]) {
		at--
	}
	return w[:at]
}
