package http

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
)

// Overriding are the methods for which servers take a POST with a field that says so, of those
// that everybody knows.
var Overriding = []string{"PUT", "PATCH", "DELETE"}

const (
	// maxField is how much is kept of a field's name, which may be encoded; what is longer is
	// none of those that are looked for.
	maxField = 128
	// maxPart is how much is kept of the head of one part of a multipart body.
	maxPart = 8 << 10
)

// Overrides look, in the body of a POST as it passes, for a field by which servers take another
// method: Rails, Laravel, Symfony and Spring do. They are for one goroutine.
type Overrides struct {
	scan  func(o *Overrides, p []byte) string
	state int
	word  []byte
	long  bool // the word is longer than is kept
}

// NewOverrides are those of a body of a media type, packed or not; nil where it has no fields.
// One that says nothing is a form to some.
func NewOverrides(contentType string, packed bool) *Overrides {
	form := contentType == "" || contentType == "application/x-www-form-urlencoded"
	switch parts := strings.HasPrefix(contentType, "multipart/"); {
	case packed && (form || parts):
		return &Overrides{scan: func(*Overrides, []byte) string { return "(the form is packed)" }}
	case form:
		return &Overrides{scan: (*Overrides).form}
	case parts:
		return &Overrides{scan: (*Overrides).multipart}
	case contentType == "application/json" || strings.HasSuffix(contentType, "+json"):
		return &Overrides{scan: (*Overrides).json}
	}
	return nil
}

// Find is the field that ends in p, which follows what came before; empty where none does.
// p must not go on where there is one.
func (o *Overrides) Find(p []byte) string {
	if o == nil {
		return ""
	}
	return o.scan(o, p)
}

// override is the name of a field, if it is one that is looked for.
func override(name string) string {
	if slices.Contains(overrides, loose(name)) {
		return name
	}
	return ""
}

func (o *Overrides) add(p ...byte) {
	if o.long = o.long || len(o.word)+len(p) > maxField; !o.long {
		o.word = append(o.word, p...)
	}
}

// end is the word that has been read, and begins the next.
func (o *Overrides) end() string {
	word := string(o.word)
	if o.long {
		word = ""
	}
	o.word, o.long = o.word[:0], false
	return word
}

// States of form: a name, or what follows it.
const (
	inName = iota
	inValue
)

// form takes ; for & too, as some do.
func (o *Overrides) form(p []byte) string {
	for len(p) > 0 {
		if o.state == inValue {
			i := bytes.IndexAny(p, "&;")
			if i < 0 {
				return ""
			}
			o.state, p = inName, p[i+1:]
			continue
		}
		i := bytes.IndexAny(p, "&;=")
		if i < 0 {
			o.lead(p)
			return ""
		}
		o.lead(p[:i])
		name, err := decode(o.end(), true)
		if p[i] == '=' {
			if name = override(name); err == nil && name != "" {
				return name
			}
			o.state = inValue
		}
		p = p[i+1:]
	}
	return ""
}

// lead adds to a name without the spaces before it, of which there may be any number.
func (o *Overrides) lead(p []byte) {
	for len(p) > 0 && !o.long && len(o.word) < len("%20") {
		if o.word = append(o.word, p[0]); o.word[0] == '+' || o.word[0] == ' ' || string(o.word) == "%20" {
			o.word = o.word[:0]
		}
		p = p[1:]
	}
	o.add(p...)
}

// States of multipart: at the beginning of a line, in one, and in the head of a part.
const (
	atLine = iota
	inLine
	inPart
)

const disposition = "content-disposition"

func (o *Overrides) multipart(p []byte) string {
	for len(p) > 0 {
		switch o.state {
		case inLine:
			i := bytes.IndexByte(p, '\n')
			if i < 0 {
				return ""
			}
			o.state, p = atLine, p[i+1:]
			continue
		case atLine:
			if p[0]|0x20 != disposition[len(o.word)] { // in small letters
				o.word, o.state = o.word[:0], inLine
				continue // it may be a line's end itself
			}
			if o.word = append(o.word, p[0]); len(o.word) == len(disposition) {
				o.state = inPart
			}
		case inPart:
			o.word = append(o.word, p[0])
			if n := len(o.word); p[0] == '\n' && (o.word[n-2] == '\n' || bytes.HasSuffix(o.word, []byte("\n\r\n"))) {
				name := partName(o.word)
				if o.word, o.state = o.word[:0], atLine; name != "" {
					return name
				}
			} else if n == maxPart {
				return "(the head of a part is too long)"
			}
		}
		p = p[1:]
	}
	return ""
}

var partNames = regexp.MustCompile(`(?i)[;\s]name\*?\s*=\s*("(?:\\.|[^"\\])*"|'[^']*'|[^;\s]*)`)

// partName is the name in the head of a part that is looked for.
func partName(head []byte) string {
	for _, m := range partNames.FindAllSubmatch(head, -1) {
		text := strings.ReplaceAll(string(m[1]), `\`, "")
		if i := strings.LastIndex(text, "''"); i > 0 { // charset'language'name
			text = text[i+2:]
		}
		text = strings.Trim(text, `"'`)
		if plain, err := decode(text, false); err == nil {
			text = plain
		}
		if name := override(text); name != "" {
			return name
		}
	}
	return ""
}

// States of json: between strings, in one, behind its backslash, in digits behind \u, and
// behind a string.
const (
	between = iota
	inText
	inEscape
	inDigits
	behind = inDigits + 4
)

func (o *Overrides) json(p []byte) string {
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch o.state {
		case behind:
			switch c {
			case ' ', '\t', '\r', '\n':
				continue
			case ':':
				if name := override(o.end()); name != "" {
					return name
				}
			}
			o.end()
			o.state = between
			fallthrough
		case between:
			n := bytes.IndexByte(p[i:], '"')
			if n < 0 {
				return ""
			}
			i += n
			o.state = inText
		case inText:
			n := bytes.IndexAny(p[i:], `"\`)
			if n < 0 {
				o.add(p[i:]...)
				return ""
			}
			o.add(p[i : i+n]...)
			i += n
			if o.state = behind; p[i] == '\\' {
				o.state = inEscape
			}
		case inEscape:
			if o.state = inText; c == 'u' {
				o.state = inDigits
				continue
			}
			o.add(c)
		default:
			o.digit(c)
		}
	}
	return ""
}

// digit takes one of the four behind \u. A character of more than one byte is in no name that
// is looked for.
func (o *Overrides) digit(c byte) {
	o.add(c)
	if o.state++; o.state < behind {
		return
	}
	o.state = inText
	if n := len(o.word); !o.long && n >= 4 {
		digits := o.word[n-4:]
		if hi, lo := unhex(digits[2]), unhex(digits[3]); digits[0] == '0' && digits[1] == '0' && hi >= 0 && hi < 8 && lo >= 0 {
			o.word = append(o.word[:n-4], byte(hi<<4|lo))
		}
	}
}
