package content

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/posterngate/postern/pkg/mask"
)

// A node is a place in JSON at which paths part.
type node struct {
	children map[string]*node // by folded name or index
	any      *node            // "*"
	mask     *mask.Writer     // of the value here; nil leaves it
}

func (n *node) add(names []string, w *mask.Writer) {
	for _, name := range names {
		if name == "*" {
			if n.any == nil {
				n.any = &node{}
			}
			n = n.any
			continue
		}
		if n.children == nil {
			n.children = map[string]*node{}
		}
		if n.children[name] == nil {
			n.children[name] = &node{}
		}
		n = n.children[name]
	}
	n.mask = w
}

// below appends the nodes of a child, by its folded name or index.
func (n *node) below(dst []*node, name []byte) []*node {
	if c := n.children[string(name)]; c != nil {
		dst = append(dst, c)
	}
	if n.any != nil {
		dst = append(dst, n.any)
	}
	return dst
}

const maxPath = 1024

// CheckPath says what is wrong with the path of a field: a JSON pointer (RFC 6901) in
// which "*" stands for any name or index, or the name of a field of CSV or a form, which in
// JSON is a member of that name anywhere, and beside a body a header. A pointer leads nowhere in CSV or a form, which are
// not shown then. Names are the same in capitals and small letters.
func CheckPath(path string) error {
	_, err := split(path)
	return err
}

// split is a path as its names, folded.
func split(path string) ([]string, error) {
	switch {
	case path == "" || path == "/":
		return nil, errors.New("a path is empty")
	case len(path) > maxPath || strings.Count(path, "/") > MaxDepth:
		return nil, fmt.Errorf("a path is longer than %d characters or deeper than %d", maxPath, MaxDepth)
	case !utf8.ValidString(path):
		return nil, fmt.Errorf("path %q is not UTF-8", path)
	case !strings.HasPrefix(path, "/"):
		if path == "*" {
			return nil, errors.New(`"*" alone is no name of a field`)
		}
		return []string{fold(path)}, nil
	}
	names := strings.Split(path[1:], "/")
	for i, name := range names {
		rest := strings.NewReplacer("~0", "", "~1", "").Replace(name)
		if strings.Contains(rest, "~") {
			return nil, fmt.Errorf("path %q: ~ stands only in ~0, for itself, and ~1, for a slash", path)
		}
		names[i] = fold(strings.NewReplacer("~0", "~", "~1", "/").Replace(name))
	}
	return names, nil
}

// fold is a name in which letters that readers take for one another are the same.
func fold(name string) string {
	return strings.ToLower(strings.ToUpper(name))
}
