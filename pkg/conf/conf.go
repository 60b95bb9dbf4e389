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
	"time"

	"go.yaml.in/yaml/v3"
)

// Load reads path into into, a pointer to a struct with json tags, and has it check
// itself. What the file does not say keeps the value that into has.
func Load(path string, into interface{ Check() error }) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err = Parse(b, into); err == nil {
		err = into.Check()
	}
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

// Parse is Load for a text, which does not check itself. Errors name line and key.
func Parse(text []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, next yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil // it says nothing
	case err != nil:
		return err
	}
	switch err := d.Decode(&next); {
	case err == nil:
		return fmt.Errorf("line %d: a second document begins, of which nothing would be read", next.Line)
	case !errors.Is(err, io.EOF):
		return err
	}
	return set(reflect.ValueOf(into).Elem(), doc.Content[0], "")
}

// Duration is a time.Duration that is written with its unit: "90s", "15m".
type Duration time.Duration

// UnmarshalJSON reads a duration; a number without a unit is an error.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is not a duration with a unit, such as \"90s\"", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is not a duration with a unit, such as \"90s\"", s)
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
