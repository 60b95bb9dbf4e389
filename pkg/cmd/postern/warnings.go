package main

import (
	"context"
	"fmt"
	"time"

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
