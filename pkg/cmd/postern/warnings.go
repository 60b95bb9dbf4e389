package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
)

// soon is how long before its end a workload is warned of.
const soon = 7 * 24 * time.Hour

// warnings says which workloads will stop, or have nobody who could answer for them.
func warnings(workloads, locks []*typesv1.Object, now time.Time) []string {
	locked := map[string]string{} // subject to lock
	for _, o := range locks {
		s := o.GetLock().GetSpec()
		if e := s.GetExpires(); s.GetSubject() != "" && (e == nil || e.AsTime().After(now)) {
			locked[s.GetSubject()] = object.Name(o)
		}
	}
	var out []string
	for _, o := range workloads {
		name, spec := object.Name(o), o.GetWorkload().GetSpec()
		if lock := locked[spec.GetOwner()]; lock != "" {
			out = append(out, fmt.Sprintf("workload %s: its owner %s is locked by %s; give it another one", name, spec.GetOwner(), lock))
		}
		switch end := spec.GetExpires().AsTime(); {
		case !end.After(now):
			out = append(out, fmt.Sprintf("workload %s: it is over since %s", name, when(spec.GetExpires())))
		case end.Before(now.Add(soon)):
			out = append(out, fmt.Sprintf("workload %s: it ends at %s; its owner is %s", name, when(spec.GetExpires()), spec.GetOwner()))
		}
	}
	return out
}

// misspelt warns where a subject who is locked has left no trace here: locks go by the name that
// whoami shows, and one for another spelling keeps nobody out. It comes after the lock, which waits
// for nothing, and whoever may not look is told nothing.
func (a *app) misspelt(ctx context.Context, api *api, subject string) {
	sessions, err := api.sessions.ListSessions(ctx, connect.NewRequest(&apiv1.ListSessionsRequest{Subject: subject, PageSize: 1}))
	if err != nil || len(sessions.Msg.GetSessions()) > 0 {
		return
	}
	grants, err := api.grants.ListGrants(ctx, connect.NewRequest(&apiv1.ListGrantsRequest{Subject: subject}))
	if err != nil || len(grants.Msg.GetGrants()) > 0 {
		return
	}
	var named []*typesv1.Object
	for _, kind := range []string{"binding", "workload"} {
		some, err := list(ctx, api, kind)
		if err != nil {
			return
		}
		named = append(named, some...)
	}
	for _, o := range named {
		w := o.GetWorkload()
		if w != nil && (strings.EqualFold(object.Name(o), subject) || strings.EqualFold(w.GetSpec().GetOwner(), subject)) ||
			slices.ContainsFunc(o.GetBinding().GetSpec().GetSubjects(), func(s *typesv1.SubjectSelector) bool { return strings.EqualFold(s.GetSubject(), subject) }) {
			return
		}
	}
	a.say("warning: nobody called %q has had a session or a grant here, and no binding names them: see that it is the name which their `postern whoami` and `postern grants --all` show", subject)
}

// warn tells of workloads on standard error.
func (a *app) warn(ctx context.Context, api *api, workloads []*typesv1.Object) error {
	locks, err := list(ctx, api, "lock")
	if err != nil {
		return err
	}
	for _, w := range warnings(workloads, locks, time.Now()) {
		a.say("warning: %s", w)
	}
	return nil
}
