package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// An Access is one way to do something: a binding gives a task, and a permit of it allows.
type Access struct {
	Binding  string
	Subjects []string // whom the binding picks, such as "group analysts"
	Task     postern.TaskName
	Right    Right
	Terms    []string  // of the binding, for people; none is at once
	Expires  time.Time // of the binding; zero means never
}

// WhoCan lists every way to do what the target says, in order of bindings and tasks. It
// is exact in what data is reached; what else must be so stands in the terms as text, for
// who somebody is and when they ask is not known here. Two lists of the same task are two
// permits. Whoever a lock keeps out is told of in notes.
func (s *Snapshot) WhoCan(t *Target, now time.Time) (all []Access, notes []string) {
	if l, _ := s.locked(&postern.Subject{}, "", t.Resource, "", now); l != nil {
		return nil, []string{fmt.Sprintf("resource %s is locked by %s: nobody can", t.Resource, l.GetMetadata().GetName())}
	}
	rights := map[postern.TaskName][]Right{}
	for name, task := range s.tasks {
		if task.reach[t.Resource] != nil {
			rights[name] = s.covering(task, t)
		}
	}
	for _, b := range s.bindings {
		if !b.expires.IsZero() && !now.Before(b.expires) {
			continue
		}
		who, out := s.who(b.subjects, now)
		for _, name := range slices.Compact(slices.Sorted(slices.Values(b.tasks))) {
			if len(rights[name]) == 0 {
				continue
			}
			notes = append(notes, out...)
			if len(who) == 0 {
				continue
			}
			for _, r := range rights[name] {
				all = append(all, Access{Binding: b.name, Subjects: who, Task: name, Right: r, Terms: s.bindingTerms(b, &r), Expires: b.expires})
			}
		}
	}
	slices.Sort(notes)
	return all, slices.Compact(notes)
}

// covering are the rights of a task to the target: those after one without terms are
// never reached. Rights to several columns of one table are one where none is asked for.
func (s *Snapshot) covering(task *task, t *Target) []Right {
	var out []Right
	masks := map[string][]string{} // by rule
	for _, r := range s.rights(task) {
		if !r.covers(t) {
			continue
		}
		if t.Column == "" && r.Column != "" {
			if r.Mask != "" {
				masks[r.Rule] = append(masks[r.Rule], r.Column+": "+r.Mask)
			}
			if n := len(out); n > 0 && out[n-1].Rule == r.Rule {
				continue
			}
			r.Column, r.Mask = "", ""
		}
		out = append(out, r)
	}
	for i := range out {
		if len(masks[out[i].Rule]) > 0 {
			out[i].Mask = strings.Join(masks[out[i].Rule], ", ")
		}
	}
	for i, r := range out {
		if r.permit.always() {
			return out[:i+1]
		}
	}
	return out
}

// who says whom selectors pick, and whom a lock or the end of a workload keeps out.
func (s *Snapshot) who(selectors []*typesv1.SubjectSelector, now time.Time) (who, notes []string) {
	for _, sel := range selectors {
		text := SelectorText(sel)
		if l, _ := s.locked(&postern.Subject{Name: sel.GetSubject(), Workload: sel.GetWorkload()}, "", "", "", now); l != nil {
			notes = append(notes, fmt.Sprintf("%s is locked by %s", text, l.GetMetadata().GetName()))
			continue
		}
		if name := sel.GetWorkload(); name != "" {
			i := slices.IndexFunc(s.workloads, func(w *typesv1.Workload) bool { return w.GetMetadata().GetName() == name })
			if i < 0 || !now.Before(s.workloads[i].GetSpec().GetExpires().AsTime()) {
				notes = append(notes, text+" is over or not there")
				continue
			}
		}
		who = append(who, text)
	}
	return who, notes
}

// SelectorText is whom a selector picks, for people.
func SelectorText(s *typesv1.SubjectSelector) string {
	var parts []string
	add := func(kind, name string) {
		if name != "" {
			parts = append(parts, kind+" "+name)
		}
	}
	add("subject", s.GetSubject())
	add("group", s.GetGroup())
	add("workload", s.GetWorkload())
	for _, k := range slices.Sorted(maps.Keys(s.GetClaim())) {
		add("claim", k+"="+s.GetClaim()[k])
	}
	if len(parts) == 0 {
		return "nobody"
	}
	return strings.Join(parts, " and ")
}

// bindingTerms says on what terms a binding gives a right.
func (s *Snapshot) bindingTerms(b *binding, r *Right) []string {
	var out []string
	if b.when != nil {
		out = append(out, "when "+b.when.source)
	}
	if asksFor(b.approval, r.permit, r.Verb) {
		out = append(out, s.ApprovalText(b.approval))
	}
	switch claim := b.bound.GetClaim(); {
	case claim != "":
		out = append(out, fmt.Sprintf("until the job that claim %s names ends, as hook %s says", claim, b.bound.GetHook()))
	case b.bound != nil:
		out = append(out, fmt.Sprintf("until the ticket is closed that the reason names, as hook %s says", b.bound.GetHook()))
	}
	return out
}
