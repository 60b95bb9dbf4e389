package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/hole"
)

// maxSlots bounds how many people a rule can ask for in all.
const maxSlots = 64

var ticket = regexp.MustCompile(`\b[A-Z][A-Z0-9]+-[0-9]+\b|#[0-9]+\b`)

// Ticket is the first ticket that a reason names, such as OPS-123 or #42, or empty.
func Ticket(reason string) string { return ticket.FindString(reason) }

// Lacks says, of a reason, what a rule requires that it does not give; nothing where it
// gives all.
func Lacks(rule *typesv1.ApprovalRule, reason string) string {
	name := rule.GetMetadata().GetName()
	for _, need := range rule.GetSpec().GetRequire() {
		switch {
		case need == "reason" && strings.TrimSpace(reason) == "":
			return fmt.Sprintf("is required by the approval rule %q", name)
		case need == "ticket" && Ticket(reason) == "":
			return fmt.Sprintf("must name a ticket, such as OPS-123: the approval rule %q requires one", name)
		case need != "reason" && need != "ticket":
			return fmt.Sprintf("cannot give the %q that the approval rule %q requires", need, name)
		}
	}
	return ""
}

// Unmet says what a rule asks for that h does not have, in its reason or its answers;
// nothing where a yes to it stands. Who tightens a rule means what was answered before
// that as well.
func Unmet(rule *typesv1.ApprovalRule, h *typesv1.Hold) string {
	lacking := Lacks(rule, h.GetReason())
	switch {
	case hole.Is("approve-tightened"):
	case lacking != "":
		return "its reason " + lacking
	case !Met(rule.GetSpec(), h.GetApprovals()):
		return fmt.Sprintf("the approval rule %q asks for more than was said", rule.GetMetadata().GetName())
	}
	return ""
}

// Met reports whether these answers meet a rule: of every group the number that it
// asks for. Where the rule asks for distinct people, nobody stands for two groups. A
// rule that asks nobody is never met.
func Met(rule *typesv1.ApprovalRuleSpec, answers []*typesv1.Approval) bool {
	var slots []string // a group, once for each of its members that must say yes
	for _, q := range rule.GetAll() {
		need := int(max(q.GetAtLeast(), 1))
		if q.GetGroup() == "" || len(slots)+need > maxSlots {
			return false
		}
		yes := 0
		for _, a := range answers {
			if speaksFor(rule, a, q.GetGroup()) {
				yes++
			}
		}
		if yes < need {
			return false
		}
		slots = append(slots, slices.Repeat([]string{q.GetGroup()}, need)...)
	}
	if len(slots) == 0 {
		return false
	}
	return !rule.GetDistinct() || assign(rule, slots, answers)
}

// speaksFor reports whether a yes may count for a group: by its own members, and by those of
// the group that the rule asks later.
func speaksFor(rule *typesv1.ApprovalRuleSpec, a *typesv1.Approval, group string) bool {
	further, _ := Escalation(rule)
	return a.GetApproved() && (slices.Contains(a.GetGroups(), group) || further != "" && slices.Contains(a.GetGroups(), further))
}

// assign finds a different person for every slot, by augmenting paths: a slot takes a
// free person, or one whose slot can take another.
func assign(rule *typesv1.ApprovalRuleSpec, slots []string, answers []*typesv1.Approval) bool {
	holder := make([]int, len(answers)) // slot+1 of each person; 0 is free
	var place func(slot int, tried []bool) bool
	place = func(slot int, tried []bool) bool {
		for i, a := range answers {
			if tried[i] || !speaksFor(rule, a, slots[slot]) {
				continue
			}
			tried[i] = true
			if holder[i] == 0 || place(holder[i]-1, tried) {
				holder[i] = slot + 1
				return true
			}
		}
		return false
	}
	for slot := range slots {
		if !place(slot, make([]bool, len(answers))) {
			return false
		}
	}
	return true
}
