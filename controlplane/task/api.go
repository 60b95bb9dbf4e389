package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/approve"
	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// A Caller is a person who calls the API.
type Caller struct {
	Subject postern.Subject
	Roles   []policy.RoleGrant
	Address string
}

// Create takes a task for the caller, or for the workload whose token the request has,
// and makes a grant token, which is shown this once, or a grant certificate where the
// request has a key to certify. A task that people must say yes to gets one only for a
// grant that they have said yes to already; what that grant had before is then dead.
func (s *Service) Create(ctx context.Context, by Caller, req *apiv1.CreateGrantRequest) (*apiv1.CreateGrantResponse, error) {
	sub, until, of := by.Subject, time.Time{}, ""
	switch {
	case req.GetWorkloadToken() != "":
		var err error
		if sub, until, of, err = s.bearerOf(ctx, req); err != nil {
			return nil, asFault(err)
		}
	case req.GetSubjectToken() != "":
		return nil, fault.Invalid(fault.Violation{Field: "subject_token", Reason: "is given to a workload, whose own token is needed too"})
	}
	how, err := s.how(sub, req.GetTask(), req.GetReason(), by.Address, req.GetTtl())
	if err != nil {
		return nil, err
	}
	if how.exchanged, how.given = req.GetSubjectToken() != "", of; how.exchanged {
		left := max(until.Sub(s.cfg.Now()), time.Second)
		if how.ttl == 0 || left < how.ttl {
			how.ttl = left
		}
	}
	if how.csr, how.sshKey = req.GetCsr(), req.GetSshKey(); len(how.csr) > 0 && how.sshKey != "" {
		return nil, fault.Invalid(fault.Violation{Field: "ssh_key", Reason: "a grant has one certificate: give csr or ssh_key"})
	}
	name := postern.TaskName(req.GetTask())
	resp, err := store.Again(func() (*apiv1.CreateGrantResponse, error) { return s.createOnce(ctx, sub, name, how) })
	if store.IsConflict(err) {
		return nil, fault.Wrap(err, codes.Aborted, "the task could not be taken; try again")
	}
	return resp, asFault(err)
}

func (s *Service) createOnce(ctx context.Context, sub postern.Subject, name postern.TaskName, how taking) (*apiv1.CreateGrantResponse, error) {
	snapshot, err := s.policy()
	if err != nil {
		return nil, err
	}
	if err := locked(snapshot, sub, "", "", "", s.cfg.Now()); err != nil {
		return nil, err
	}
	offer, err := snapshot.Offer(sub, name, how.request)
	if err != nil {
		return nil, err
	}
	var g *typesv1.Grant
	var revision int64
	if offer.Approval != nil && offer.Approval.Scope == postern.ScopeGrant {
		if g, revision, err = s.approved(ctx, snapshot, sub, name, offer); err != nil {
			return nil, err
		}
	} else {
		if err := s.few(sub); err != nil {
			return nil, err
		}
		if g, err = s.draft(sub, offer, how.request); err != nil {
			return nil, err
		}
		g.Exchanged, g.GivenGrant = how.exchanged, how.given
		if err := s.activate(g, snapshot, shorter(offer.Duration, how.ttl), offer.Expires); err != nil {
			return nil, err
		}
	}
	resp := &apiv1.CreateGrantResponse{}
	if err := s.handOut(g, how, offer.Resources, resp); err != nil {
		return nil, err
	}
	op, err := put(g, revision)
	if err != nil {
		return nil, err
	}
	ops, err := s.unclosed(ctx, g)
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Audit.Commit(ctx, audit.Entry{Actor: sub.Name, Actors: sub.Actors(), Address: how.address, Action: "grant.create", Object: Kind + "/" + g.GetId(), Detail: about(g, "")}, append(ops, op)...); err != nil {
		return nil, fmt.Errorf("create grant: %w", err)
	}
	resp.Grant = show(g)
	for _, r := range offer.Resources {
		resp.Resources = append(resp.Resources, string(r))
	}
	return resp, nil
}

// approved is the subject's live grant for a task that people must say yes to.
func (s *Service) approved(ctx context.Context, snapshot *policy.Snapshot, sub postern.Subject, name postern.TaskName, offer policy.Offer) (*typesv1.Grant, int64, error) {
	g, _, err := s.pointed(ctx, pointer(takenKind, snapshot, sub, name), sub, name)
	if err != nil {
		return nil, 0, err
	}
	if Live(g, s.cfg.Now()) {
		why, err := s.unfounded(ctx, g, &sub)
		if err != nil {
			return nil, 0, err
		}
		if why == "" {
			return s.load(ctx, g.GetId())
		}
	}
	return nil, 0, s.mustAsk(ctx, snapshot, sub, name, offer)
}

