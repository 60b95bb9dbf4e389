package conf

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// set gives v the value of a node, which is at a key. What is null keeps the value that v has.
// The library's own decoder takes numbers for texts even where it knows all fields, and names no key.
func set(v reflect.Value, n *yaml.Node, key string) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Tag == "!!null" {
		return nil
	}
	if u, ok := v.Addr().Interface().(json.Unmarshaler); ok {
		return setOwn(u, n, key)
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return set(v.Elem(), n, key)
	case reflect.Struct:
		return setStruct(v, n, key)
	case reflect.Map:
		return setMap(v, n, key)
	case reflect.Slice:
		return setSlice(v, n, key)
	case reflect.String:
		return setText(v, n, key)
	default:
		fraction := n.Tag == "!!float" && v.CanInt() // which Decode would cut
		if n.Kind != yaml.ScalarNode || fraction || n.Decode(v.Addr().Interface()) != nil {
			return wrong(n, key, "is %s, and %s is wanted", what(n), names[v.Kind()])
		}
		return nil
	}
}

// names are what people call the kinds of values.
var names = map[reflect.Kind]string{reflect.Bool: "true or false", reflect.Int: "a whole number", reflect.Int64: "a whole number", reflect.Float64: "a number"}

// wrong is an error about a node.
func wrong(n *yaml.Node, key, format string, args ...any) error {
	if key != "" {
		key += ": "
	}
	return fmt.Errorf("line %d: %s%s", n.Line, key, fmt.Sprintf(format, args...))
}

func what(n *yaml.Node) string {
	if n.Kind == yaml.MappingNode {
		return "a map"
	}
	if n.Kind == yaml.SequenceNode {
		return "a list"
	}
	return strconv.Quote(n.Value)
}

// setOwn is for types that read themselves, of a text or of what is none.
func setOwn(u json.Unmarshaler, n *yaml.Node, key string) error {
	text := []byte(n.Value)
	if n.Kind != yaml.ScalarNode {
		text = []byte(what(n))
	} else if n.Tag == "!!str" {
		text, _ = json.Marshal(n.Value) // a text always has a form
	}
	if err := u.UnmarshalJSON(text); err != nil {
		return wrong(n, key, "%s", err)
	}
	return nil
}

func setStruct(v reflect.Value, n *yaml.Node, key string) error {
	if n.Kind != yaml.MappingNode {
		return wrong(n, key, "is %s, and keys with values are wanted", what(n))
	}
	return pairs(n, key, func(name string, at, value *yaml.Node) error {
		var known []string
		for i := range v.NumField() {
			tag, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
			if tag == name {
				return set(v.Field(i), value, below(key, name))
			}
			known = append(known, tag)
		}
		return wrong(at, below(key, name), "there is no such key; there are %s", strings.Join(known, ", "))
	})
}

func setMap(v reflect.Value, n *yaml.Node, key string) error {
	if n.Kind != yaml.MappingNode {
		return wrong(n, key, "is %s, and names with values are wanted", what(n))
	}
	v.Set(reflect.MakeMap(v.Type()))
	return pairs(n, key, func(name string, _, value *yaml.Node) error {
		one := reflect.New(v.Type().Elem()).Elem()
		if err := set(one, value, below(key, name)); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), one)
		return nil
	})
}

// pairs calls do with each key of a map and its value.
func pairs(n *yaml.Node, key string, do func(name string, at, value *yaml.Node) error) error {
	var seen []string
	for i := 0; i < len(n.Content); i += 2 {
		at, value := n.Content[i], n.Content[i+1]
		if at.Kind != yaml.ScalarNode {
			return wrong(at, key, "has %s for a key", what(at))
		}
		if slices.Contains(seen, at.Value) {
			return wrong(at, below(key, at.Value), "is there twice")
		}
		seen = append(seen, at.Value)
		if err := do(at.Value, at, value); err != nil {
			return err
		}
	}
	return nil
}

func below(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

func setSlice(v reflect.Value, n *yaml.Node, key string) error {
	if n.Kind != yaml.SequenceNode {
		return wrong(n, key, "is %s, and a list is wanted", what(n))
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, one := range n.Content {
		if err := set(v.Index(i), one, fmt.Sprintf("%s[%d]", key, i)); err != nil {
			return err
		}
	}
	return nil
}

// truths are texts that older YAML reads as true or false. A node must not be called "false".
var truths = []string{"y", "yes", "on", "n", "no", "off"}

func setText(v reflect.Value, n *yaml.Node, key string) error {
	plain := n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	switch {
	case n.Kind != yaml.ScalarNode:
		return wrong(n, key, "is %s, and a text is wanted", what(n))
	case n.Tag == "!!bool" || plain && slices.Contains(truths, strings.ToLower(n.Value)):
		return wrong(n, key, "%s is read as true or false; put it in quotes", n.Value)
	case n.Tag != "!!str":
		return wrong(n, key, "%s is read as something else than a text; put it in quotes", n.Value)
	}
	v.SetString(n.Value)
	return nil
}
