package authz

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
)

// Change is one object before and after; nil where it is not there.
type Change struct {
	Before, After *typesv1.Object
	// Locked is whose grant a Lock stood on before; nil where it named none that is on file.
	Locked *typesv1.Subject
}

func (c Change) object() *typesv1.Object {
	if c.After != nil {
		return c.After
	}
	return c.Before
}

// World is every policy object at one instant.
type World interface {
	// Lookup finds one object; nil where there is none.
	Lookup(kind, name string) *typesv1.Object
	// All are the objects of a kind.
	All(kind string) iter.Seq[*typesv1.Object]
}

// MayWrite reports whether the caller may make the changes, which turn before into
// after; an error says why not. own tells that an admin changes what they may
// themselves use, which is for the audit log. A lock whose time is over is on nobody.
func (c *Caller) MayWrite(changes []Change, before, after World, now time.Time) (own bool, err error) {
	for _, ch := range changes {
		if c != nil && c.barred != nil && (ch.Before != nil || ch.After.GetLock() == nil) {
			return false, c.barred
		}
		if err := c.inScope(ch, after); err != nil {
			return false, err
		}
	}
	depends := make(map[string]string) // what the caller's own tasks depend on, and which task
	c.reach(before, depends)
	c.reach(after, depends)
	atOnce := c.atOnce(after)
	for _, ch := range changes {
		if err := c.selfDealing(ch, before, depends, atOnce, now); err != nil {
			if !c.Has(Admin) {
				return false, err
			}
			own = true
		}
	}
	return own, nil
}

func denied(format string, args ...any) error {
	return fault.New(codes.PermissionDenied, format, args...).WithKind("denied")
}

// inScope holds one change against the scopes of the caller's roles. One role must
// cover the object before and after, and all that it names.
func (c *Caller) inScope(ch Change, after World) error {
	o := ch.object()
	ref, role := object.Ref(o), Operator
	switch object.Kind(o) {
	case "node":
		return denied("%s is written by enrolment alone: postern nodes enrol makes one, a lock with node: %s shuts it out", ref, object.Name(o))
	case "secret", "rolebinding":
		role = Admin
	}
	if !c.HasSome(role) {
		return denied("only an %s may write %s", role, ref)
	}
	whyNot := ""
	for _, g := range c.Roles {
		if !slices.Contains(includes(role), g.Role) {
			continue
		}
		if len(g.Scope) == 0 {
			return nil
		}
		if whyNot = outOfScope(g.Scope, ch, after); whyNot == "" {
			return nil
		}
	}
	return denied("%s is out of the scope of your role: %s", ref, whyNot)
}

// outOfScope says why a role with a scope does not cover a change; empty where it does.
func outOfScope(scope map[string]string, ch Change, after World) string {
	for _, o := range []*typesv1.Object{ch.Before, ch.After} {
		if o != nil && !object.Carries(object.Meta(o).GetLabels(), scope) {
			return "it must carry the labels " + describe(scope) + " before and after"
		}
	}
	covers := func(kind string, names ...string) string {
		for _, n := range names {
			if o := after.Lookup(kind, n); n != "" && (o == nil || !object.Carries(object.Meta(o).GetLabels(), scope)) {
				return "it names " + kind + "/" + n + ", which does not carry the labels " + describe(scope)
			}
		}
		return ""
	}
	switch k := ch.object().GetKind().(type) {
	case *typesv1.Object_RoleBinding:
		return "roles are given by an admin of everything"
	case *typesv1.Object_Task:
		sel := k.Task.GetSpec().GetResources()
		if len(sel.GetNames()) == 0 && !object.Carries(sel.GetLabels(), scope) {
			return "spec.resources.labels must have " + describe(scope)
		}
		if newVault(ch) {
			return "a path in Vault cannot be scoped: ask an operator of everything to set it"
		}
		if why := covers("resource", sel.GetNames()...); why != "" {
			return why
		}
		return covers("mask", keyed(k.Task, after)...)
	case *typesv1.Object_Binding:
		return covers("task", k.Binding.GetSpec().GetTasks()...)
	case *typesv1.Object_Resource:
		if newVault(ch) {
			return "a path in Vault cannot be scoped: ask an operator of everything to set it"
		}
		s := k.Resource.GetSpec()
		return covers("secret", s.GetCredential().GetSealed(), s.GetCredential().GetOauth().GetSecret(), s.GetCatalog().GetSealed(), s.GetLevel().GetAdmin().GetSealed(), s.GetEndpoint().GetTls().GetCa().GetSecret())
	case *typesv1.Object_Mask:
		return covers("secret", k.Mask.GetSpec().GetKey().GetSecret())
	case *typesv1.Object_Lock:
		s := k.Lock.GetSpec()
		if s.GetSubject() != "" || s.GetGrant() != "" || s.GetNode() != "" {
			return "subjects, grants and nodes are locked by an operator of everything"
		}
		return covers("resource", s.GetResource()) + covers("workload", s.GetWorkload())
	}
	return ""
}

