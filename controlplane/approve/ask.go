package approve

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	maxStatementBytes = 32 << 10
	maxParameters     = 1000
	maxParameterBytes = 16 << 10 // of all
	maxMaskedBytes    = 8 << 10
	maxReasonBytes    = 1 << 10
	// room is what a new hold leaves of a value of the store, in bytes, for what people say to
	// it: one that cannot be written any more could not be answered.
	room = 8 << 10
	// maxWaiting bounds how much one grant may ask of people at once.
	maxWaiting = 20
)

// OpenHold parks a session or statement for a node, under a live grant. Where the same
// is asked already, or was approved and not used yet, the answer is that hold: a client
// that comes back after a yes goes through without asking again, from any session.
// Errors carry the kind of a postern.Code.
func (s *Service) OpenHold(ctx context.Context, node postern.NodeName, req *nodev1.OpenHoldRequest) (*typesv1.Hold, error) {
	scope := postern.Scope(req.GetScope())
	switch {
	case scope != postern.ScopeSession && scope != postern.ScopeStatement:
		return nil, fault.Invalid(fault.Violation{Field: "scope", Reason: "is neither session nor statement"})
	case req.GetResource() == "" || req.GetSession() == "":
		return nil, fault.Invalid(fault.Violation{Field: "resource", Reason: "resource and session are required"})
	case (scope == postern.ScopeStatement) != (req.GetStatement() != ""):
		return nil, fault.Invalid(fault.Violation{Field: "statement", Reason: "belongs to the scope statement, and is required there"})
	}
	if err := checkSize(req); err != nil {
		return nil, err
	}
	h, err := store.Again(func() (*typesv1.Hold, error) { return s.ask(ctx, node, req) })
	if store.IsConflict(err) {
		return nil, fault.Wrap(err, codes.Unavailable, "the hold could not be opened; try again").WithKind(postern.CodeUnavailable.String())
	}
	return h, err
}

func checkSize(req *nodev1.OpenHoldRequest) error {
	size, masks := 0, 0
	for _, p := range req.GetParameters() {
		size += len(p.GetValue())
	}
	for _, m := range req.GetMasked() {
		masks += len(m)
	}
	if masks > maxMaskedBytes || len(req.GetMasked()) > maxParameters || req.GetEstimatedRows() < 0 {
		return fault.Invalid(fault.Violation{Field: "masked", Reason: "is too long, or the estimate is less than nothing"})
	}
	if len(req.GetStatement()) > maxStatementBytes || len(req.GetParameters()) > maxParameters || size > maxParameterBytes || len(req.GetReason()) > maxReasonBytes {
		return fault.New(codes.ResourceExhausted, "the statement is too large to be shown to people: at most %d bytes, and %d bytes of parameters", maxStatementBytes, maxParameterBytes).WithKind(postern.CodeLimit.String())
	}
	return nil
}

