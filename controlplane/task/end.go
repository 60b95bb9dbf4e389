package task

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const overText = "its time is over"

// unfounded says why a grant has no ground any more, or nothing where it stands. Given
// who uses it now, it also asks whether the binding still picks that subject: a
// membership that was lost ends the grant at the next login.
//
// A binding's condition is on taking the task: it is not asked again while the binding
// is as it was when the grant was made. Where the binding was changed since, or the
// subject is not as it was, everything is asked again, as it was asked when the grant was
// taken, from where and why: a yes is that of the people whom the binding asks now. The rule
// by which people said yes to a grant is part of its binding in this.
func (s *Service) unfounded(ctx context.Context, g *typesv1.Grant, now *postern.Subject) (string, error) {
	snapshot, err := s.policy()
	if err != nil {
		return "", err
	}
	sub := noun.SubjectOf(g.GetSubject())
	if reason, lock, ok := snapshot.LockedFor(&sub, postern.GrantID(g.GetId()), "", "", s.cfg.Now()); ok {
		return fmt.Sprintf("%s (lock %s)", reason, lock), nil
	}
	if _, ok := snapshot.Terms(postern.TaskName(g.GetTask())); !ok {
		return fmt.Sprintf("task %q does not exist any more", g.GetTask()), nil
	}
	if sub.Workload != "" {
		w, ok := findWorkload(snapshot, sub.Workload)
		if !ok || w.GetSpec().GetOwner() == "" || !s.cfg.Now().Before(w.GetSpec().GetExpires().AsTime()) {
			return fmt.Sprintf("workload %q is over", sub.Workload), nil
		}
	}
	if g.GetExchanged() {
		if why := acts(snapshot, &sub, s.cfg.Now()); why != "" {
			return why, nil
		}
	}
	if of := g.GetGivenGrant(); of != "" {
		switch given, _, err := s.load(ctx, of); {
		case err != nil && fault.CodeOf(err) != codes.NotFound:
			return "", err
		case err != nil || !Live(given, s.cfg.Now()):
			return givenOverText(given), nil
		}
	}
	if t, why := until(g, snapshot); !t.IsZero() && !s.cfg.Now().Before(t) {
		return why, nil
	}
	unchanged, err := s.bindingUnchanged(ctx, g, snapshot.Version())
	if err != nil {
		return "", err
	}
	if now != nil && !sameStanding(sub, *now) {
		sub, unchanged = *now, false
	}
	if unchanged {
		return "", nil
	}
	for _, o := range snapshot.Offers(sub, requested(g)) {
		if o.Binding == g.GetBinding() && string(o.Task) == g.GetTask() && (o.Expires.IsZero() || s.cfg.Now().Before(o.Expires)) {
			return s.unasked(ctx, g, o.Approval)
		}
	}
	return fmt.Sprintf("binding %q does not offer task %q any more", g.GetBinding(), g.GetTask()), nil
}

// until is when a grant must be over, and what is said of that; zero for one that has not
// begun. It is at its end, which stays where it is, or sooner where its task, binding or
// workload gives less time now.
func until(g *typesv1.Grant, snapshot *policy.Snapshot) (t time.Time, why string) {
	if g.GetEndTime() == nil {
		return time.Time{}, ""
	}
	t, why = g.GetEndTime().AsTime(), overText
	sooner := func(end time.Time, format string, args ...any) {
		if end.Before(t) {
			t, why = end, fmt.Sprintf(format, args...)
		}
	}
	if terms, ok := snapshot.Terms(postern.TaskName(g.GetTask())); ok {
		sooner(g.GetStartTime().AsTime().Add(terms.Duration), "task %q is given for %s now", g.GetTask(), terms.Duration)
	}
	if end := snapshot.BindingExpires(g.GetBinding()); !end.IsZero() {
		sooner(end, "binding %q has expired", g.GetBinding())
	}
	if w, ok := findWorkload(snapshot, g.GetSubject().GetWorkload()); ok {
		sooner(w.GetSpec().GetExpires().AsTime(), "workload %q is over", w.GetMetadata().GetName())
	}
	return t, why
}

