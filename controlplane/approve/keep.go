package approve

import (
	"time"

	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// Every replica has all holds in memory, with statements as long as people can be shown: who
// asks, and takes back, and asks again, must not fill it, nor the store.
const (
	// keep is how long a settled hold can be read, and maxKept how many of one subject's.
	keep    = 7 * 24 * time.Hour
	maxKept = 200
	// maxAsked bounds how often one subject asks of sessions and statements within lately.
	maxAsked = 60
	lately   = time.Minute
)

// asker is a subject as holds name it.
type asker struct{ subject, workload string }

func askerOf(h *typesv1.Hold) asker { return asker{h.GetSubject(), h.GetWorkload()} }

// stands reports whether h is the yes of a grant, which is asked for as long as the grant lives.
func stands(h *typesv1.Hold) bool {
	return scopeGrant(h) && h.GetState() == typesv1.HoldState_HOLD_STATE_APPROVED
}

// keptUntil is until when a settled hold is kept: the yes of a grant no shorter than that may
// live.
func keptUntil(h *typesv1.Hold) time.Time {
	due := h.GetExpireTime().AsTime().Add(keep)
	duration, err := time.ParseDuration(h.GetDuration())
	if n := len(h.GetApprovals()); stands(h) && err == nil && n > 0 {
		if end := h.GetApprovals()[n-1].GetTime().AsTime().Add(duration); end.After(due) {
			return end
		}
	}
	return due
}

// tooMany are those of settled holds that are forgotten before their time: of each subject all
// but the newest.
func tooMany(holds []*typesv1.Hold) map[string]bool {
	if len(holds) <= maxKept {
		return nil
	}
	newestFirst(holds)
	of, out := map[asker]int{}, map[string]bool{}
	for _, h := range holds {
		if open(h) || stands(h) {
			continue
		}
		if of[askerOf(h)]++; of[askerOf(h)] > maxKept {
			out[h.GetId()] = true
		}
	}
	return out
}

// asked counts what a subject has asked since an instant, but for grants.
func (h *hub) asked(who asker, since time.Time) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, hold := range h.holds {
		if askerOf(hold) == who && !scopeGrant(hold) && hold.GetCreateTime().AsTime().After(since) {
			n++
		}
	}
	return n
}
