package shell

import "strings"

// maxNested bounds what may nest in a line. The parser goes as deep as a line says, which for
// some bytes of each takes megabytes of stack; nothing that nests is understood in any case.
const maxNested = 256

// nested reports whether more may nest in a line than that. What stands in quotes or in a
// comment does not, as far as these can be told: behind an expansion, a here-document or a
// backslash all of it may.
func nested(line string) bool {
	n := 0
	for _, w := range strings.Fields(line) {
		switch w {
		case "if", "while", "until", "do", "case":
			n++
		}
	}
	quote, known := byte(0), true
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '(' || c == '{' || c == '`':
			if quote == 0 || !known || c == '`' && quote == '"' {
				n++
			}
			known = known && (c != '`' || quote == '\'')
		case quote == '\'':
			if c == quote {
				quote = 0
			}
		case c == '\\':
			known = known && strings.HasPrefix(line[i:], mark)
			i++
		case c == '$' || c == '<' && quote == 0 && strings.HasPrefix(line[i:], "<<"):
			known = false
		case c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote == 0 && known && c == '#' && (i == 0 || strings.IndexByte(" \t\n;|&()", line[i-1]) >= 0):
			if i += strings.IndexByte(line[i:]+"\n", '\n'); i < len(line) {
				i--
			}
		}
	}
	return n > maxNested
}
