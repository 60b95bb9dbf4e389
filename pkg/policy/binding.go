package policy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
)

// A binding is compiled.
type binding struct {
	name     string
	subjects []*typesv1.SubjectSelector
	tasks    []postern.TaskName
	when     *condition
	approval *postern.Approval
	expires  time.Time // zero means never
	bound    *typesv1.GrantBound
}

// A roleBinding is compiled.
type roleBinding struct {
	subjects []*typesv1.SubjectSelector
	grant    RoleGrant
}

func (c *checker) binding(o *typesv1.Binding) *binding {
	s := o.GetSpec()
	b := &binding{name: o.GetMetadata().GetName(), subjects: s.GetSubjects()}
	c.subjects(s.GetSubjects())
	if len(s.GetTasks()) == 0 {
		c.fail("spec.tasks", "is required: the names of the tasks that may be taken")
	}
	for i, t := range s.GetTasks() {
		if err := object.CheckName(t); err != nil {
			c.fail(fmt.Sprintf("spec.tasks[%d]", i), "%s", err)
		}
		b.tasks = append(b.tasks, postern.TaskName(t))
	}
	c.unique("spec.tasks", s.GetTasks())
	b.when = c.condition("spec.when", s.GetWhen(), onBinding)
	b.approval = c.approval("spec.approval", s.GetApproval(), string(postern.ScopeGrant), string(postern.ScopeSession), string(postern.ScopeStatement))
	if s.GetExpires() != nil {
		if err := s.GetExpires().CheckValid(); err != nil {
			c.fail("spec.expires", "is not a time: %s", err)
		}
		b.expires = s.GetExpires().AsTime()
	}
	if s.GetBound() != nil {
		b.bound = s.GetBound()
		if err := object.CheckName(b.bound.GetHook()); err != nil {
			c.fail("spec.bound.hook", "is required, the name of a hook of the control plane: %s", err)
		}
		c.text("spec.bound.claim", b.bound.GetClaim())
	}
	return b
}

func (c *checker) roleBinding(o *typesv1.RoleBinding) *roleBinding {
	s := o.GetSpec()
	role := c.oneOf("spec.role", s.GetRole(), "", "viewer", "operator", "auditor", "rawreader", "admin")
	c.subjects(s.GetSubjects())
	c.labels("spec.scope.labels", s.GetScope().GetLabels())
	if s.GetScope() != nil && len(s.GetScope().GetLabels()) == 0 {
		c.fail("spec.scope.labels", "is required in a scope; leave the scope out for all objects")
	}
	return &roleBinding{
		subjects: s.GetSubjects(),
		grant:    RoleGrant{Role: role, Scope: maps.Clone(s.GetScope().GetLabels()), Binding: o.GetMetadata().GetName()},
	}
}

func (c *checker) subjects(all []*typesv1.SubjectSelector) {
	if len(all) == 0 {
		c.fail("spec.subjects", "is required: a binding without subjects is nobody's")
	}
	c.selectors("spec.subjects", all)
}

func (c *checker) selectors(field string, all []*typesv1.SubjectSelector) {
	for i, s := range all {
		at := fmt.Sprintf("%s[%d]", field, i)
		if s.GetSubject() == "" && s.GetGroup() == "" && s.GetWorkload() == "" && len(s.GetClaim()) == 0 {
			c.fail(at, "matches nobody: give subject, group, claim or workload")
		}
		for _, k := range slices.Sorted(maps.Keys(s.GetClaim())) {
			if k == "" || s.GetClaim()[k] == "" {
				c.fail(at+".claim", "needs a name and a value")
			}
		}
	}
}

// BindingExpires is when a binding expires; zero for one that never does, or that is not there.
func (s *Snapshot) BindingExpires(name string) time.Time {
	i, ok := slices.BinarySearchFunc(s.bindings, name, func(b *binding, n string) int { return strings.Compare(b.name, n) })
	if !ok {
		return time.Time{}
	}
	return s.bindings[i].expires
}

// matches reports whether any selector picks the subject.
func matches(selectors []*typesv1.SubjectSelector, sub *postern.Subject) bool {
	return slices.ContainsFunc(selectors, func(s *typesv1.SubjectSelector) bool { return matchesOne(s, sub) })
}

// ActsFor reports whether a workload may act for a subject whose token it was given.
func ActsFor(w *typesv1.Workload, sub *postern.Subject) bool {
	return matches(w.GetSpec().GetActsFor(), sub)
}

// MayPick reports whether any selector picks a subject whose claims are not known: each
// claim that is asked for counts as if the subject had it.
func MayPick(selectors []*typesv1.SubjectSelector, sub *postern.Subject) bool {
	return slices.ContainsFunc(selectors, func(s *typesv1.SubjectSelector) bool {
		if len(s.GetClaim()) > 0 {
			s = proto.CloneOf(s)
			s.Claim = nil
			if s.GetSubject() == "" && s.GetGroup() == "" && s.GetWorkload() == "" {
				return sub.Name != "" && sub.Workload == ""
			}
		}
		return matchesOne(s, sub)
	})
}

// matchesOne reports whether every field that is set matches. A workload is picked by
// its name alone or more narrowly: the groups that the issuer of its token may write
// must not make it a member of a group of people.
func matchesOne(s *typesv1.SubjectSelector, sub *postern.Subject) bool {
	if sub.Name == "" || s.GetWorkload() != sub.Workload {
		return false
	}
	if s.GetSubject() == "" && s.GetGroup() == "" && s.GetWorkload() == "" && len(s.GetClaim()) == 0 {
		return false
	}
	if s.GetSubject() != "" && s.GetSubject() != sub.Name {
		return false
	}
	if s.GetGroup() != "" && !slices.Contains(sub.Groups, s.GetGroup()) {
		return false
	}
	for k, want := range s.GetClaim() {
		if got, ok := claimText(sub.Claims[k]); !ok || got != want {
			return false
		}
	}
	return true
}

// claimText is the text of a claim that is a text or a boolean; nothing else is
// compared, for it has more than one spelling.
func claimText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	}
	return "", false
}

// Roles lists the roles that a subject has, by the names of their bindings.
func (s *Snapshot) Roles(sub postern.Subject) []RoleGrant {
	var out []RoleGrant
	for _, b := range s.roles {
		if matches(b.subjects, &sub) {
			out = append(out, RoleGrant{Role: b.grant.Role, Scope: maps.Clone(b.grant.Scope), Binding: b.grant.Binding})
		}
	}
	return out
}

// MatchWorkload reports whether a verified token is a workload's own: its issuer, one
// of its audiences, and the workload's condition over its claims. An error means no,
// and is for operators: the condition does not compile or failed on these claims.
// Expiry is for the caller, who has the clock.
func MatchWorkload(w *typesv1.Workload, issuer string, audience []string, claims map[string]any) (bool, error) {
	trust := w.GetSpec().GetTrust()
	if trust.GetIssuer() == "" || trust.GetAudience() == "" || trust.GetIssuer() != issuer || !slices.Contains(audience, trust.GetAudience()) {
		return false, nil
	}
	when, err := new(conditions).compile(trust.GetWhen(), onWorkload)
	if err != nil {
		return false, fmt.Errorf("workload %q: %w", w.GetMetadata().GetName(), err)
	}
	if !when.reads["claims"] {
		return false, fmt.Errorf("workload %q: condition reads no claims", w.GetMetadata().GetName())
	}
	ok, err := when.holds(&variables{claims: claims})
	if err != nil {
		return false, fmt.Errorf("workload %q: condition: %w", w.GetMetadata().GetName(), err)
	}
	return ok, nil
}
