package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxBody bounds a body that rules read, in bytes.
const MaxBody = 1 << 20

// maxDepth bounds how deeply values of a body are nested.
const maxDepth = 64

// A Body is a JSON body as rules read it.
type Body struct {
	// Value is of maps, slices, strings, booleans, int64, float64 and nil.
	Value any
	// Names are the names of all objects in it, whatever their depth.
	Names map[string]bool
}

// ParseBody reads a JSON body strictly: one value and nothing after it, in UTF-8, without
// two names of an object that are the same or differ in case alone. A number must be
// exact as an integer of 64 bits, or has a fraction or exponent.
func ParseBody(contentType string, b []byte) (*Body, error) {
	if contentType != "application/json" && !strings.HasSuffix(contentType, "+json") {
		return nil, fmt.Errorf("the body is said to be %q, and a rule reads JSON", contentType)
	}
	switch {
	case len(b) > MaxBody:
		return nil, fmt.Errorf("the body is longer than %d bytes", MaxBody)
	case !utf8.Valid(b):
		return nil, errors.New("the body is not UTF-8")
	case !json.Valid(b):
		return nil, errors.New("the body is not just one JSON value")
	}
	p := &parser{d: json.NewDecoder(bytes.NewReader(b)), names: map[string]bool{}}
	p.d.UseNumber()
	p.replaced = bytes.Contains(b, []byte("\uFFFD")) || bytes.Contains(bytes.ToLower(b), []byte(`\ufffd`))
	v, err := p.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := p.d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the body goes on after its value")
	}
	return &Body{v, p.names}, nil
}

type parser struct {
	d        *json.Decoder
	names    map[string]bool
	replaced bool // U+FFFD stands in the text itself
}

var errSurrogate = errors.New("the body has half of a surrogate pair")

func (p *parser) value(depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("the body is nested deeper than %d", maxDepth)
	}
	t, err := p.d.Token()
	if err != nil {
		return nil, errors.New("the body is not JSON")
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '{' {
			return p.object(depth)
		}
		list := []any{}
		for p.d.More() {
			v, err := p.value(depth + 1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := p.d.Token()
		return list, err
	case json.Number:
		return number(t.String())
	case string:
		return t, p.text(t)
	}
	return t, nil
}

func (p *parser) text(s string) error {
	if !p.replaced && strings.ContainsRune(s, utf8.RuneError) {
		return errSurrogate
	}
	return nil
}

func (p *parser) object(depth int) (any, error) {
	m, seen := map[string]any{}, map[string]bool{}
	for p.d.More() {
		t, err := p.d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errors.New("the body is not JSON")
		}
		if err := p.text(name); err != nil {
			return nil, err
		}
		if key := fold(name); seen[key] {
			return nil, fmt.Errorf("the body has the name %q twice in one object, in whatever case", name)
		} else {
			seen[key] = true
		}
		p.names[name] = true
		if m[name], err = p.value(depth + 1); err != nil {
			return nil, err
		}
	}
	_, err := p.d.Token()
	return m, err
}

func number(s string) (any, error) {
	if !strings.ContainsAny(s, ".eE") {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, errors.New("the body has a whole number beyond 64 bits")
		}
		return n, nil
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return nil, errors.New("the body has a number that is out of range")
	}
	return f, nil
}

// Fold is a name without its case, as loose servers compare names.
func Fold(name string) string { return fold(name) }

func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return least
	}, s)
}
