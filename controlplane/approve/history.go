package approve

import (
	"context"
	"fmt"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// History is what the asker of a hold has done with its task before, for those who may
// see the hold.
func (s *Service) History(ctx context.Context, h *typesv1.Hold) (*apiv1.HoldHistory, error) {
	out := &apiv1.HoldHistory{}
	if s.cfg.Sessions != nil {
		sessions, more, err := s.cfg.Sessions(ctx, h.GetSubject(), h.GetTask())
		if err != nil {
			return nil, fmt.Errorf("history of hold %s: %w", h.GetId(), err)
		}
		out.Truncated = more
		for _, one := range sessions {
			if one.GetId() == h.GetSession() || one.GetWorkload() != h.GetWorkload() {
				continue // the one that waits, or of somebody else of the same name
			}
			out.Sessions++
			out.Statements += one.GetStatements()
			out.Denied += one.GetDenied()
			start := one.GetStartTime()
			if out.FirstTime == nil || start.AsTime().Before(out.FirstTime.AsTime()) {
				out.FirstTime = start
			}
			if out.LastTime == nil || start.AsTime().After(out.LastTime.AsTime()) {
				out.LastTime = start
			}
		}
	}
	for _, other := range s.hub.all() {
		if other.GetId() == h.GetId() || askerOf(other) != askerOf(h) || other.GetTask() != h.GetTask() {
			continue
		}
		out.Asked++
		switch other.GetState() {
		case typesv1.HoldState_HOLD_STATE_APPROVED, typesv1.HoldState_HOLD_STATE_CONSUMED:
			out.Approved++
		case typesv1.HoldState_HOLD_STATE_REFUSED:
			out.Refused++
		case typesv1.HoldState_HOLD_STATE_UNSPECIFIED, typesv1.HoldState_HOLD_STATE_PENDING, typesv1.HoldState_HOLD_STATE_EXPIRED, typesv1.HoldState_HOLD_STATE_WITHDRAWN:
		}
	}
	return out, nil
}
