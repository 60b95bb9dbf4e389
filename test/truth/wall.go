package truth

import (
	"fmt"

	"sigs.k8s.io/yaml"

	"github.com/posterngate/postern/test/twoworlds"
)

// Unheld are the entries that a wall alone does not hold, by id, each with the reason: no
// privilege of the target expresses it, and the gateway keeps it.
func Unheld() (map[string]string, error) {
	b, err := files.ReadFile("testdata/wall.yaml")
	if err != nil {
		return nil, err
	}
	var list []struct {
		Why string
		IDs []string
	}
	if err := yaml.UnmarshalStrict(b, &list); err != nil {
		return nil, fmt.Errorf("wall.yaml: %w", err)
	}
	out := map[string]string{}
	for _, l := range list {
		for _, id := range l.IDs {
			if l.Why == "" || out[id] != "" {
				return nil, fmt.Errorf("wall.yaml: %s needs one reason", id)
			}
			out[id] = l.Why
		}
	}
	return out, nil
}

// Alone reports whether an entry can be asked of a wall with nobody in front: what it
// says of a node's protocol, and bounds that a node keeps, cannot.
func (e *Entry) Alone(l twoworlds.Level) bool {
	return l != twoworlds.Wall || e.Want != Bounded && !e.Segment
}