// ask is one attempt of OpenHold; a *store.ConflictError asks for another.
func (s *Service) ask(ctx context.Context, node postern.NodeName, req *nodev1.OpenHoldRequest) (*typesv1.Hold, error) {
	g, grantRevision, err := s.grant(ctx, req.GetGrant())
	if err != nil {
		return nil, err
	}
	if err := s.usable(g, postern.ResourceName(req.GetResource()), node); err != nil {
		return nil, err
	}
	h := &typesv1.Hold{
		Scope: req.GetScope(), Subject: g.GetSubject().GetName(), Workload: g.GetSubject().GetWorkload(), Grant: g.GetId(), Task: g.GetTask(), Resource: req.GetResource(),
		Session: req.GetSession(), Statement: req.GetStatement(), Parameters: req.GetParameters(), Rule: req.GetRule(),
		// A stock client has no place to say why; its grant may have said so.
		Reason: cmp.Or(req.GetReason(), g.GetReason()),
	}
	h.EstimatedRows, h.Masked = req.EstimatedRows, req.GetMasked()
	if err := s.complete(h, g.GetEndTime().AsTime()); err != nil {
		return nil, err
	}
	question := store.Key{Kind: questionKind, Name: hex.EncodeToString(h.GetDigest())}
	before, err := s.cfg.Store.Get(ctx, question)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("open hold: %w", err)
	}
	if err == nil {
		was, _, err := s.load(ctx, string(before.Value))
		switch {
		case err == nil && open(was) && was.GetRule() == h.GetRule() && s.cfg.Now().Before(was.GetExpireTime().AsTime()):
			unmet := ""
			if !Waiting(was) {
				unmet, err = s.Unmet(was)
			}
			if err != nil || unmet == "" {
				return was, err
			}
		case err != nil && fault.CodeOf(err) != codes.NotFound:
			return nil, err
		}
	}
	if s.hub.waitingUnder(g.GetId()) >= maxWaiting {
		return nil, fault.New(codes.ResourceExhausted, "%d questions of this grant wait for people already", maxWaiting).WithKind(postern.CodeLimit.String())
	}
	if s.hub.asked(askerOf(h), s.cfg.Now().Add(-lately)) >= maxAsked {
		return nil, fault.New(codes.ResourceExhausted, "%s has asked people %d times within a minute, which is the most", h.GetSubject(), maxAsked).WithKind(postern.CodeLimit.String())
	}
	op, err := put(h, 0)
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Audit.Commit(ctx, audit.Entry{
		Actor: g.GetSubject().GetName(), Action: "hold.open", Object: kind + "/" + h.GetId(), Outcome: "ok",
		Detail: map[string]any{"scope": h.GetScope(), "grant": h.GetGrant(), "task": h.GetTask(), "resource": h.GetResource(), "session": h.GetSession(), "node": string(node), "rule": h.GetRule(), "digest": hex.EncodeToString(h.GetDigest())},
	}, op,
		store.Op{Key: question, Value: []byte(h.GetId()), If: before.Revision},
		store.Op{Key: store.Key{Kind: grantKind, Name: g.GetId()}, Check: true, If: grantRevision})
	if err != nil {
		return nil, fmt.Errorf("open hold: %w", err)
	}
	return h, nil
}

// PrepareGrant is the hold that asks people for g, with the change that parks it, to be
// committed with g itself.
func (s *Service) PrepareGrant(g *typesv1.Grant, rule, reason string, duration time.Duration) (*typesv1.Hold, store.Op, error) {
	snapshot, err := s.policy()
	if err != nil {
		return nil, store.Op{}, err
	}
	r, ok := snapshot.Rule(rule)
	if !ok {
		return nil, store.Op{}, errNoRule(rule)
	}
	if v := policy.Lacks(r, reason); v != "" {
		return nil, store.Op{}, fault.Invalid(fault.Violation{Field: "reason", Reason: v})
	}
	if len(reason) > maxReasonBytes {
		return nil, store.Op{}, fault.Invalid(fault.Violation{Field: "reason", Reason: fmt.Sprintf("is longer than %d bytes", maxReasonBytes)})
	}
	h := &typesv1.Hold{
		Scope: string(postern.ScopeGrant), Subject: g.GetSubject().GetName(), Workload: g.GetSubject().GetWorkload(), Grant: g.GetId(), Task: g.GetTask(),
		Rule: rule, Reason: reason, Duration: duration.String(),
	}
	if err := s.complete(h, time.Time{}); err != nil {
		return nil, store.Op{}, err
	}
	op, err := put(h, 0)
	return h, op, err
}

// explained refuses a session or statement whose grant was taken without what the rule
// requires: a stock client has no place to say it.
func explained(rule *typesv1.ApprovalRule, h *typesv1.Hold) error {
	v := policy.Lacks(rule, h.GetReason())
	if v == "" {
		return nil
	}
	return fault.New(codes.FailedPrecondition, "people are asked only with a reason, which %s", v).WithKind(postern.CodeDenied.String()).
		WithHint(fmt.Sprintf("take the task with one, and use that token: postern grant %s --reason \"OPS-123: why\"", h.GetTask()))
}

