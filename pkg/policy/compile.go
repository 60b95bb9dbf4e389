package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// A Rejection is an object that did not compile. Whatever needs it is denied.
type Rejection struct {
	Object string // "task/sales-report"
	Reason string // every violation, as "field: reason", joined by "; "
}

// Compile builds what is enforced at once. Objects that do not compile are rejected,
// and whatever needs them is denied; the rest applies. References to tasks, resources,
// workloads and secrets need not be there, for a node gets only its share; masks and
// approval rules must be. A lock is in force even where it is rejected. The objects
// must not be changed afterwards.
func Compile(v postern.Version, objects []*typesv1.Object) (*Snapshot, []Rejection) {
	b := newBuilder(v, ruleset{
		made:      new(int),
		resources: map[postern.ResourceName]*resource{},
		tasks:     map[postern.TaskName]*task{},
		rules:     map[string]*typesv1.ApprovalRule{},
	})
	sorted := make([]*typesv1.Object, 0, len(objects))
	for _, o := range objects {
		if object.Kind(o) != "" {
			sorted = append(sorted, o)
		}
	}
	slices.SortStableFunc(sorted, func(a, b *typesv1.Object) int {
		return cmp.Or(cmp.Compare(compileOrder(a), compileOrder(b)), strings.Compare(object.Name(a), object.Name(b)))
	})
	for _, o := range sorted {
		b.add(o)
	}
	b.link()
	return b.snapshot, b.rejected
}

// WithLocks is s as of v with these locks in the place of its own. It costs no more than
// the locks do. Objects that are no locks are ignored.
func (s *Snapshot) WithLocks(v postern.Version, locks []*typesv1.Object) (*Snapshot, []Rejection) {
	b := newBuilder(v, s.ruleset)
	for _, o := range locks {
		if o.GetLock() != nil {
			b.add(o)
		}
	}
	return b.snapshot, b.rejected
}

func newBuilder(v postern.Version, r ruleset) *builder {
	return &builder{
		snapshot: &Snapshot{version: v, ruleset: r, locks: map[lockTarget][]*typesv1.Lock{}},
		masks:    map[string]*postern.MaskRule{},
		seen:     map[string]bool{},
	}
}

// compileOrder puts what others need first.
func compileOrder(o *typesv1.Object) int {
	switch o.GetKind().(type) {
	case *typesv1.Object_Mask, *typesv1.Object_ApprovalRule:
		return 0
	default:
		return 1
	}
}

type builder struct {
	snapshot   *Snapshot
	masks      map[string]*postern.MaskRule
	seen       map[string]bool // by "kind/name"
	conditions conditions
	rejected   []Rejection
}

func (b *builder) add(o *typesv1.Object) {
	s := b.snapshot
	if l, ok := o.GetKind().(*typesv1.Object_Lock); ok {
		for _, t := range lockTargets(l.Lock.GetSpec()) {
			s.locks[t] = append(s.locks[t], l.Lock)
		}
	}
	c := &checker{conditions: &b.conditions, masks: func(name string) *postern.MaskRule { return b.masks[name] }}
	compiled := c.compile(o)
	if ref := object.Ref(o); b.seen[ref] {
		c.fail("metadata.name", "there are two of it")
	} else {
		b.seen[ref] = true
	}
	for _, r := range references(o) {
		if !b.has(r) {
			c.fail(r.field, "there is no %s %q that compiles", r.kind, r.name)
		}
	}
	if len(c.found) > 0 {
		b.rejected = append(b.rejected, Rejection{Object: object.Ref(o), Reason: fault.Invalid(c.found...).Reason})
		return
	}
	name := object.Name(o)
	switch compiled := compiled.(type) {
	case *postern.MaskRule:
		b.masks[name] = compiled
	case *resource:
		s.resources[postern.ResourceName(name)] = compiled
	case *task:
		s.tasks[compiled.name] = compiled
	case *binding:
		s.bindings = append(s.bindings, compiled)
	case *roleBinding:
		s.roles = append(s.roles, compiled)
	}
	switch k := o.GetKind().(type) {
	case *typesv1.Object_ApprovalRule:
		s.rules[name] = k.ApprovalRule
	case *typesv1.Object_Workload:
		s.workloads = append(s.workloads, k.Workload)
	default:
	}
}

// has reports whether a reference that must be met is met.
func (b *builder) has(r reference) bool {
	switch r.kind {
	case "mask":
		return b.masks[r.name] != nil
	case "approvalrule":
		return b.snapshot.rules[r.name] != nil
	}
	return true
}

// link lets every task reach its resources.
func (b *builder) link() {
	for _, name := range slices.Sorted(maps.Keys(b.snapshot.tasks)) {
		t := b.snapshot.tasks[name]
		if len(t.labels) == 0 {
			for _, n := range t.names {
				if r := b.snapshot.resources[n]; r != nil && t.speaks(r.object) {
					b.reach(t, n, r)
				}
			}
			continue
		}
		for _, n := range slices.Sorted(maps.Keys(b.snapshot.resources)) {
			if r := b.snapshot.resources[n]; t.reaches(r.object) && t.speaks(r.object) {
				b.reach(t, n, r)
			}
		}
	}
}

// reach lets a task reach a resource, unless that is at level native and the task asks
// for what that cannot hold.
func (b *builder) reach(t *task, n postern.ResourceName, r *resource) {
	if r.level == postern.LevelNative && t.unrestricted == nil {
		if v := t.unfit(n); len(v) > 0 {
			b.rejected = append(b.rejected, Rejection{Object: "task/" + string(t.name), Reason: fault.Invalid(v...).Reason})
			return
		}
		t.walls[n] = newWall(t, n)
	}
	t.reach[n] = r
}
