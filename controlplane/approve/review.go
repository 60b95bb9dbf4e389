package approve

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// Review takes one person's answer. One no settles a hold; a yes settles it once the
// rule is met. The rule is the one that stands now. The requester's own answer never
// counts, under whichever name: not that of the same e-mail address, not that of anybody
// who acts for them, and not that of the owner of a workload that asks or acts.
func (s *Service) Review(ctx context.Context, by Caller, id string, approve bool, reason string, digest []byte) (*typesv1.Hold, error) {
	reason = strings.TrimSpace(reason)
	switch {
	case len(reason) > maxReasonBytes:
		return nil, fault.Invalid(fault.Violation{Field: "reason", Reason: fmt.Sprintf("is longer than %d bytes", maxReasonBytes)})
	case !approve && reason == "":
		return nil, fault.Invalid(fault.Violation{Field: "reason", Reason: "is required for a no"})
	}
	entry := audit.Entry{Actor: by.Subject.Name, Address: by.Address, Action: "hold.deny"}
	if approve {
		entry.Action = "hold.approve"
	}
	return s.change(ctx, id, entry, func(h *typesv1.Hold) ([]store.Op, error) {
		if s.shown(h, by.Subject) == nil {
			return nil, errNoHold(id)
		}
		g, revision, err := s.grant(ctx, h.GetGrant())
		if err != nil {
			return nil, err
		}
		rule, groups, err := s.mayAnswer(h, g, by.Subject)
		if err != nil {
			return nil, err
		}
		inHours, when := policy.ApprovalOpen(rule.GetSpec(), s.cfg.Now())
		lacking := policy.Lacks(rule, h.GetReason())
		switch {
		case !Waiting(h):
			return nil, fault.New(codes.FailedPrecondition, "hold %s is %s already", id, stateWord(h))
		case !s.cfg.Now().Before(h.GetExpireTime().AsTime()):
			return nil, fault.New(codes.FailedPrecondition, "hold %s is over since %s", id, h.GetExpireTime().AsTime().UTC().Format("15:04:05"))
		case approve && !inHours:
			return nil, fault.New(codes.FailedPrecondition, "nobody can say yes now: the approval rule %q is for %s", h.GetRule(), when)
		case approve && lacking != "":
			return nil, fault.New(codes.FailedPrecondition, "nobody can say yes to hold %s: its reason %s", id, lacking)
		case len(digest) > 0 && !slices.Equal(digest, h.GetDigest()):
			return nil, fault.New(codes.FailedPrecondition, "hold %s asks for something else than what you were shown; look again", id)
		}
		h.Approvals = append(h.Approvals, &typesv1.Approval{
			Subject: by.Subject.Name, Email: by.Subject.Email, Groups: groups, Approved: approve, Reason: reason, Time: timestamppb.New(s.cfg.Now()),
		})
		switch {
		case !approve:
			h.State = typesv1.HoldState_HOLD_STATE_REFUSED
		case policy.Met(rule.GetSpec(), h.GetApprovals()):
			h.State = typesv1.HoldState_HOLD_STATE_APPROVED
		}
		if scopeGrant(h) {
			return nil, nil // the grant itself changes with it
		}
		if err := s.usable(g, postern.ResourceName(h.GetResource()), ""); err != nil {
			return nil, err
		}
		return []store.Op{{Key: store.Key{Kind: grantKind, Name: g.GetId()}, Check: true, If: revision}}, nil
	})
}

// Unmet says what the rule of h asks for, as it is now, that h does not have; nothing where
// a yes to it stands.
func (s *Service) Unmet(h *typesv1.Hold) (string, error) {
	rule, _, err := s.rule(h.GetRule())
	if err != nil {
		return "", err
	}
	return policy.Unmet(rule, h), nil
}

// MayReview says why the caller's answer to h would not count; nil where it would.
func (s *Service) MayReview(ctx context.Context, by Caller, h *typesv1.Hold) error {
	g, _, err := s.grant(ctx, h.GetGrant())
	if err != nil {
		return err
	}
	_, _, err = s.mayAnswer(h, g, by.Subject)
	return err
}

// mayAnswer returns the rule and those of its groups that the subject is in, or why
// the subject's answer does not count.
func (s *Service) mayAnswer(h *typesv1.Hold, g *typesv1.Grant, sub postern.Subject) (*typesv1.ApprovalRule, []string, error) {
	snapshot, err := s.policy()
	if err != nil {
		return nil, nil, err
	}
	rule, ok := snapshot.Rule(h.GetRule())
	if !ok {
		return nil, nil, errNoRule(h.GetRule())
	}
	deny := func(format string, args ...any) error { return fault.New(codes.PermissionDenied, format, args...) }
	switch {
	case sub.Name == "" || sub.Workload != "" || sub.Actor != "":
		return nil, nil, deny("only people answer holds, each for themselves")
	case strings.EqualFold(sub.Name, g.GetSubject().GetName()) || strings.EqualFold(sub.Name, h.GetSubject()):
		return nil, nil, deny("nobody answers their own hold; to take it back, withdraw it")
	case sub.Email != "" && strings.EqualFold(sub.Email, g.GetSubject().GetEmail()):
		return nil, nil, deny("nobody answers their own hold, and it was asked for by somebody with your e-mail address")
	}
	actors := noun.SubjectOf(g.GetSubject()).Actors()
	if slices.ContainsFunc(actors, func(actor string) bool { return strings.EqualFold(sub.Name, actor) }) {
		return nil, nil, deny("nobody answers their own hold, and you act for who asks")
	}
	for _, w := range snapshot.Workloads() {
		name := w.GetMetadata().GetName()
		if !strings.EqualFold(w.GetSpec().GetOwner(), sub.Name) {
			continue
		}
		if name == g.GetSubject().GetWorkload() {
			return nil, nil, deny("nobody answers their own hold, and the workload %q that asks is yours", name)
		}
		if slices.Contains(actors, name) {
			return nil, nil, deny("nobody answers their own hold, and the workload %q that acts for who asks is yours", name)
		}
	}
	var groups []string
	for _, q := range rule.GetSpec().GetAll() {
		if q.GetGroup() != "" && slices.Contains(sub.Groups, q.GetGroup()) && !slices.Contains(groups, q.GetGroup()) {
			groups = append(groups, q.GetGroup())
		}
	}
	if further, _ := policy.Escalation(rule.GetSpec()); further != "" && slices.Contains(sub.Groups, further) && escalated(h, further) {
		groups = append(groups, further)
	}
	if len(groups) == 0 {
		return nil, nil, deny("the approval rule %q asks others", h.GetRule())
	}
	for _, a := range h.GetApprovals() {
		if strings.EqualFold(a.GetSubject(), sub.Name) {
			return nil, nil, fault.New(codes.AlreadyExists, "you answered hold %s already", h.GetId())
		}
		if sub.Email != "" && strings.EqualFold(a.GetEmail(), sub.Email) {
			return nil, nil, fault.New(codes.AlreadyExists, "hold %s was answered already by somebody with your e-mail address", h.GetId())
		}
	}
	return rule, groups, nil
}

// escalated reports whether a further group is asked by now.
func escalated(h *typesv1.Hold, group string) bool {
	return h.GetEscalateGroup() == group && slices.Contains(h.GetApproverGroups(), group)
}
