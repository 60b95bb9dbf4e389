package policy

import (
	"fmt"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// Validate checks one object on write; the result is empty where it may be stored.
// References resolve through lookup, which takes a kind in lower case and returns nil
// for what is absent. Rules that could never fire are violations too.
func Validate(o *typesv1.Object, lookup func(kind, name string) *typesv1.Object) []fault.Violation {
	conds := &conditions{}
	c := &checker{conditions: conds, masks: func(name string) *postern.MaskRule {
		m := lookup("mask", name).GetMask()
		if m == nil {
			return nil
		}
		return (&checker{conditions: conds}).mask(m)
	}}
	compiled := c.compile(o)
	for _, r := range references(o) {
		if r.name == "" || lookup(r.kind, r.name) == nil {
			c.fail(r.field, "there is no %s %q", r.kind, r.name)
		}
	}
	if b := o.GetBinding(); b != nil {
		c.bindingAgainstTasks(b, lookup)
	}
	if t := o.GetTask(); t != nil {
		c.rowsAgainstLevels(t, lookup)
	}
	if t, ok := compiled.(*task); ok && t.unrestricted == nil {
		for _, n := range t.names {
			r := lookup("resource", string(n)).GetResource().GetSpec()
			if r.GetLevel().GetWant() == "native" {
				c.found = append(c.found, t.unfit(n)...)
			}
			if r.GetProtocol() == string(postern.Postgres) && r.GetCatalog() == nil {
				c.fail("spec.resources.names", "resource %q has no spec.catalog, the credential with which nodes read its names: without it no statement of this task can be judged", n)
			}
		}
	}
	return c.found
}

// rowsAgainstLevels refuses filters of rows where a resource that the task names is kept
// at level result. One that changes later, or is selected by label, denies what reads
// the table.
func (c *checker) rowsAgainstLevels(t *typesv1.Task, lookup func(kind, name string) *typesv1.Object) {
	for i, p := range t.GetSpec().GetPermit() {
		for _, name := range t.GetSpec().GetResources().GetNames() {
			r := lookup("resource", name).GetResource()
			if p.GetRows() != "" && r.GetSpec().GetLevel().GetWant() == "result" {
				c.fail(fmt.Sprintf("spec.permit[%d].rows", i), "needs level source, and resource %q is at level result", name)
			}
		}
	}
}

// bindingAgainstTasks refuses a binding that asks another rule about a statement than
// its task does.
func (c *checker) bindingAgainstTasks(b *typesv1.Binding, lookup func(kind, name string) *typesv1.Object) {
	ours := b.GetSpec().GetApproval()
	if ours == nil || ours.GetScope() == string(postern.ScopeGrant) {
		return
	}
	for _, name := range b.GetSpec().GetTasks() {
		t := lookup("task", name).GetTask().GetSpec()
		theirs := []*typesv1.ApprovalRequirement{t.GetApproval()}
		for _, p := range t.GetPermit() {
			theirs = append(theirs, p.GetApproval())
		}
		for _, a := range theirs {
			if a != nil && a.GetScope() == ours.GetScope() && a.GetRule() != ours.GetRule() {
				c.fail("spec.approval.rule", "asks %q while task %q asks %q: one %s is put to one rule", ours.GetRule(), name, a.GetRule(), ours.GetScope())
				break
			}
		}
	}
}
