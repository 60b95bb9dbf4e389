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
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// maxActors bounds a chain of those who act for one another.
const maxActors = 8

// bearerOf is who takes a task by tokens in the request: a workload for itself or, with
// somebody's token, for them (RFC 8693). What it gets for them is bound by what they may
// do, and ends with either token.
func (s *Service) bearerOf(ctx context.Context, req *apiv1.CreateGrantRequest) (postern.Subject, time.Time, error) {
	if !s.workloads.AllowN(s.cfg.Now(), 1) {
		return postern.Subject{}, time.Time{}, fault.New(codes.ResourceExhausted, "workloads take more than %d grants a second; try again", workloadRate).WithKind(postern.CodeLimit.String())
	}
	agent, end, err := s.cfg.Verifier.Workload(ctx, req.GetWorkloadToken())
	if err != nil || req.GetSubjectToken() == "" {
		return agent, time.Time{}, err
	}
	sub, until, err := s.given(ctx, req.GetSubjectToken(), postern.TaskName(req.GetTask()))
	if err != nil {
		return postern.Subject{}, time.Time{}, err
	}
	switch chain := sub.Actors(); {
	case sub.Name == agent.Name || slices.Contains(chain, agent.Name):
		return postern.Subject{}, time.Time{}, fault.New(codes.PermissionDenied, "%s cannot act for itself", agent.Name).WithKind(postern.CodeDenied.String())
	case len(chain) == maxActors:
		return postern.Subject{}, time.Time{}, fault.New(codes.PermissionDenied, "%d act for %s already, one for the other, which is the most", maxActors, sub.Name).WithKind(postern.CodeDenied.String())
	default:
		sub.Actor, sub.Via = agent.Name, chain
	}
	snapshot, err := s.policy()
	if err != nil {
		return postern.Subject{}, time.Time{}, err
	}
	if why := acts(snapshot, &sub, s.cfg.Now()); why != "" {
		return postern.Subject{}, time.Time{}, fault.New(codes.PermissionDenied, "%s", why).WithKind(postern.CodeDenied.String())
	}
	if end.Before(until) {
		until = end
	}
	return sub, until, nil
}

// given is whose a token is that was given in exchange, and until when: an OIDC token for
// listeners, or a grant token, which is good for its own task alone.
func (s *Service) given(ctx context.Context, token string, task postern.TaskName) (postern.Subject, time.Time, error) {
	if !strings.HasPrefix(token, tokenPrefix) {
		return s.cfg.Verifier.Data(ctx, token)
	}
	g, err := s.ofToken(ctx, token, task)
	if err != nil {
		return postern.Subject{}, time.Time{}, err
	}
	return noun.SubjectOf(g.GetSubject()), g.GetEndTime().AsTime(), nil
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
