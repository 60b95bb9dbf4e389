package policy

import (
	"fmt"
	"maps"
	"slices"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// A reference is a name that an object gives of another.
type reference struct{ field, kind, name string }

// references lists every object that o needs, in the order of its fields. Locks need
// nothing: they stand on a name, whether it is there or not.
func references(o *typesv1.Object) []reference {
	var out []reference
	add := func(kind, name, field string, args ...any) {
		if name != "" {
			out = append(out, reference{fmt.Sprintf(field, args...), kind, name})
		}
	}
	switch k := o.GetKind().(type) {
	case *typesv1.Object_Resource:
		s := k.Resource.GetSpec()
		add("secret", s.GetEndpoint().GetTls().GetCa().GetSecret(), "spec.endpoint.tls.ca.secret")
		add("secret", s.GetCredential().GetSealed(), "spec.credential.sealed")
		add("secret", s.GetCredential().GetOauth().GetSecret(), "spec.credential.oauth.secret")
		add("secret", s.GetCatalog().GetSealed(), "spec.catalog.sealed")
		add("secret", s.GetLevel().GetAdmin().GetSealed(), "spec.level.admin.sealed")
	case *typesv1.Object_Task:
		s := k.Task.GetSpec()
		for i, n := range s.GetResources().GetNames() {
			add("resource", n, "spec.resources.names[%d]", i)
		}
		for i, p := range s.GetPermit() {
			for _, column := range slices.Sorted(maps.Keys(p.GetMask())) {
				out = append(out, reference{fmt.Sprintf("spec.permit[%d].mask.%s", i, column), "mask", p.GetMask()[column]})
			}
			for _, kind := range slices.Sorted(maps.Keys(p.GetDetect())) {
				out = append(out, reference{fmt.Sprintf("spec.permit[%d].detect.%s", i, kind), "mask", p.GetDetect()[kind]})
			}
			add("approvalrule", p.GetMcp().GetReview(), "spec.permit[%d].mcp.review", i)
			add("approvalrule", p.GetApproval().GetRule(), "spec.permit[%d].approval.rule", i)
		}
		add("approvalrule", s.GetApproval().GetRule(), "spec.approval.rule")
	case *typesv1.Object_Binding:
		s := k.Binding.GetSpec()
		for i, sel := range s.GetSubjects() {
			add("workload", sel.GetWorkload(), "spec.subjects[%d].workload", i)
		}
		for i, n := range s.GetTasks() {
			add("task", n, "spec.tasks[%d]", i)
		}
		add("approvalrule", s.GetApproval().GetRule(), "spec.approval.rule")
	case *typesv1.Object_RoleBinding:
		for i, sel := range k.RoleBinding.GetSpec().GetSubjects() {
			add("workload", sel.GetWorkload(), "spec.subjects[%d].workload", i)
		}
	case *typesv1.Object_Mask:
		add("secret", k.Mask.GetSpec().GetKey().GetSecret(), "spec.key.secret")
	default:
	}
	return out
}

// Refers lists the objects that o needs, as "kind/name", in the order of its fields; what
// several fields name is there several times.
func Refers(o *typesv1.Object) []string {
	var out []string
	for _, r := range references(o) {
		out = append(out, r.kind+"/"+r.name)
	}
	return out
}

// Referrers lists the objects among all that refer to kind and name, as "kind/name",
// sorted; what is referred to is not deleted. A lock is no referrer, so that what is
// locked can be removed and stays locked.
func Referrers(kind, name string, all []*typesv1.Object) []string {
	var out []string
	for _, o := range all {
		if slices.ContainsFunc(references(o), func(r reference) bool { return r.kind == kind && r.name == name }) {
			out = append(out, object.Ref(o))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