// how checks what a caller of the API says of a taking.
func (s *Service) how(sub postern.Subject, task, reason, address string, ttl interface{ AsDuration() time.Duration }) (taking, error) {
	var v []fault.Violation
	if err := object.CheckName(task); err != nil {
		v = append(v, fault.Violation{Field: "task", Reason: err.Error()})
	}
	if len(reason) > maxReasonBytes {
		v = append(v, fault.Violation{Field: "reason", Reason: fmt.Sprintf("is longer than %d bytes", maxReasonBytes)})
	}
	d := ttl.AsDuration()
	if d < 0 {
		v = append(v, fault.Violation{Field: "ttl", Reason: "is less than nothing"})
	}
	if len(v) > 0 {
		return taking{}, fault.Invalid(v...)
	}
	if sub.Name == "" {
		return taking{}, fault.New(codes.Unauthenticated, "a token is needed").WithKind(postern.CodeBadToken.String())
	}
	return taking{
		request: policy.Request{Time: s.cfg.Now(), Address: address, Reason: reason, Ticket: policy.Ticket(reason)},
		address: address, ttl: d,
	}, nil
}

// Request asks people for a task. Where nobody must be asked, or somebody has said yes
// already, it answers with the grant and no hold; where the same waits already, with
// that. A grant's end never moves: who wants more time asks anew.
func (s *Service) Request(ctx context.Context, by Caller, req *apiv1.RequestGrantRequest) (*apiv1.RequestGrantResponse, error) {
	how, err := s.how(by.Subject, req.GetTask(), req.GetReason(), by.Address, req.GetTtl())
	if err != nil {
		return nil, err
	}
	how.extend = req.GetExtend()
	resp, err := store.Again(func() (*apiv1.RequestGrantResponse, error) {
		return s.requestOnce(ctx, by.Subject, postern.TaskName(req.GetTask()), how)
	})
	if store.IsConflict(err) {
		return nil, fault.Wrap(err, codes.Aborted, "the task could not be asked for; try again")
	}
	return resp, asFault(err)
}

func (s *Service) requestOnce(ctx context.Context, sub postern.Subject, name postern.TaskName, how taking) (*apiv1.RequestGrantResponse, error) {
	snapshot, err := s.policy()
	if err != nil {
		return nil, err
	}
	if err := locked(snapshot, sub, "", "", "", s.cfg.Now()); err != nil {
		return nil, err
	}
	offer, err := snapshot.Offer(sub, name, how.request)
	if err != nil {
		return nil, err
	}
	taken, held, err := s.pointed(ctx, pointer(takenKind, snapshot, sub, name), sub, name)
	if err != nil {
		return nil, err
	}
	ask := offer.Approval != nil && offer.Approval.Scope == postern.ScopeGrant
	if !ask || Live(taken, s.cfg.Now()) && !how.extend {
		g, err := s.takeOnce(ctx, sub, name, how)
		if err != nil {
			return nil, err
		}
		return &apiv1.RequestGrantResponse{Grant: show(g)}, nil
	}
	asked, before, err := s.pointed(ctx, pointer(askedKind, snapshot, sub, name), sub, name)
	if err != nil {
		return nil, err
	}
	if waiting(asked) {
		h, err := s.cfg.Approve.Get(ctx, approve.Caller{Subject: sub}, asked.GetHold())
		switch {
		case err != nil && fault.CodeOf(err) != codes.NotFound:
			return nil, err
		case err == nil && approve.Waiting(h) && s.cfg.Now().Before(h.GetExpireTime().AsTime()):
			return &apiv1.RequestGrantResponse{Grant: show(asked), Hold: h}, nil
		}
	}
	if err := s.few(sub); err != nil {
		return nil, err
	}
	g, err := s.draft(sub, offer, how.request)
	if err != nil {
		return nil, err
	}
	// The policy under which it was asked for; the one of its beginning replaces it.
	g.MinVersion = versionToWire(snapshot.Version())
	h, holdOp, err := s.cfg.Approve.PrepareGrant(g, offer.Approval.Rule, how.request.Reason, shorter(offer.Duration, how.ttl))
	if err != nil {
		return nil, err
	}
	g.Hold = h.GetId()
	op, err := put(g, 0)
	if err != nil {
		return nil, err
	}
	ops, err := s.unclosed(ctx, g)
	if err != nil {
		return nil, err
	}
	// What people say yes to meanwhile moves the pointer to what is taken.
	ops = append(ops, store.Op{Key: before.Key, Value: []byte(g.GetId()), If: before.Revision},
		store.Op{Key: held.Key, Check: true, If: held.Revision})
	_, err = s.cfg.Audit.Commit(ctx, audit.Entry{Actor: sub.Name, Actors: sub.Actors(), Address: how.address, Action: "grant.request", Object: Kind + "/" + g.GetId(), Detail: about(g, "")},
		append(ops, op, holdOp)...)
	if err != nil {
		return nil, fmt.Errorf("request grant: %w", err)
	}
	return &apiv1.RequestGrantResponse{Grant: show(g), Hold: h}, nil
}

