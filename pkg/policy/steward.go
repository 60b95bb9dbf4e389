package policy

import (
	"fmt"
	"time"
)

// A Need is a workload that somebody must look after.
type Need struct {
	Workload string
	Owner    string
	Why      string // owner-locked, ends-soon or over
	Text     string // for people
}

// Why a workload needs somebody.
const (
	OwnerLocked = "owner-locked" // its owner is locked, as who has left is
	EndsSoon    = "ends-soon"
	IsOver      = "over"
)

// Needs lists the workloads whose owner cannot answer for them any more, and those that
// end within soon, by name.
func (s *Snapshot) Needs(now time.Time, soon time.Duration) []Need {
	var out []Need
	for _, w := range s.workloads {
		name, owner, end := w.GetMetadata().GetName(), w.GetSpec().GetOwner(), w.GetSpec().GetExpires().AsTime()
		add := func(why, format string, args ...any) {
			out = append(out, Need{name, owner, why, fmt.Sprintf(format, args...)})
		}
		for _, t := range [...]lockTarget{{"subject", owner}, {"workload", owner}} {
			if l := s.standing(t, now); l != nil {
				add(OwnerLocked, "its owner %s is locked by %s; give it another one", owner, l.GetMetadata().GetName())
				break
			}
		}
		switch {
		case !now.Before(end):
			add(IsOver, "it is over since %s", end.UTC().Format(time.RFC3339))
		case end.Sub(now) < soon:
			add(EndsSoon, "it ends at %s; its owner is %s", end.UTC().Format(time.RFC3339), owner)
		}
	}
	return out
}
