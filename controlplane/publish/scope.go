package publish

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// labelRegion is the label under which a node's region can be asked for.
const labelRegion = "region"

// scopeKey names all nodes that reach the same resources, and so get the same.
type scopeKey string

// labelsKey names all nodes that carry the same labels.
type labelsKey string

// labelsOf are the labels of a node, its region among them.
func labelsOf(labels map[string]string, region string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	if region != "" {
		out[labelRegion] = region
	}
	return out
}

// reach are the names of the resources that a node with these labels serves, sorted.
func (w *world) reach(labels map[string]string) []string {
	var names []string
	for _, it := range w.objects {
		r := it.full.GetResource()
		if r != nil && object.Carries(labels, r.GetSpec().GetReachableFrom()) {
			names = append(names, r.GetMetadata().GetName())
		}
	}
	slices.Sort(names)
	return names
}

// keyOfLabels is the same for equal labels only.
func keyOfLabels(labels map[string]string) labelsKey {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(&b, "%q=%q ", k, labels[k])
	}
	return labelsKey(b.String())
}

func keyOf(reach []string) scopeKey { return scopeKey(strings.Join(reach, " ")) }

// scope is what a node that reaches these resources is told beside locks: the
// resources, the tasks that apply to one of them, the masks and approval rules that
// those name, and the rules of the bindings that offer them.
func (w *world) scope(reach []string) []*item {
	var items []*item
	add := func(ref string) {
		if it := w.objects[ref]; it != nil {
			items = append(items, it)
		}
	}
	resources := map[string]map[string]string{} // labels by name
	for _, name := range reach {
		add("resource/" + name)
		resources[name] = w.objects["resource/"+name].full.GetResource().GetMetadata().GetLabels()
	}
	tasks, needs := map[string]bool{}, map[string]bool{}
	note := func(it *item) {
		for _, ref := range it.needs {
			needs[ref] = true
		}
	}
	for ref, it := range w.objects {
		t := it.full.GetTask()
		if t == nil || !applies(t.GetSpec().GetResources(), resources) {
			continue
		}
		items = append(items, it)
		tasks[strings.TrimPrefix(ref, "task/")] = true
		note(it)
	}
	for _, it := range w.objects {
		b := it.full.GetBinding()
		if b != nil && slices.ContainsFunc(b.GetSpec().GetTasks(), func(t string) bool { return tasks[t] }) {
			note(it)
		}
	}
	for ref := range needs {
		add(ref)
	}
	return items
}

// applies reports whether a selector picks one of the resources.
func applies(s *typesv1.ResourceSelector, resources map[string]map[string]string) bool {
	for _, name := range s.GetNames() {
		if _, ok := resources[name]; ok {
			return true
		}
	}
	if len(s.GetLabels()) == 0 {
		return false
	}
	for _, labels := range resources {
		if object.Carries(labels, s.GetLabels()) {
			return true
		}
	}
	return false
}

// rescope finds what the stream's node reaches now. Reaches keeps answers by labels.
func (h *Hub) rescope(s *stream, reaches map[labelsKey][]string) {
	switch n := h.world.node(s.name); {
	case n != nil:
		s.known = true
		s.labels = labelsOf(n.GetMetadata().GetLabels(), n.GetSpec().GetRegion())
		if n.GetSpec().GetSerial() != s.serial {
			h.superseded(s)
		}
	case s.known:
		s.end(fault.New(codes.PermissionDenied, "node %q is not enrolled any more", s.name))
	}
	by := keyOfLabels(s.labels)
	reach, ok := reaches[by]
	if !ok {
		reach = h.world.reach(s.labels)
		reaches[by] = reach
	}
	s.reach, s.scope = reach, keyOf(reach)
}
