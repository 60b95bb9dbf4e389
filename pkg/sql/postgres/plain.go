package postgres

import "github.com/posterngate/postern/pkg/hole"

// The classes of bytes in text without quotes.
const (
	never byte = iota // not in the plain subset
	plain             // a token or part of one, or white space
	word              // part of a word or number
	quote             // begins a string or a quoted identifier
	param             // $
	dash              // may begin --
	slash             // may begin /*
	amper             // may be the middle of U&'
)

var classes = func() (t [256]byte) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = plain
	}
	t['\t'], t['\n'] = plain, plain
	for _, r := range [...][2]byte{{'a', 'z'}, {'A', 'Z'}, {'0', '9'}, {'_', '_'}} {
		for c := r[0]; c <= r[1]; c++ {
			t[c] = word
		}
	}
	t['\''], t['"'], t['$'], t['-'], t['/'], t['&'] = quote, quote, param, dash, slash, amper
	t['\\'] = never
	if hole.Is("plain-backslash") {
		t['\\'] = plain
	}
	return t
}()

// Plain reports whether text cannot mean anything else to a server with pinned settings
// than to us: printable ASCII, ordinary strings and quoted identifiers without
// backslash, no escape, Unicode, bit or dollar strings, no comments. It does not allocate.
func Plain(text string) bool {
	before := plain // the class of the byte before
	for i := 0; i < len(text); i++ {
		c := classes[text[i]]
		switch c {
		case never:
			return false
		case quote:
			// After a letter it may be E'', after an ampersand U&''.
			if before == word || before == amper || before == param {
				return false
			}
			q := text[i]
			for i++; ; i++ {
				if i >= len(text) || text[i] == '\\' || classes[text[i]] == never {
					return false
				}
				if text[i] == q {
					if i+1 < len(text) && text[i+1] == q {
						i++
						continue
					}
					break
				}
			}
		case param:
			if before == word || before == param || i+1 >= len(text) || text[i+1] < '0' || text[i+1] > '9' {
				return false
			}
			for i+1 < len(text) && text[i+1] >= '0' && text[i+1] <= '9' {
				i++
			}
			if i+1 < len(text) && (classes[text[i+1]] == word || classes[text[i+1]] == quote) {
				return false
			}
		case dash:
			if before == dash {
				return false
			}
		case plain:
			if text[i] == '*' && before == slash {
				return false
			}
		}
		before = c
	}
	return true
}
