package task

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// maxActors bounds a chain of those who act for one another.
const maxActors = 8

// bearerOf is who takes a task by tokens in the request: a workload for itself or, with
// somebody's token, for them (RFC 8693). What it gets for them is bound by what they may
// do, and ends with either token; of is the grant of somebody's token where that is a
// grant token.
func (s *Service) bearerOf(ctx context.Context, req *apiv1.CreateGrantRequest) (sub postern.Subject, until time.Time, of string, err error) {
	no := func(err error) (postern.Subject, time.Time, string, error) {
		return postern.Subject{}, time.Time{}, "", err
	}
	if !s.workloads.AllowN(s.cfg.Now(), 1) {
		return no(fault.New(codes.ResourceExhausted, "workloads take more than %d grants a second; try again", workloadRate).WithKind(postern.CodeLimit.String()))
	}
	agent, end, err := s.cfg.Verifier.Workload(ctx, req.GetWorkloadToken())
	if err != nil || req.GetSubjectToken() == "" {
		return agent, time.Time{}, "", err
	}
	sub, until, of, err = s.given(ctx, req.GetSubjectToken(), postern.TaskName(req.GetTask()))
	if err != nil {
		return no(err)
	}
	switch chain := sub.Actors(); {
	case sub.Name == agent.Name || slices.Contains(chain, agent.Name):
		return no(fault.New(codes.PermissionDenied, "%s cannot act for itself", agent.Name).WithKind(postern.CodeDenied.String()))
	case len(chain) == maxActors:
		return no(fault.New(codes.PermissionDenied, "%d act for %s already, one for the other, which is the most", maxActors, sub.Name).WithKind(postern.CodeDenied.String()))
	default:
		sub.Actor, sub.Via = agent.Name, chain
	}
	snapshot, err := s.policy()
	if err != nil {
		return no(err)
	}
	if why := acts(snapshot, &sub, s.cfg.Now()); why != "" {
		return no(fault.New(codes.PermissionDenied, "%s", why).WithKind(postern.CodeDenied.String()))
	}
	if end.Before(until) {
		until = end
	}
	return sub, until, of, nil
}

// given is whose a token is that was given in exchange, and until when: an OIDC token for
// listeners, or a grant token, which is good for its own task alone; then it tells its
// grant too.
func (s *Service) given(ctx context.Context, token string, task postern.TaskName) (sub postern.Subject, until time.Time, of string, err error) {
	if !strings.HasPrefix(token, tokenPrefix) {
		sub, until, err = s.cfg.Verifier.Data(ctx, token)
		return sub, until, "", err
	}
	g, err := s.ofToken(ctx, token, task)
	if err != nil {
		return postern.Subject{}, time.Time{}, "", err
	}
	return noun.SubjectOf(g.GetSubject()), g.GetEndTime().AsTime(), g.GetId(), nil
}

// givenOverText says that the grant is over whose token was given in exchange for another one,
// and why, where it did not end by its time.
func givenOverText(given *typesv1.Grant) string {
	const text = "the grant whose token was given in exchange for it is over"
	why := given.GetEndReason()
	switch {
	case why == "":
		return text
	case strings.HasPrefix(why, text): // it was exchanged for itself
		return why
	}
	return text + ": " + why
}

// givenOver is givenOverText where that is so of a grant, as this replica has heard, or nothing.
func (s *Service) givenOver(g *typesv1.Grant) (why string, err error) {
	if g.GetGivenGrant() == "" {
		return "", nil
	}
	e, ok := s.cache.View().Get(grantKey(g.GetGivenGrant()))
	if !ok {
		return "", nil // not heard of yet, or forgotten: then its end was this one's too
	}
	of, err := decode(e)
	if err != nil || Live(of, s.cfg.Now()) {
		return "", err
	}
	return givenOverText(of), nil
}

// acts says why the workload that acts for a subject must not, or nothing where it may.
func acts(snapshot *policy.Snapshot, sub *postern.Subject, now time.Time) string {
	w, ok := findWorkload(snapshot, sub.Actor)
	if !ok || w.GetSpec().GetOwner() == "" || !now.Before(w.GetSpec().GetExpires().AsTime()) {
		return fmt.Sprintf("workload %q is over", sub.Actor)
	}
	if !policy.ActsFor(w, sub) {
		return fmt.Sprintf("workload %q may not act for %s: its owner says for whom it may (spec.actsFor)", sub.Actor, sub.Name)
	}
	return ""
}
