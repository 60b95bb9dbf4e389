package spool

import (
	"container/heap"
	"time"
)

// ages are the sessions of which something is to be stored, as a heap: first the one with
// the oldest record. It is guarded by Spool.mu.
type ages []*session

func (a ages) Len() int           { return len(a) }
func (a ages) Less(i, j int) bool { return a[i].lacks.Before(a[j].lacks) }
func (a ages) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].rank, a[j].rank = i+1, j+1
}

func (a *ages) Push(x any) {
	ses := x.(*session)
	*a = append(*a, ses)
	ses.rank = len(*a)
}

func (a *ages) Pop() any {
	last := len(*a) - 1
	ses := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	ses.rank = 0
	return ses
}

// age notes that the oldest record of a session may have become another one; s.mu is held.
func (s *Spool) age(ses *session) {
	since := ses.oldest()
	switch {
	case since.IsZero() || s.sessions[ses.id] != ses:
		if ses.rank > 0 {
			heap.Remove(&s.ages, ses.rank-1)
		}
	case ses.rank == 0:
		ses.lacks = since
		heap.Push(&s.ages, ses)
	case !since.Equal(ses.lacks):
		ses.lacks = since
		heap.Fix(&s.ages, ses.rank-1)
	}
}

// oldest is how old the oldest record is that is to be stored; zero for none.
func (a ages) oldest(now time.Time) time.Duration {
	if len(a) == 0 {
		return 0
	}
	return max(0, now.Sub(a[0].lacks))
}

// second is oldest without the first session.
func (a ages) second(now time.Time) time.Duration {
	var most time.Duration
	for i := 1; i < min(3, len(a)); i++ { // one of these two is it
		most = max(most, a[i:].oldest(now))
	}
	return most
}
