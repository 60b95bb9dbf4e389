// Package lex splits PostgreSQL text into tokens, as the server does with
// standard_conforming_strings on. It is used where the grammar is not needed or not yet
// trusted: bounds in front of the parser, shapes for caches, the plain subset.
package lex

// Kind is what a token is.
type Kind uint8

// The kinds of token.
const (
	Bad    Kind = iota // not a token, or one that does not end
	Space              // white space and comments
	Word               // a keyword or an identifier without quotes
	Quoted             // a quoted identifier
	String             // any kind of string literal
	Number             //
	Param              // $1
	Op                 // an operator
	Open               // ( [
	Close              // ) ]
	Comma              //
	Semi               //
	Other              // . : and alike
)

// A Token is text[Start:End].
type Token struct {
	Kind       Kind
	Start, End int
}

// Next reads the token that begins at text[at]. At the end of the text it is a Bad
// token of length 0.
func Next(text string, at int) Token {
	if at >= len(text) {
		return Token{Bad, at, at}
	}
	kind, end := next(text, at)
	return Token{kind, at, end}
}

func next(s string, i int) (Kind, int) {
	c := s[i]
	switch {
	case isSpace(c):
		for i < len(s) && isSpace(s[i]) {
			i++
		}
		return Space, i
	case c == '-' && has(s, i, "--"):
		for i < len(s) && s[i] != '\n' && s[i] != '\r' {
			i++
		}
		return Space, i
	case c == '/' && has(s, i, "/*"):
		return comment(s, i)
	case c == '\'':
		return str(s, i+1, false)
	case c == '"':
		return quoted(s, i+1)
	case isWordStart(c):
		if i+1 < len(s) && s[i+1] == '\'' {
			switch c {
			case 'e', 'E':
				return str(s, i+2, true)
			case 'b', 'B', 'x', 'X', 'n', 'N':
				return str(s, i+2, false)
			}
		}
		if (c == 'u' || c == 'U') && i+2 < len(s) && s[i+1] == '&' {
			switch s[i+2] {
			case '\'':
				return str(s, i+3, false)
			case '"':
				return quoted(s, i+3)
			}
		}
		for i < len(s) && isWord(s[i]) {
			i++
		}
		return Word, i
	case isDigit(c), c == '.' && i+1 < len(s) && isDigit(s[i+1]):
		return Number, number(s, i)
	case c == '$':
		return dollar(s, i)
	case c == '(' || c == '[':
		return Open, i + 1
	case c == ')' || c == ']':
		return Close, i + 1
	case c == ',':
		return Comma, i + 1
	case c == ';':
		return Semi, i + 1
	case isOp(c):
		for i++; i < len(s) && isOp(s[i]) && !has(s, i, "--") && !has(s, i, "/*"); i++ {
		}
		return Op, i
	case c == '.' || c == ':':
		return Other, i + 1
	}
	return Bad, i + 1
}

func comment(s string, i int) (Kind, int) {
	depth := 0
	for i < len(s) {
		switch {
		case has(s, i, "/*"):
			depth++
			i += 2
		case has(s, i, "*/"):
			depth--
			i += 2
			if depth == 0 {
				return Space, i
			}
		default:
			i++
		}
	}
	return Bad, len(s)
}

// str reads a string after its opening quote. Strings that follow after white space
// with a line break go on in the same mode.
func str(s string, i int, escapes bool) (Kind, int) {
	for i < len(s) {
		switch {
		case s[i] == '\\' && escapes:
			i += 2
		case s[i] != '\'':
			i++
		case has(s, i, "''"):
			i += 2
		default:
			next, ok := continued(s, i+1)
			if !ok {
				return String, i + 1
			}
			i = next
		}
	}
	return Bad, len(s)
}

// continued says whether the string that was closed before s[i] goes on, and where.
func continued(s string, i int) (int, bool) {
	line := false
	for i < len(s) {
		switch {
		case s[i] == '\n' || s[i] == '\r':
			line = true
			i++
		case isSpace(s[i]):
			i++
		case has(s, i, "--") && line:
			for i < len(s) && s[i] != '\n' && s[i] != '\r' {
				i++
			}
		case s[i] == '\'' && line:
			return i + 1, true
		default:
			return 0, false
		}
	}
	return 0, false
}

func quoted(s string, i int) (Kind, int) {
	for i < len(s) {
		switch {
		case s[i] != '"':
			i++
		case has(s, i, `""`):
			i += 2
		default:
			return Quoted, i + 1
		}
	}
	return Bad, len(s)
}

func dollar(s string, i int) (Kind, int) {
	j := i + 1
	if j < len(s) && isDigit(s[j]) {
		for j < len(s) && isDigit(s[j]) {
			j++
		}
		return Param, j
	}
	if j < len(s) && isWordStart(s[j]) {
		for j < len(s) && isWord(s[j]) && s[j] != '$' {
			j++
		}
	}
	if j >= len(s) || s[j] != '$' {
		return Bad, i + 1
	}
	tag := s[i : j+1]
	for j++; j < len(s); j++ {
		if has(s, j, tag) {
			return String, j + len(tag)
		}
	}
	return Bad, len(s)
}

func number(s string, i int) int {
	hex := has(s, i, "0x") || has(s, i, "0X")
	for i < len(s) {
		switch c := s[i]; {
		case isWord(c) && c != '$':
			i++
			if (c == 'e' || c == 'E') && !hex && i+1 < len(s) && (s[i] == '+' || s[i] == '-') && isDigit(s[i+1]) {
				i++
			}
		case c == '.' && !has(s, i, ".."):
			i++
		default:
			return i
		}
	}
	return i
}

func has(s string, i int, p string) bool { return len(s)-i >= len(p) && s[i:i+len(p)] == p }

func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWordStart(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func isWord(c byte) bool { return isWordStart(c) || isDigit(c) || c == '$' }

func isOp(c byte) bool {
	switch c {
	case '~', '!', '@', '#', '^', '&', '|', '`', '?', '+', '-', '*', '/', '%', '<', '>', '=':
		return true
	}
	return false
}
