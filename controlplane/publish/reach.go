package publish

import (
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// Reaches reports whether a node serves a resource, by the node's labels and region.
func Reaches(r *typesv1.Resource, n *typesv1.Node) bool {
	return object.Carries(labelsOf(n.GetMetadata().GetLabels(), n.GetSpec().GetRegion()), r.GetSpec().GetReachableFrom())
}