// rule is an approval rule by name, and how long it waits for people.
func (s *Service) rule(name string) (*typesv1.ApprovalRule, time.Duration, error) {
	snapshot, err := s.policy()
	if err != nil {
		return nil, 0, err
	}
	rule, ok := snapshot.Rule(name)
	if !ok {
		return nil, 0, errNoRule(name)
	}
	text := rule.GetSpec().GetTimeout()
	if text == "" {
		return rule, defaultTimeout, nil
	}
	timeout, err := policy.ParseDuration(text)
	if err != nil {
		return nil, 0, fault.Wrap(err, codes.FailedPrecondition, "the approval rule %q has no usable timeout", name).WithKind(postern.CodeUnavailable.String())
	}
	return rule, timeout, nil
}

// complete fills in what follows from the question and its rule. A request for a grant
// ends when its rule's timeout is over. So does the wait of a session or statement, but
// its hold lasts as long again: people may say yes meanwhile, and the asker come back.
// It never outlives latest, unless that is zero.
func (s *Service) complete(h *typesv1.Hold, latest time.Time) error {
	rule, timeout, err := s.rule(h.GetRule())
	if err != nil {
		return err
	}
	now := s.cfg.Now()
	if open, when := policy.ApprovalOpen(rule.GetSpec(), now); !open {
		return fault.New(codes.FailedPrecondition, "nobody can be asked now: the approval rule %q is for %s", h.GetRule(), when).
			WithKind(postern.CodeDenied.String()).WithHint("come back then")
	}
	if !scopeGrant(h) {
		if err := explained(rule, h); err != nil {
			return err
		}
	}
	if !scopeGrant(h) {
		timeout *= 2
	}
	end := now.Add(timeout)
	if !latest.IsZero() && latest.Before(end) {
		end = latest
	}
	h.Id = newID("h-")
	h.State = typesv1.HoldState_HOLD_STATE_PENDING
	h.CreateTime, h.ExpireTime = timestamppb.New(now), timestamppb.New(end)
	h.ApproverGroups = groupsOf(rule.GetSpec())
	if group, after := policy.Escalation(rule.GetSpec()); group != "" {
		h.EscalateTime, h.EscalateGroup = timestamppb.New(now.Add(after)), group
	}
	digest := digestOf(h)
	h.Digest = digest[:]
	return nil
}

func digestOf(h *typesv1.Hold) [32]byte {
	params := make([]postern.Param, len(h.GetParameters()))
	for i, p := range h.GetParameters() {
		params[i] = postern.Param{Value: p.GetValue(), Null: p.Value == nil}
	}
	return postern.HoldDigest(h.GetSubject(), postern.GrantID(h.GetGrant()), postern.TaskName(h.GetTask()),
		postern.ResourceName(h.GetResource()), postern.Scope(h.GetScope()), h.GetStatement(), params)
}

// usable says why a grant cannot be used for the resource through the node now.
func (s *Service) usable(g *typesv1.Grant, r postern.ResourceName, n postern.NodeName) error {
	now := s.cfg.Now()
	if g.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE || !now.Before(g.GetEndTime().AsTime()) {
		return fault.New(codes.PermissionDenied, "the grant is over").WithKind(postern.CodeKilled.String())
	}
	snapshot, err := s.policy()
	if err != nil {
		return err
	}
	sub := noun.SubjectOf(g.GetSubject())
	if reason, lock, ok := snapshot.Barred(&sub, postern.GrantID(g.GetId()), r, n, now); ok {
		return fault.New(codes.PermissionDenied, "%s (lock %s)", reason, lock).WithKind(postern.CodeKilled.String())
	}
	if _, err := snapshot.ResourceOf(postern.TaskName(g.GetTask()), r); err != nil {
		refusal := postern.AsRefusal(err)
		return fault.Wrap(err, codes.PermissionDenied, "%s", refusal.Reason).WithKind(refusal.Code.String())
	}
	return nil
}

func errNoRule(name string) error {
	return fault.New(codes.FailedPrecondition, "the approval rule %.60q does not exist or cannot be used", name).WithKind(postern.CodeUnavailable.String())
}

