package mcp

import (
	"encoding/json"
	"fmt"
	"mime"
	"strconv"
	"strings"

	"github.com/posterngate/postern/pkg/content"
)

// maskResult is a result with its masks. Their paths begin in the values that the server
// returns: the structured content of a tool, and each text, read as the type that it is
// said to have, or as JSON. What is no text is left out, for nobody can look into it, and so
// is a text that has no fields where fields are masked.
func maskResult(result map[string]any, rule *content.Rule) (map[string]any, error) {
	if result == nil || rule.Empty() {
		return result, nil
	}
	l := &lifted{rule: rule}
	rest, err := l.object(result, true)
	if err != nil {
		return nil, err
	}
	if rest, err = maskObject(rest, rule); err != nil {
		return nil, err
	}
	out, _ := l.back(rest).(map[string]any)
	return out, nil
}

// lifted takes values out of a result that are masked by themselves, and puts them back.
type lifted struct {
	rule   *content.Rule
	values []any
}

// mark begins the string that stands in the place of a value. A server that says such a
// string itself has a masked value shown once more.
const mark = "\x01"

func (l *lifted) keep(v any) string {
	l.values = append(l.values, v)
	return mark + strconv.Itoa(len(l.values)-1)
}

func (l *lifted) back(v any) any {
	switch v := v.(type) {
	case string:
		if i, err := strconv.Atoi(strings.TrimPrefix(v, mark)); strings.HasPrefix(v, mark) && err == nil && i >= 0 && i < len(l.values) {
			return l.values[i]
		}
	case map[string]any:
		for name := range v {
			v[name] = l.back(v[name])
		}
	case []any:
		for i := range v {
			v[i] = l.back(v[i])
		}
	}
	return v
}

// object is a copy of an object without what is lifted out of it.
func (l *lifted) object(o map[string]any, top bool) (map[string]any, error) {
	out := make(map[string]any, len(o))
	kind, _ := o["mimeType"].(string)
	for name, v := range o {
		text, is := v.(string)
		var err error
		switch {
		case top && name == "structuredContent":
			if v, err = maskJSON(v, l.rule); err == nil {
				out[name] = l.keep(v)
			}
		case name == "text" && is:
			out[name] = l.keep(l.text(text, kind))
		case name == "blob" && is, name == "data" && is && (kind != "" || o["type"] == "image" || o["type"] == "audio"):
			out[name] = l.keep("") // base64 of nothing
		default:
			out[name], err = l.value(v)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (l *lifted) value(v any) (any, error) {
	switch v := v.(type) {
	case map[string]any:
		return l.object(v, false)
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			var err error
			if out[i], err = l.value(item); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}

// text is a text with its masks, or a note in its place.
func (l *lifted) text(text, kind string) string {
	types := []string{"application/json", "text/plain"}
	if main, _, err := mime.ParseMediaType(kind); err == nil && main != "text/plain" {
		types = []string{kind}
	} else if t := strings.TrimSpace(text); l.rule.Fields() && !strings.HasPrefix(t, "{") && !strings.HasPrefix(t, "[") {
		types = nil // a number or string by itself is JSON too
	}
	for _, kind := range types {
		m, err := l.rule.Masker(kind)
		if err != nil {
			continue
		}
		out, err := m.Append(nil, []byte(text))
		if err == nil {
			out, err = m.Close(out)
		}
		if err == nil {
			return string(out)
		}
	}
	return "(postern: a text that is not shown, for the masks of the task cannot be kept in it)"
}

// maskObject is an object with its masks, whose paths begin in it.
func maskObject(o map[string]any, rule *content.Rule) (map[string]any, error) {
	if o == nil || rule.Empty() {
		return o, nil
	}
	v, err := maskJSON(o, rule)
	if err != nil {
		return nil, err
	}
	out, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("read what was masked: it is no object")
	}
	return out, nil
}

// maskSaid is maskObject for an error or a notice, whose data are a value of the server's own: paths
// begin in that, too.
func maskSaid(o map[string]any, rule *content.Rule) (map[string]any, error) {
	out, err := maskObject(o, rule)
	if err != nil || out["data"] == nil || rule.Empty() {
		return out, err
	}
	out["data"], err = maskJSON(out["data"], rule)
	return out, err
}

func maskJSON(v any, rule *content.Rule) (any, error) {
	text, err := encode(v)
	if err != nil {
		return nil, err
	}
	j := rule.NewJSON(false)
	out, err := j.Append(nil, text)
	if err == nil {
		out, err = j.Close(out)
	}
	if err != nil {
		return nil, err
	}
	// Names in which something was masked may have become the same: the last stays.
	d := json.NewDecoder(strings.NewReader(string(out)))
	d.UseNumber()
	var masked any
	if err := d.Decode(&masked); err != nil {
		return nil, fmt.Errorf("read what was masked: %w", err)
	}
	return masked, nil
}