// Get reads a grant that the caller may see.
func (s *Service) Get(ctx context.Context, by Caller, id string) (*typesv1.Grant, error) {
	g, _, err := s.load(ctx, id)
	if err != nil {
		return nil, err
	}
	if ok, err := s.may(ctx, by, g, "operator", "auditor", "admin"); err != nil || !ok {
		return nil, cmp.Or(err, errNoGrant(id))
	}
	return show(g), nil
}

// List reads the grants that the caller may see, newest first: of one subject where
// it is given, else the caller's own or, for who may see others', all of those.
func (s *Service) List(ctx context.Context, by Caller, subject string, active bool) ([]*typesv1.Grant, error) {
	all, err := s.legible(ctx)
	if err != nil {
		return nil, err
	}
	var grants []*typesv1.Grant
	for _, g := range all {
		if subject != "" && g.GetSubject().GetName() != subject || active && !Live(g, s.cfg.Now()) {
			continue
		}
		ok, err := s.may(ctx, by, g, "operator", "auditor", "admin")
		if err != nil {
			return nil, err
		}
		if ok {
			grants = append(grants, show(g))
		}
	}
	newestFirst(grants)
	return grants, nil
}

func newestFirst(grants []*typesv1.Grant) {
	slices.SortFunc(grants, func(a, b *typesv1.Grant) int {
		return cmp.Or(b.GetCreateTime().AsTime().Compare(a.GetCreateTime().AsTime()), strings.Compare(a.GetId(), b.GetId()))
	})
}

// Revoke ends a grant: the caller's own, or any for operators. It also tells
// the version in which it is over.
func (s *Service) Revoke(ctx context.Context, by Caller, id, reason string) (*typesv1.Grant, *typesv1.Version, error) {
	if len(reason) > maxReasonBytes {
		return nil, nil, fault.Invalid(fault.Violation{Field: "reason", Reason: fmt.Sprintf("is longer than %d bytes", maxReasonBytes)})
	}
	g, _, err := s.load(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	ok, err := s.may(ctx, by, g, "operator", "admin")
	if err != nil {
		return nil, nil, err
	}
	if !ok {
		if seen, _ := s.may(ctx, by, g, "auditor"); seen {
			return nil, nil, fault.New(codes.PermissionDenied, "grant %s is not yours, and you are no operator", id)
		}
		return nil, nil, errNoGrant(id)
	}
	if g.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE && !waiting(g) {
		return nil, nil, fault.New(codes.FailedPrecondition, "grant %s is over already: %s", id, g.GetEndReason())
	}
	why := "revoked by " + by.Subject.Name
	if reason != "" {
		why += ": " + reason
	}
	if err := s.end(ctx, id, audit.Entry{Actor: by.Subject.Name, Address: by.Address}, why); err != nil {
		return nil, nil, err
	}
	g, revision, err := s.load(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	snapshot, err := s.policy()
	if err != nil {
		return nil, nil, err
	}
	at := postern.Version{Epoch: snapshot.Version().Epoch, Revision: revision}
	s.enforce(ctx, at)
	return show(g), versionToWire(at), nil
}

// enforceWait bounds how long who has revoked a grant waits until it is over everywhere.
const enforceWait = 2 * time.Second

// enforce lets who has revoked a grant find it over.
func (s *Service) enforce(ctx context.Context, v postern.Version) {
	if s.cfg.Enforced == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, enforceWait)
	defer cancel()
	if err := s.cfg.Enforced(ctx, v); err != nil {
		s.cfg.Logger.WarnContext(ctx, "a grant that was revoked is not known to be over here yet", "version", v, "error", err)
	}
}

// may reports whether a grant is the caller's own, or that of a workload that the
// caller owns, or one of the roles reaches it.
func (s *Service) may(ctx context.Context, by Caller, g *typesv1.Grant, roles ...string) (bool, error) {
	sub := g.GetSubject()
	if by.Subject.Name == "" {
		return false, nil
	}
	if sub.GetName() == by.Subject.Name && sub.GetWorkload() == by.Subject.Workload {
		return true, nil
	}
	snapshot, err := s.policy()
	if err != nil {
		return false, err
	}
	if w, ok := findWorkload(snapshot, sub.GetWorkload()); ok && by.Subject.Workload == "" && w.GetSpec().GetOwner() == by.Subject.Name {
		return true, nil
	}
	for _, r := range by.Roles {
		if !slices.Contains(roles, r.Role) {
			continue
		}
		in, err := s.inScope(ctx, r.Scope, g.GetTask())
		if in || err != nil {
			return in, err
		}
	}
	return false, nil
}

// inScope reports whether a task carries the labels of a role's scope.
func (s *Service) inScope(ctx context.Context, scope map[string]string, task string) (bool, error) {
	if len(scope) == 0 {
		return true, nil
	}
	e, err := s.cfg.Store.Get(ctx, store.Key{Kind: "task", Name: task})
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read task %s: %w", task, err)
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return false, err
	}
	return object.Carries(object.Meta(o).GetLabels(), scope), nil
}
