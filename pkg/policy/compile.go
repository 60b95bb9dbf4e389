package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
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
	return (&Snapshot{}).Next(v, objects)
}

// Next is Compile of what follows s. An object that s was compiled from too, known by its
// address, costs next to nothing: a change costs no more than what it changes.
func (s *Snapshot) Next(v postern.Version, objects []*typesv1.Object) (*Snapshot, []Rejection) {
	b := newBuilder(v, ruleset{
		made:      new(int),
		parts:     make(map[*typesv1.Object]*part, len(objects)),
		resources: map[postern.ResourceName]*resource{},
		tasks:     map[postern.TaskName]*task{},
		rules:     map[string]*typesv1.ApprovalRule{},
	})
	sorted := make([]*part, 0, len(objects))
	for _, o := range objects {
		p := s.parts[o]
		if p == nil {
			p = newPart(o)
		}
		if p.kind != "" {
			sorted = append(sorted, p)
		}
	}
	slices.SortStableFunc(sorted, func(a, b *part) int {
		return cmp.Or(cmp.Compare(a.order(), b.order()), strings.Compare(a.name, b.name))
	})
	for _, p := range sorted {
		p = b.add(p)
		if p.object.GetLock() == nil { // locks have a way of their own
			b.snapshot.parts[p.object] = p
		}
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
			b.add(newPart(o))
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

type builder struct {
	snapshot   *Snapshot
	masks      map[string]*postern.MaskRule
	seen       map[string]bool // by "kind/name"
	conditions conditions
	rejected   []Rejection
}

// add takes an object in, and returns what it was compiled to.
func (b *builder) add(p *part) *part {
	if !p.holds(b.masks) {
		p = b.compile(p)
	}
	s, o := b.snapshot, p.object
	if l := o.GetLock(); l != nil {
		if Aimless(l) {
			s.aimless = p.name
		}
		for _, t := range lockTargets(l.GetSpec()) {
			s.locks[t.folded()] = append(s.locks[t.folded()], l)
		}
	}
	if wrong := b.wrong(p); len(wrong) > 0 {
		b.rejected = append(b.rejected, Rejection{Object: p.ref(), Reason: fault.Invalid(wrong...).Reason})
		return p
	}
	switch compiled := p.compiled.(type) {
	case *postern.MaskRule:
		b.masks[p.name] = compiled
	case *resource:
		s.resources[postern.ResourceName(p.name)] = compiled
	case *task:
		linked := *compiled // what it reaches is this snapshot's
		linked.reach, linked.walls = map[postern.ResourceName]*resource{}, map[postern.ResourceName]*wall{}
		s.tasks[linked.name] = &linked
	case *binding:
		s.bindings = append(s.bindings, compiled)
	case *roleBinding:
		s.roles = append(s.roles, compiled)
	}
	switch k := o.GetKind().(type) {
	case *typesv1.Object_ApprovalRule:
		s.rules[p.name] = k.ApprovalRule
	case *typesv1.Object_Workload:
		s.workloads = append(s.workloads, k.Workload)
	default:
	}
	return p
}

// wrong is all that speaks against a part here: what it is itself, that there are two, or
// that what it needs is not there.
func (b *builder) wrong(p *part) []fault.Violation {
	c := &checker{found: slices.Clip(p.found)}
	if ref := p.ref(); b.seen[ref] {
		c.fail("metadata.name", "there are two of it")
	} else {
		b.seen[ref] = true
	}
	for _, r := range p.needs {
		if !b.has(r) {
			c.fail(r.field, "there is no %s %q that compiles", r.kind, r.name)
		}
	}
	return c.found
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