// unasked says why a grant was not taken as its binding asks for that now, or nothing where
// it was: people were asked by the same rule, which what they said still meets, or will be.
func (s *Service) unasked(ctx context.Context, g *typesv1.Grant, now *postern.Approval) (string, error) {
	if now == nil {
		return "", nil
	}
	why := fmt.Sprintf("binding %q asks by approval rule %q now", g.GetBinding(), now.Rule)
	if now.Scope != postern.ScopeGrant {
		if proto.Equal(g.GetApproval(), noun.Approval(now)) {
			why = ""
		}
		return why, nil
	}
	if g.GetHold() == "" {
		return why, nil
	}
	h, err := s.cfg.Approve.Find(ctx, g.GetHold())
	switch {
	case err != nil && fault.CodeOf(err) != codes.NotFound:
		return "", err
	case err == nil && h.GetRule() == now.Rule && approve.Waiting(h):
		why = "" // the rule is met once they have said yes
	case err == nil && h.GetRule() == now.Rule:
		return s.cfg.Approve.Unmet(h)
	}
	return why, nil
}

// bindingUnchanged reports whether a grant's binding, and the rule by which it asked people
// for the grant, are just what they were when the grant was asked for or began.
func (s *Service) bindingUnchanged(ctx context.Context, g *typesv1.Grant, at postern.Version) (bool, error) {
	b, revision, err := s.binding(ctx, g.GetBinding(), at)
	if name := b.GetApproval().GetRule(); name != "" && g.GetHold() != "" {
		var rule store.Entry
		rule, err = s.read(ctx, store.Key{Kind: ruleKind, Name: name}, at)
		revision = max(revision, rule.Revision)
	}
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	min := g.GetMinVersion()
	return min.GetEpoch() == at.Epoch && revision <= min.GetRevision(), nil
}

// binding reads a binding, and its revision, as read does.
func (s *Service) binding(ctx context.Context, name string, at postern.Version) (*typesv1.BindingSpec, int64, error) {
	e, err := s.read(ctx, store.Key{Kind: bindingKind, Name: name}, at)
	if err != nil {
		return nil, 0, err
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return nil, 0, err
	}
	return o.GetBinding().GetSpec(), e.Revision, nil
}

// read reads what is no older than the snapshot at the version given: a change of it that
// the snapshot has must not be missed.
func (s *Service) read(ctx context.Context, k store.Key, at postern.Version) (store.Entry, error) {
	view := s.cache.View()
	if e, ok := view.Get(k); ok && view.Version().Covers(at) {
		return e, nil
	}
	e, err := s.cfg.Store.Get(ctx, k)
	if err != nil {
		return store.Entry{}, fmt.Errorf("read %s: %w", k, err)
	}
	return e, nil
}

// sameStanding reports whether a subject is still whom a binding once picked. Claims
// that change with every login pick nobody and are passed over.
func sameStanding(a, b postern.Subject) bool {
	return sameWho(a, b) && a.MFA == b.MFA && slices.Equal(slices.Sorted(slices.Values(a.Groups)), slices.Sorted(slices.Values(b.Groups))) &&
		maps.EqualFunc(lasting(a.Claims), lasting(b.Claims), func(x, y any) bool { return fmt.Sprint(x) == fmt.Sprint(y) })
}

// sameWho reports whether two subjects are one, for whom the same ones act.
func sameWho(a, b postern.Subject) bool {
	return a.Name == b.Name && a.Workload == b.Workload && slices.Equal(a.Actors(), b.Actors())
}

func lasting(claims map[string]any) map[string]any {
	out := maps.Clone(claims)
	for _, k := range []string{"aud", "azp", "auth_time", "amr", "acr", "groups"} {
		delete(out, k)
	}
	return out
}

// end ends a grant that is active or asked for. One that has ended stays as it is. The
// end time stays too: until then nodes must be told.
func (s *Service) end(ctx context.Context, id string, by audit.Entry, why string) error {
	g, err := store.Again(func() (*typesv1.Grant, error) { return s.endOnce(ctx, id, by, why) })
	if err != nil {
		return fmt.Errorf("end grant %s: %w", id, err)
	}
	if g != nil {
		s.dropHolds(ctx, g, by.Actor)
	}
	return nil
}

// endOnce returns the grant that it has ended; nil where there was nothing to end.
func (s *Service) endOnce(ctx context.Context, id string, by audit.Entry, why string) (*typesv1.Grant, error) {
	g, revision, err := s.load(ctx, id)
	if fault.CodeOf(err) == codes.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if g.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE && !waiting(g) {
		return nil, nil
	}
	g.State, g.EndReason = typesv1.GrantState_GRANT_STATE_OVER, why
	op, err := put(g, revision)
	if err != nil {
		return nil, err
	}
	by.Action, by.Object, by.Detail = "grant.end", Kind+"/"+id, about(g, "")
	_, err = s.cfg.Audit.Commit(ctx, by, op)
	return g, err
}

