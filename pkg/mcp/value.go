package mcp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Limits of one message.
const (
	// maxMessage is the longest body or event, in bytes.
	maxMessage = 4 << 20
	// maxBatch is how many messages a batch may have.
	maxBatch = 64
	// maxDepth is how deep values may be nested.
	maxDepth = 64
)

// parseValue reads one JSON value strictly: in UTF-8, with nothing after it, and without
// two members of an object that are the same, or with fold differ in case alone, of which
// one reader takes the first and another the last. Numbers stay json.Number.
func parseValue(text []byte, fold bool) (any, error) {
	switch {
	case len(text) > maxMessage:
		return nil, fmt.Errorf("it is longer than %d bytes", maxMessage)
	case !utf8.Valid(text):
		return nil, errors.New("it is not UTF-8")
	case !json.Valid(text): // the decoder below takes more than that
		return nil, errors.New("it is not one JSON value")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := value(d, 0, fold)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows it")
	}
	return v, nil
}

func value(d *json.Decoder, depth int, fold bool) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	switch t {
	case json.Delim('['):
		out := []any{}
		for d.More() {
			v, err := value(d, depth+1, fold)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		_, err = d.Token()
		return out, err
	case json.Delim('{'):
		out, seen := map[string]any{}, map[string]bool{}
		for d.More() {
			t, err := d.Token()
			if err != nil {
				return nil, err
			}
			name, _ := t.(string)
			key := name
			if fold {
				key = strings.ToLower(strings.ToUpper(name))
			}
			if seen[key] {
				return nil, fmt.Errorf("%q stands twice in one object, or in other capitals", name)
			}
			seen[key] = true
			if out[name], err = value(d, depth+1, fold); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return out, err
	}
	return t, nil
}

// encode is a value in its one form: members sorted, no spaces, numbers as they came.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("write a message: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
