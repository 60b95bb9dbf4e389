package policy

import (
	"maps"
	"slices"

	"github.com/posterngate/postern/pkg/postern"
)

// Resources are the names of the resources that compiled without error, sorted.
func (s *Snapshot) Resources() []postern.ResourceName {
	return slices.Sorted(maps.Keys(s.resources))
}
