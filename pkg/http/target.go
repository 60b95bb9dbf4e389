package http

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Bounds of a target.
const (
	MaxTarget = 8 << 10 // bytes, as sent and in canonical form
	maxPairs  = 256     // parameters of a query
)

// A Pair is one parameter of a query.
type Pair struct {
	Name, Value string
	Bare        bool // there is no "=" behind the name
}

// Slash stands in a path for a slash that is encoded, in a name of a package or a project, say.
// To some servers it parts names, and to some it does not.
const Slash = "%2F"

// A Target is what a request is for, without its host.
type Target struct {
	Path  string // decoded, but for each Slash
	Query []Pair // decoded
}

// ParseTarget reads a request target in origin form, as it stands in the first line. What
// servers are known to read in different ways is an error: what is left encoded after one
// decoding, empty and dotted segments, parameters of a path, letters that become punctuation
// in another normal form. An encoded slash stays what it is, for rules to say.
func ParseTarget(raw string) (Target, error) {
	if len(raw) > MaxTarget {
		return Target{}, fmt.Errorf("the target is longer than %d bytes", MaxTarget)
	}
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '#' || c == '\\' || c == '"' || c == '<' || c == '>' {
			return Target{}, errors.New("the target has a character that must be encoded")
		}
	}
	rawPath, rawQuery, _ := strings.Cut(raw, "?")
	path, err := parsePath(rawPath)
	if err != nil {
		return Target{}, err
	}
	query, err := parseQuery(rawQuery)
	if err != nil {
		return Target{}, err
	}
	t := Target{path, query}
	// A character takes three where it must be encoded and was not.
	if len(raw) > MaxTarget/3 && len(t.String()) > MaxTarget {
		return Target{}, fmt.Errorf("the target is longer than %d bytes once encoded", MaxTarget)
	}
	return t, nil
}

func parsePath(raw string) (string, error) {
	if raw == "" || raw[0] != '/' {
		return "", errors.New("the path does not begin with a slash")
	}
	parts := strings.Split(strings.ReplaceAll(raw, "%2f", Slash), Slash)
	for i, part := range parts {
		var err error
		if parts[i], err = decode(part, false); err != nil {
			return "", err
		}
		if strings.ContainsAny(parts[i], `%\;`) {
			return "", errors.New("the path has a character that some servers read in another way: one of % \\ ;")
		}
	}
	path := strings.Join(parts, Slash)
	if !plain(path) && !norm.NFKC.IsNormalString(path) {
		return "", errors.New("the path has letters that become others in another normal form")
	}
	for _, r := range path {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError {
			return "", errors.New("the path has a character that cannot be seen")
		}
	}
	for rest, more := path[1:], true; more; {
		var s string
		switch s, rest, more = strings.Cut(rest, "/"); {
		case s == "" && !more:
		case s == "":
			return "", errors.New("the path has an empty segment")
		case slices.ContainsFunc(strings.Split(s, Slash), func(s string) bool { return s != "" && strings.Trim(s, ". ") == "" }):
			return "", errors.New("the path has a segment of dots")
		}
	}
	return path, nil
}

// plain reports whether s is ASCII, which is its own normal form.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func parseQuery(raw string) ([]Pair, error) {
	var pairs []Pair
	if strings.Contains(raw, ";") {
		return nil, errors.New("the query has a semicolon, which some servers read as a separator")
	}
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		if len(pairs) == maxPairs {
			return nil, fmt.Errorf("the query has more than %d parameters", maxPairs)
		}
		name, value, valued := strings.Cut(part, "=")
		p := Pair{Bare: !valued}
		var err error
		if p.Name, err = decode(name, true); err == nil {
			p.Value, err = decode(value, true)
		}
		if err != nil {
			return nil, err
		}
		switch {
		case strings.ContainsRune(p.Name+p.Value, 0):
			return nil, errors.New("the query has a NUL")
		case slices.Contains(overrides, loose(p.Name)):
			return nil, fmt.Errorf("the parameter %q names another method than the request has", p.Name)
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// overrides are parameters by which servers (Spring, Symfony, Express) take one method for another.
var overrides = []string{loose("_method"), loose("X-HTTP-Method-Override")}

// loose is the name of a parameter as loose servers compare it: without its case, and as PHP
// makes variables of names, with _ for what cannot stand in one. NAME[] is a list called NAME.
func loose(name string) string {
	name = strings.TrimSuffix(strings.TrimLeft(name, " "), "[]")
	base, rest, list := strings.Cut(name, "[")
	base = strings.NewReplacer(".", "_", " ", "_").Replace(base)
	switch {
	case list && strings.Contains(rest, "]"): // a member of BASE
		base += "[" + rest
	case list:
		base += "_" + rest
	}
	return fold(base)
}

// decode undoes percent encoding once.
func decode(s string, plus bool) (string, error) {
	if !strings.ContainsAny(s, "%+") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '%':
			if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
				return "", errors.New("the target has a broken escape")
			}
			b.WriteByte(byte(unhex(s[i+1])<<4 | unhex(s[i+2])))
			i += 2
		case s[i] == '+' && plus:
			b.WriteByte(' ')
		default:
			b.WriteByte(s[i])
		}
	}
	if !utf8.ValidString(b.String()) {
		return "", errors.New("the target is not UTF-8")
	}
	return b.String(), nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// String is the target in its canonical form: everything is encoded that need not be
// literal. Parsing it gives the same target.
func (t Target) String() string {
	b := make([]byte, 0, len(t.Path)+64)
	b = encode(b, t.Path, "-._~!$&'()*+,=:@/%") // no % but that of a Slash
	for i, p := range t.Query {
		b = append(b, "?&"[min(i, 1)])
		b = encode(b, p.Name, "-._~*!$'(),:@/")
		if !p.Bare {
			b = append(b, '=')
			b = encode(b, p.Value, "-._~*!$'(),:@/")
		}
	}
	return string(b)
}

const hex = "0123456789ABCDEF"

func encode(dst []byte, s, literal string) []byte {
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(literal, c) >= 0 {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}
