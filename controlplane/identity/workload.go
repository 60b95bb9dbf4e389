package identity

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/pkg/fault"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

func errNoWorkload(t *token) error {
	return bad("the token (issuer %.200q, audience %.200q) is not that of any workload that is known here", t.issuer(), audiences(t.claims))
}

// workload finds the workload whose own this token is. Known is false where a person's
// token may be meant: nothing of it has been believed then.
func (v *Verifier) workload(ctx context.Context, t *token) (sub postern.Subject, end time.Time, known bool, err error) {
	all := v.cfg.Workloads()
	aud := audiences(t.claims)
	var candidates []*typesv1.Workload
	for _, w := range all {
		trust := w.GetSpec().GetTrust()
		if trust.GetIssuer() == "" || trust.GetAudience() == "" || trust.GetWhen() == "" {
			continue // a rule that says less would trust every token of an issuer
		}
		if trust.GetIssuer() == t.issuer() && slices.Equal(aud, []string{trust.GetAudience()}) {
			candidates = append(candidates, w)
		}
	}
	if len(candidates) == 0 {
		return sub, end, false, nil
	}
	iss, people, err := v.workloadIssuer(t.issuer(), all)
	if err != nil {
		return sub, end, false, fault.Wrap(err, codes.Unauthenticated, "the token's issuer %q cannot be used", t.issuer()).WithKind(postern.CodeBadToken.String())
	}
	claims, end, err := iss.verify(ctx, t, want{is: aud[0], hint: func(have []string) string {
		return fmt.Sprintf("the token is for %.200q, and %q is wanted", have, aud[0])
	}})
	if err != nil {
		return sub, end, false, err
	}
	var match *typesv1.Workload
	for _, w := range candidates {
		ok, err := policy.MatchWorkload(w, iss.url, aud, claims)
		if err != nil {
			v.cfg.Logger.DebugContext(ctx, "workload condition failed", "workload", w.GetMetadata().GetName(), "error", err)
			continue // an error denies
		}
		if !ok {
			continue
		}
		if match != nil {
			return sub, end, false, bad("the token fits two workloads, %s and %s; their trust rules must tell them apart", match.GetMetadata().GetName(), w.GetMetadata().GetName())
		}
		match = w
	}
	switch {
	case match == nil && people:
		return sub, end, false, nil
	case match == nil:
		return sub, end, false, errNoWorkload(t)
	}
	name := match.GetMetadata().GetName()
	expires := match.GetSpec().GetExpires()
	switch {
	case match.GetSpec().GetOwner() == "":
		return sub, end, false, bad("workload %q has no owner, and is refused until it has one", name)
	case expires == nil || !v.cfg.Now().Before(expires.AsTime()):
		return sub, end, false, bad("workload %q is over; its owner %s can extend it", name, match.GetSpec().GetOwner())
	case expires.AsTime().Before(end):
		end = expires.AsTime()
	}
	return postern.Subject{Name: name, Workload: name, Claims: others(claims)}, end, true, nil
}

// workloadIssuer is the issuer with this URL: one at which people sign in too, or one
// that a workload's trust rule names.
func (v *Verifier) workloadIssuer(url string, all []*typesv1.Workload) (i *issuer, people bool, err error) {
	for _, p := range v.issuers {
		if p.URL == url {
			return p.issuer, true, nil
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if i := v.extra[url]; i != nil {
		return i, false, nil
	}
	for known := range v.extra { // forget those that no rule names any more
		if !slices.ContainsFunc(all, func(w *typesv1.Workload) bool { return w.GetSpec().GetTrust().GetIssuer() == known }) {
			delete(v.extra, known)
		}
	}
	client := v.cfg.HTTPClient
	if client == nil {
		client = &http.Client{}
	}
	i, err = newIssuer(url, defaultAlgorithms, defaultLeeway, client, v.cfg.Now)
	if err == nil {
		v.extra[url] = i
	}
	return i, false, err
}
