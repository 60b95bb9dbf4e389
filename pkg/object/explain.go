package object

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// where is the place in the JSON, which has no lines, of what protojson complains about.
var where = regexp.MustCompile(`^\(line 1:(\d+)\): `)

// explain makes protojson's error about a message's JSON readable: the field's path in
// the place of an offset that nobody sees, and what fields there are. Its spaces are
// random, so that nobody compares them.
func explain(err error, js []byte, d protoreflect.MessageDescriptor) string {
	text := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	text = strings.TrimSpace(strings.TrimPrefix(text, "proto:"))
	if strings.Contains(text, "invalid value for string field") {
		text += " (put quotes around texts such as on, off, yes, no, and around numbers)"
	}
	m := where.FindStringSubmatch(text)
	if m == nil {
		return text
	}
	column, _ := strconv.Atoi(m[1]) // digits
	steps := stepsTo(js, column)
	text = text[len(m[0]):]
	if strings.HasPrefix(text, "unknown field ") && len(steps) > 0 {
		if names := fieldsOf(d, steps[:len(steps)-1]); len(names) > 0 {
			text += "; there are " + strings.Join(names, ", ")
		}
	}
	return path(steps) + ": " + text
}

// A step leads from a value into one that it holds: by name, or by place in a list.
type step struct {
	name  string
	index int
	list  bool
}

func path(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		switch {
		case s.list:
			fmt.Fprintf(&b, "[%d]", s.index)
		case b.Len() > 0:
			b.WriteString("." + s.name)
		default:
			b.WriteString(s.name)
		}
	}
	return b.String()
}

// stepsTo leads to the name or value at a column, counted in characters from 1.
func stepsTo(js []byte, column int) []step {
	at := int64(0)
	for range column - 1 {
		_, n := utf8.DecodeRune(js[at:])
		at += int64(n)
	}
	var steps []step // each but the last is into something that is open
	named := false   // the last step has its name, and its value is next
	dec := json.NewDecoder(bytes.NewReader(js))
	for {
		token, err := dec.Token()
		if err != nil {
			return nil
		}
		delim, _ := token.(json.Delim)
		last := len(steps) - 1
		switch name, text := token.(string); {
		case delim == '}' || delim == ']':
			steps = steps[:last]
		case last >= 0 && steps[last].list:
			steps[last].index++
		case last >= 0 && !named && text:
			steps[last].name, named = name, true
			if dec.InputOffset() > at {
				return steps
			}
			continue
		}
		named = false
		if dec.InputOffset() > at {
			return steps
		}
		switch delim {
		case '{':
			steps = append(steps, step{})
		case '[':
			steps = append(steps, step{list: true, index: -1})
		}
	}
}

// fieldsOf are the names of the fields of the message to which steps lead.
func fieldsOf(d protoreflect.MessageDescriptor, steps []step) []string {
	for _, s := range steps {
		if s.list {
			continue
		}
		f := d.Fields().ByJSONName(s.name)
		if f == nil || f.IsMap() || f.Message() == nil {
			return nil
		}
		d = f.Message()
	}
	var names []string
	for i := range d.Fields().Len() {
		names = append(names, d.Fields().Get(i).JSONName())
	}
	return names
}