// Consume uses the yes to a hold, at most once: of two that try, one is refused. The
// digest is that of what is about to run. A yes counts by the rule as it is now.
func (s *Service) Consume(ctx context.Context, node postern.NodeName, id string, digest []byte, session string) (*typesv1.Hold, error) {
	entry := audit.Entry{Actor: "node/" + string(node), Action: "hold.consume"}
	return s.change(ctx, id, entry, func(h *typesv1.Hold) ([]store.Op, error) {
		refuse := func(format string, args ...any) error {
			return fault.New(codes.FailedPrecondition, format, args...).WithKind(postern.CodeCancelled.String())
		}
		switch {
		case scopeGrant(h):
			return nil, refuse("hold %s asked for a grant, which needs no using", id)
		case h.GetState() == typesv1.HoldState_HOLD_STATE_CONSUMED:
			return nil, refuse("the approval %s was used already; ask again", id)
		case h.GetState() != typesv1.HoldState_HOLD_STATE_APPROVED:
			return nil, refuse("hold %s is %s", id, stateWord(h))
		case !s.cfg.Now().Before(h.GetExpireTime().AsTime()):
			return nil, refuse("the approval %s is over; ask again", id)
		case len(digest) == 0 || !slices.Equal(digest, h.GetDigest()):
			return nil, refuse("the approval %s was given for something else", id)
		case session == "":
			return nil, fault.Invalid(fault.Violation{Field: "session", Reason: "is required"})
		}
		unmet, err := s.Unmet(h)
		if err != nil {
			return nil, err
		}
		if unmet != "" {
			return nil, refuse("the approval %s does not count any more: %s; ask again", id, unmet)
		}
		g, revision, err := s.grant(ctx, h.GetGrant())
		if err != nil {
			return nil, err
		}
		if err := s.usable(g, postern.ResourceName(h.GetResource()), node); err != nil {
			return nil, err
		}
		h.State = typesv1.HoldState_HOLD_STATE_CONSUMED
		h.Session = session
		return []store.Op{{Key: store.Key{Kind: grantKind, Name: g.GetId()}, Check: true, If: revision}}, nil
	})
}

// Withdraw takes back the caller's own hold.
func (s *Service) Withdraw(ctx context.Context, by Caller, id string) (*typesv1.Hold, error) {
	h, _, err := s.load(ctx, id)
	if err != nil {
		return nil, err
	}
	if !Asked(h, by.Subject) {
		if s.shown(h, by.Subject) == nil {
			return nil, errNoHold(id)
		}
		return nil, fault.New(codes.PermissionDenied, "hold %s is not yours", id)
	}
	return s.withdraw(ctx, id, audit.Entry{Actor: by.Subject.Name, Address: by.Address, Action: "hold.withdraw"})
}

func (s *Service) withdraw(ctx context.Context, id string, entry audit.Entry) (*typesv1.Hold, error) {
	return s.change(ctx, id, entry, func(h *typesv1.Hold) ([]store.Op, error) {
		if !open(h) {
			return nil, fault.New(codes.FailedPrecondition, "hold %s is %s already", id, stateWord(h))
		}
		h.State = typesv1.HoldState_HOLD_STATE_WITHDRAWN
		return nil, nil
	})
}

// Drop withdraws, in the name of actor, a hold that has lost its point; one that is
// settled stays as it is.
func (s *Service) Drop(ctx context.Context, actor, id string) error {
	_, err := s.withdraw(ctx, id, audit.Entry{Actor: actor, Action: "hold.withdraw"})
	if c := fault.CodeOf(err); c == codes.FailedPrecondition || c == codes.NotFound {
		return nil
	}
	return err
}

// DropUnder withdraws everything that is asked or approved under a grant that ended.
func (s *Service) DropUnder(ctx context.Context, actor string, grant postern.GrantID) error {
	var errs []error
	for _, id := range s.hub.under(string(grant)) {
		errs = append(errs, s.Drop(ctx, actor, id))
	}
	return errors.Join(errs...)
}

// Asked reports whether a hold is the subject's own question. A person is not the workload
// that has their name.
func Asked(h *typesv1.Hold, sub postern.Subject) bool {
	return sub.Name != "" && h.GetSubject() == sub.Name && h.GetWorkload() == "" && sub.Workload == ""
}