// dropHolds withdraws what a grant that ended has asked of people. The grant has ended
// whether that succeeds or not: no hold under it can be approved or used any more.
func (s *Service) dropHolds(ctx context.Context, g *typesv1.Grant, actor string) {
	err := s.cfg.Approve.DropUnder(ctx, actor, postern.GrantID(g.GetId()))
	if g.GetHold() != "" {
		err = errors.Join(err, s.cfg.Approve.Drop(ctx, actor, g.GetHold()))
	}
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "holds of a grant that ended are not withdrawn", "grant", g.GetId(), "error", err)
	}
}

// settle is what becomes of a grant with the hold that asked for it.
func (s *Service) settle(ctx context.Context, h *typesv1.Hold) ([]store.Op, error) {
	g, revision, err := s.load(ctx, h.GetGrant())
	if fault.CodeOf(err) == codes.NotFound {
		g, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	yes := h.GetState() == typesv1.HoldState_HOLD_STATE_APPROVED
	if !waiting(g) || g.GetHold() != h.GetId() {
		if yes {
			return nil, fault.New(codes.FailedPrecondition, "the request is over: %s", g.GetEndReason())
		}
		return nil, nil
	}
	g = proto.CloneOf(g)
	switch h.GetState() {
	case typesv1.HoldState_HOLD_STATE_APPROVED:
		if err := s.fulfil(ctx, g, h); err != nil {
			return nil, err
		}
	case typesv1.HoldState_HOLD_STATE_REFUSED:
		g.State = typesv1.GrantState_GRANT_STATE_REFUSED
		for _, a := range h.GetApprovals() {
			if !a.GetApproved() {
				g.EndReason = fmt.Sprintf("refused by %s: %s", a.GetSubject(), a.GetReason())
			}
		}
	case typesv1.HoldState_HOLD_STATE_EXPIRED:
		g.State, g.EndReason = typesv1.GrantState_GRANT_STATE_REFUSED, "nobody answered in time"
	case typesv1.HoldState_HOLD_STATE_WITHDRAWN:
		g.State, g.EndReason = typesv1.GrantState_GRANT_STATE_OVER, "the request was withdrawn"
	case typesv1.HoldState_HOLD_STATE_UNSPECIFIED, typesv1.HoldState_HOLD_STATE_PENDING, typesv1.HoldState_HOLD_STATE_CONSUMED:
		return nil, fmt.Errorf("hold %s of grant %s is %s", h.GetId(), g.GetId(), h.GetState())
	}
	op, err := put(g, revision)
	if err != nil || !yes {
		return []store.Op{op}, err
	}
	snapshot, err := s.policy()
	if err != nil {
		return nil, err
	}
	ops, err := s.unclosed(ctx, g)
	// The pointer may be at the grant that this one takes over from.
	taken := pointer(takenKind, snapshot, noun.SubjectOf(g.GetSubject()), postern.TaskName(g.GetTask()))
	return append(ops, op, store.Op{Key: taken, Value: []byte(g.GetId()), If: store.AnyRevision}), err
}

// fulfil activates a grant that people said yes to, if it still may be: for as long as they
// were asked for, and no longer than its task allows now.
func (s *Service) fulfil(ctx context.Context, g *typesv1.Grant, h *typesv1.Hold) error {
	why, err := s.unfounded(ctx, g, nil)
	if err != nil {
		return err
	}
	if why != "" {
		return fault.New(codes.FailedPrecondition, "the request has no ground any more: %s", why)
	}
	duration, err := time.ParseDuration(h.GetDuration())
	if err != nil || duration <= 0 {
		return fmt.Errorf("hold %s: duration %q", h.GetId(), h.GetDuration())
	}
	snapshot, err := s.policy()
	if err != nil {
		return err
	}
	terms, ok := snapshot.Terms(postern.TaskName(g.GetTask()))
	if !ok {
		return fault.New(codes.FailedPrecondition, "the request has no ground any more: task %q does not exist any more", g.GetTask())
	}
	b, _, err := s.binding(ctx, g.GetBinding(), snapshot.Version())
	if err != nil {
		return err
	}
	var expires time.Time
	if t := b.GetExpires(); t != nil {
		expires = t.AsTime()
	}
	return s.activate(g, snapshot, min(duration, terms.Duration), expires)
}
