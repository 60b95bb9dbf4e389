package blast

import (
	"context"
	"fmt"
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

// ofToken finds out what a token is. One that is good nowhere is dead, not an error.
func (s *Service) ofToken(ctx context.Context, token string) (*apiv1.GetBlastResponse, error) {
	if strings.HasPrefix(token, "pst_") {
		g, why, err := s.cfg.Grants.Opens(ctx, token)
		if fault.CodeOf(err) == codes.NotFound {
			return dead("grant token", fault.From(err).Reason), nil
		}
		if err != nil {
			return nil, err
		}
		return s.ofGrant(g, "grant token", why), nil
	}
	sub, until, err := s.cfg.Verifier.Data(ctx, token)
	if err == nil {
		return s.ofLogin(ctx, sub, until)
	}
	no := err // of the audience that is expected, or what is wrong with it at all
	if sub, until, err = s.cfg.Verifier.Authenticate(ctx, token); err == nil {
		return s.ofAPI(sub, until), nil
	}
	for _, err := range []error{no, err} {
		if fault.CodeOf(err) != codes.Unauthenticated {
			return nil, err // that it is good cannot be ruled out
		}
	}
	return dead("token", fault.From(no).Reason), nil
}

// ofGrant is what opens one grant: a grant token or certificate.
func (s *Service) ofGrant(g *typesv1.Grant, opener, why string) *apiv1.GetBlastResponse {
	sub := noun.SubjectOf(g.GetSubject())
	resp := &apiv1.GetBlastResponse{Thing: fmt.Sprintf("%s of %s for task %s, grant %s", opener, who(&sub), g.GetTask(), g.GetId()), Dead: why}
	if why != "" {
		return resp
	}
	resp.Stops = []string{"postern revoke " + g.GetId() + " --reason stolen", lock("grant", g.GetId())}
	if strings.HasSuffix(opener, "certificate") {
		resp.Notes = append(resp.Notes, "a certificate is of no use without its private key")
	}
	resp.Reaches = s.connects(g)
	return last(resp)
}

func who(sub *postern.Subject) string {
	if chain := sub.Actors(); len(chain) > 0 {
		return strings.Join(chain, " for ") + " for " + sub.Name
	}
	return sub.Name
}

// connects are the sessions that a live grant opens.
func (s *Service) connects(g *typesv1.Grant) []*apiv1.Reach {
	var out []*apiv1.Reach
	for _, r := range s.reached(postern.TaskName(g.GetTask())) {
		one := &apiv1.Reach{
			Act: Connect, Addresses: s.listeners(r), Subject: g.GetSubject().GetName(), Task: g.GetTask(), Resource: string(r),
			Rights: s.rights(postern.TaskName(g.GetTask()), r), EndTime: g.GetEndTime(),
			Terms: s.cfg.Snapshot().ConnectTerms(postern.TaskName(g.GetTask()), noun.ApprovalOf(g.GetApproval())),
		}
		out = append(out, one)
	}
	return out
}

// reached are the resources of a task that are not locked.
func (s *Service) reached(t postern.TaskName) []postern.ResourceName {
	snap := s.cfg.Snapshot()
	var out []postern.ResourceName
	for _, r := range snap.Resources() {
		if _, ok := snap.Login(t, r); !ok {
			continue
		}
		if _, _, locked := snap.Locked("", "", "", r, "", s.cfg.Now()); !locked {
			out = append(out, r)
		}
	}
	return out
}

// ofLogin is an OIDC token for listeners: a person's, or a workload's own. Each session
// goes on to the end of its grant, which may begin in the token's last moment.
func (s *Service) ofLogin(ctx context.Context, sub postern.Subject, until time.Time) (*apiv1.GetBlastResponse, error) {
	thing := "login of " + sub.Name + " for listeners"
	resp := &apiv1.GetBlastResponse{Thing: thing, Stops: []string{lock("subject", sub.Name)}}
	if sub.Workload != "" {
		resp.Thing = "token of workload " + sub.Workload
		resp.Stops = []string{lock("workload", sub.Workload)}
		resp.Notes = append(resp.Notes, s.deputy(sub.Workload)...)
	}
	if reason, name, ok := s.cfg.Snapshot().LockedFor(&sub, "", "", "", s.cfg.Now()); ok {
		return dead(resp.GetThing(), fmt.Sprintf("%s (lock %s)", reason, name)), nil
	}
	held, err := s.cfg.Grants.Held(ctx, sub)
	if err != nil {
		return nil, err
	}
	have := map[string]bool{} // tasks of which a live grant is used
	for _, g := range held {
		have[g.GetTask()] = true
		resp.Reaches = append(resp.Reaches, s.connects(g)...)
	}
	for _, c := range s.cfg.Snapshot().Chances(sub, s.cfg.Now()) {
		if asks(c) || sub.Workload == "" && ticket(c) {
			continue // nobody asks at a listener, or names a ticket there
		}
		for _, one := range s.chance(sub, c, until) {
			if have[string(c.Task)] {
				one.Terms = append(one.Terms, "once the grant that is live now is over")
			}
			resp.Reaches = append(resp.Reaches, one)
			if sub.Workload != "" {
				taken := &apiv1.Reach{Act: Take, Subject: one.GetSubject(), Task: one.GetTask(), Resource: one.GetResource(), Rights: one.GetRights(), Terms: one.GetTerms(), EndTime: one.GetEndTime()}
				resp.Reaches = append(resp.Reaches, taken)
			}
		}
	}
	resp.Notes = append(resp.Notes, "the token itself ends at "+until.UTC().Format(time.RFC3339)+"; sessions that it opened before go on to the end of their grants")
	return last(resp), nil
}

// deputy says for whom a workload may act, who shows it a token of theirs.
func (s *Service) deputy(name string) []string {
	var groups []string
	for _, w := range s.cfg.Snapshot().Workloads() {
		if w.GetMetadata().GetName() != name {
			continue
		}
		for _, sel := range w.GetSpec().GetActsFor() {
			groups = append(groups, policy.SelectorText(sel))
		}
	}
	if len(groups) == 0 {
		return nil
	}
	return []string{"with a token of theirs as well, it acts for " + strings.Join(groups, ", ")}
}

// ofAPI is an OIDC token for the API.
func (s *Service) ofAPI(sub postern.Subject, until time.Time) *apiv1.GetBlastResponse {
	resp := &apiv1.GetBlastResponse{Thing: "login of " + sub.Name + " for the API", Stops: []string{lock("subject", sub.Name)}}
	if reason, name, ok := s.cfg.Snapshot().LockedFor(&sub, "", "", "", s.cfg.Now()); ok {
		return dead(resp.GetThing(), fmt.Sprintf("%s (lock %s)", reason, name))
	}
	call := &apiv1.Reach{Act: Call, Subject: sub.Name, EndTime: at(until)}
	for _, m := range s.cfg.Methods(sub) {
		call.Rights = append(call.Rights, &apiv1.BlastRight{Verb: Call, Object: m})
	}
	resp.Reaches = append(resp.Reaches, call)
	for _, c := range s.cfg.Snapshot().Chances(sub, s.cfg.Now()) {
		for _, one := range s.chance(sub, c, until) {
			one.Act, one.Addresses = Take, nil
			resp.Reaches = append(resp.Reaches, one)
		}
	}
	resp.Notes = []string{"a grant that is taken comes with a token that opens it at listeners: what the task allows is what the thief has then"}
	return last(resp)
}

func asks(c policy.Chance) bool {
	return c.Approval != nil && c.Approval.Scope == postern.ScopeGrant
}

func ticket(c policy.Chance) bool { return c.Bound != nil && c.Bound.GetClaim() == "" }

// chance is what an offer comes to at each resource, for a token that is good until then.
func (s *Service) chance(sub postern.Subject, c policy.Chance, until time.Time) []*apiv1.Reach {
	end := until.Add(c.Duration)
	if !c.Expires.IsZero() && c.Expires.Before(end) {
		end = c.Expires
	}
	if until.IsZero() {
		end = c.Expires
	}
	var terms []string
	if c.When != "" {
		terms = append(terms, "only when "+c.When)
	}
	terms = append(terms, s.cfg.Snapshot().ConnectTerms(c.Task, c.Approval)...)
	if ticket(c) {
		terms = append(terms, "for a ticket that is open")
	}
	var out []*apiv1.Reach
	for _, r := range s.reached(c.Task) {
		out = append(out, &apiv1.Reach{
			Act: Connect, Addresses: s.listeners(r), Subject: sub.Name, Task: string(c.Task), Resource: string(r),
			Rights: s.rights(c.Task, r), Terms: terms, EndTime: at(end),
		})
	}
	return out
}