// keyed are the masks of a task that have a key, sorted: who may use one can have any value
// turned into what the key makes of it.
func keyed(t *typesv1.Task, w World) (names []string) {
	for _, p := range t.GetSpec().GetPermit() {
		for _, masks := range []map[string]string{p.GetMask(), p.GetDetect()} {
			for _, name := range masks {
				if w.Lookup("mask", name).GetMask().GetSpec().GetKey().GetSecret() != "" {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	return names
}

// newVault reports whether a change of a resource or task brings in a Vault reference
// that was not there.
func newVault(ch Change) bool {
	refs := func(o *typesv1.Object) []*typesv1.VaultRef {
		s := o.GetResource().GetSpec()
		return []*typesv1.VaultRef{
			s.GetCredential().GetVault(), s.GetCatalog().GetVault(), s.GetLevel().GetAdmin().GetVault(),
			o.GetTask().GetSpec().GetCredential().GetVault(),
		}
	}
	old := refs(ch.Before)
	return ch.After != nil && slices.ContainsFunc(refs(ch.After), func(r *typesv1.VaultRef) bool {
		return r != nil && !slices.ContainsFunc(old, func(o *typesv1.VaultRef) bool { return proto.Equal(o, r) })
	})
}

func describe(scope map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(scope)) {
		parts = append(parts, k+": "+scope[k])
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// bound yields the bindings that give the caller tasks: as themselves, or through a
// workload that they own. Conditions and expiry are not asked, for both can change.
func (c *Caller) bound(w World) iter.Seq[*typesv1.Binding] {
	return func(yield func(*typesv1.Binding) bool) {
		owned := make(map[string]bool)
		for o := range w.All("workload") {
			owned[object.Name(o)] = o.GetWorkload().GetSpec().GetOwner() == c.Subject.Name
		}
		selectors := make(map[string][]*typesv1.SubjectSelector)
		for o := range w.All("binding") {
			selectors[object.Name(o)] = o.GetBinding().GetSpec().GetSubjects()
		}
		compiled, rejected := selecting(selectors)
		mine := make(map[string]bool)
		for _, g := range compiled.Roles(c.Subject) {
			mine[g.Binding] = true
		}
		for _, r := range rejected { // cannot tell: as if it did
			mine[strings.TrimPrefix(r.Object, "rolebinding/")] = true
		}
		for o := range w.All("binding") {
			b := o.GetBinding()
			if !mine[object.Name(o)] && !slices.ContainsFunc(b.GetSpec().GetSubjects(), func(s *typesv1.SubjectSelector) bool { return owned[s.GetWorkload()] }) {
				continue
			}
			if !yield(b) {
				return
			}
		}
	}
}

// atOnce are the names of the bindings that give the caller tasks and ask nobody.
func (c *Caller) atOnce(w World) map[string]bool {
	out := make(map[string]bool)
	for b := range c.bound(w) {
		if a := b.GetSpec().GetApproval(); a.GetRule() == "" || len(a.GetVerbs()) > 0 {
			out[b.GetMetadata().GetName()] = true
		}
	}
	return out
}

// reach adds everything that the caller's own tasks depend on to into, by kind/name.
func (c *Caller) reach(w World, into map[string]string) {
	for b := range c.bound(w) {
		for _, name := range b.GetSpec().GetTasks() {
			into["task/"+name] = name
			if r := b.GetSpec().GetApproval().GetRule(); r != "" {
				into["approvalrule/"+r] = name
			}
			task := w.Lookup("task", name)
			for _, ref := range policy.Refers(task) {
				into[ref] = name
			}
			labels := task.GetTask().GetSpec().GetResources().GetLabels()
			if len(labels) == 0 {
				continue
			}
			for o := range w.All("resource") {
				if object.Carries(object.Meta(o).GetLabels(), labels) {
					into[object.Ref(o)] = name
				}
			}
		}
	}
}

// selfDealing says why a change is the caller's own affair, or nil. Taking something
// away is not: what needs it can no longer be used.
func (c *Caller) selfDealing(ch Change, before World, depends map[string]string, atOnce map[string]bool, now time.Time) error {
	ref := object.Ref(ch.object())
	if on := c.lockedOut(ch, before); on != "" && policy.Stands(ch.Before.GetLock(), now) {
		return denied("%s stands on %s: somebody else must lift it", ref, on)
	}
	if w := ch.Before.GetWorkload(); w != nil && w.GetSpec().GetOwner() == c.Subject.Name {
		for o := range before.All("lock") { // which would be another's to lift no longer
			if l := o.GetLock().GetSpec(); policy.Stands(o.GetLock(), now) && strings.EqualFold(object.Name(ch.Before), cmp.Or(l.GetWorkload(), l.GetSubject())) {
				return denied("%s stands on %s, which is yours: somebody else must write it", object.Ref(o), ref)
			}
		}
	}
	if ch.After == nil {
		return nil
	}
	if ch.After.GetBinding() != nil && atOnce[object.Name(ch.After)] {
		return denied("%s would give you a task and ask nobody: set spec.approval, or let an admin write it", ref)
	}
	if task, ok := depends[ref]; ok {
		return denied("task %q, which a binding gives you, depends on %s: somebody to whom it is not bound must write it", task, ref)
	}
	return nil
}

// lockedOut is what of the caller's the Lock of a change stood on: themselves, a workload
// of theirs, or a grant in which either has a part; empty where none.
func (c *Caller) lockedOut(ch Change, before World) string {
	theirs := func(name string) bool {
		return name != "" && (strings.EqualFold(name, c.Subject.Name) || strings.EqualFold(name, c.Subject.Workload) ||
			before.Lookup("workload", strings.ToLower(name)).GetWorkload().GetSpec().GetOwner() == c.Subject.Name)
	}
	l, holder := ch.Before.GetLock().GetSpec(), noun.SubjectOf(ch.Locked)
	name := cmp.Or(l.GetSubject(), l.GetWorkload())
	switch {
	case name != "" && (strings.EqualFold(name, c.Subject.Name) || strings.EqualFold(name, c.Subject.Workload)):
		return "you"
	case theirs(name):
		return fmt.Sprintf("workload %q, which is yours", name)
	case slices.ContainsFunc(append(holder.Actors(), holder.Name), theirs):
		return fmt.Sprintf("grant %q, which is yours", l.GetGrant())
	}
	return ""
}
