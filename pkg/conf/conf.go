// Package conf reads the YAML configuration of a process into its one commented struct.
// Keys that the struct does not have, in just that case, are errors, and durations carry
// their unit.
package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"
)

// Load reads path into into, a pointer to a struct with json tags, and checks it. What the
// file does not say keeps the value that into has. An error of a check begins with the key
// that it is about, so that its line can be told, too.
func Load(path string, into any, checks ...func() error) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	doc, err := document(b)
	if err == nil {
		err = read(doc, into)
	}
	for i := 0; err == nil && i < len(checks); i++ {
		if err = checks[i](); err != nil {
			err = place(doc, err)
		}
	}
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

// Parse is Load for a text, without checks. Errors name line and key.
func Parse(text []byte, into any) error {
	doc, err := document(text)
	if err != nil {
		return err
	}
	return read(doc, into)
}

// document is the one that a text has; nil where it says nothing.
func document(text []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, next yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, err
	}
	switch err := d.Decode(&next); {
	case err == nil:
		return nil, fmt.Errorf("line %d: a second document begins, of which nothing would be read", next.Line)
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return doc.Content[0], nil
}

func read(doc *yaml.Node, into any) error {
	if doc == nil {
		return nil
	}
	return set(reflect.ValueOf(into).Elem(), doc, "")
}

// steps are what a key consists of: names, and places in lists.
var steps = regexp.MustCompile(`^(?:\.?([A-Za-z0-9_-]+)|\[(\d+)\])`)

// Place adds the line that a document has of the key with which an error begins, or of what
// there is of it. Where there is nothing, the error stays as it is.
func Place(text []byte, err error) error {
	doc, derr := document(text)
	if derr != nil {
		return err
	}
	return place(doc, err)
}

func place(doc *yaml.Node, err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, place(doc, one))
		}
		return errors.Join(all...)
	}
	n, line := doc, 0
	for rest := err.Error(); n != nil; {
		m := steps.FindStringSubmatch(rest)
		if m == nil {
			break
		}
		var key *yaml.Node
		if key, n = child(n, m[1], m[2]); n != nil {
			line, rest = key.Line, rest[len(m[0]):]
		}
	}
	if line == 0 {
		return err
	}
	return fmt.Errorf("line %d: %w", line, err)
}

// child is what a map has of a name, or a list at a place, and where that stands; nil where it
// has nothing there.
func child(n *yaml.Node, name, place string) (key, value *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if i, err := strconv.Atoi(place); err == nil && n.Kind == yaml.SequenceNode && i < len(n.Content) {
		return n.Content[i], n.Content[i]
	}
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// Duration is a time.Duration that is written with its unit: "90s", "15m". Zero is one that was
// not written.
type Duration time.Duration

// UnmarshalJSON reads a duration; a number without a unit is an error, and so is one that is not
// above zero, for nobody who writes that means the default.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is not a duration with a unit, such as \"90s\"", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration with a unit, such as \"90s\"", s)
	}
	if v <= 0 {
		return fmt.Errorf("%q is not above zero; leave the key out for the default", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON writes a duration with its unit.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// Or is the duration, or otherwise where it was not set.
func (d Duration) Or(otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return time.Duration(d)
}

// Count is how many there may be of something. Zero is one that was not written.
type Count int64

// UnmarshalJSON reads a whole number; one that is not above zero is an error, for nobody who writes
// that means the default.
func (c *Count) UnmarshalJSON(b []byte) error {
	v, err := strconv.ParseInt(string(b), 0, 64)
	if err != nil {
		return fmt.Errorf("is %s, and a whole number is wanted", b)
	}
	if v <= 0 {
		return fmt.Errorf("%d is not above zero; leave the key out for the default", v)
	}
	*c = Count(v)
	return nil
}
