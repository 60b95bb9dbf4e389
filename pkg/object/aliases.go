package object

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// writtenOut is how many bytes a document has with its aliases written out, or something
// above MaxBytes: each stands for all of what it names, so that a short text could fill any
// memory.
func writtenOut(doc []byte) (int, error) {
	if !bytes.ContainsRune(doc, '&') { // nothing is named
		return len(doc), nil
	}
	var root yaml.Node
	if err := yaml.Unmarshal(doc, &root); err != nil {
		return 0, fmt.Errorf("not YAML: %w", err)
	}
	return sizes{}.of(&root), nil
}

// sizes are those of nodes that were met before. One that is met within itself is too long.
type sizes map[*yaml.Node]int

func (s sizes) of(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if size, ok := s[n]; ok {
		return size
	}
	s[n] = MaxBytes + 1
	size := len(n.Value) + 1
	for _, c := range n.Content {
		size = min(size+s.of(c), MaxBytes+1)
	}
	s[n] = size
	return size
}
