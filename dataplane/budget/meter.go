// Package budget counts what sessions use against the limits of their task. The limits
// of a session are counted here alone. Those of a grant are kept by the control plane,
// which hands each node slices of them: a Book draws slices ahead of need, so that
// taking from one costs no call and no lock, and gives back what is not used. Without a
// slice nothing goes on. What is denied, and how it is said, is the gate's.
package budget

import (
	"math"
	"sync/atomic"
)

// A Meter counts one thing: rows, bytes or statements. It is safe for concurrent use.
type Meter struct {
	total  atomic.Int64 // what a node holds of a grant's limit; of no use for a session
	taken  atomic.Int64 // used, or set aside for what is under way
	used   atomic.Int64 // of what was taken; of no use where all that is taken is used at once
	others atomic.Int64 // used on other nodes, as far as is known
	low    atomic.Int64 // more is drawn where less than this is left
	share  *account     // nil where the limit is the session's own
}

// Used is what has been used, by other nodes too as far as is known.
func (m *Meter) Used() int64 { return m.used.Load() + m.others.Load() }

// Left is how much of the limit could be taken now without drawing more. A negative
// limit bounds nothing.
func (m *Meter) Left(limit int64) int64 {
	if limit < 0 {
		return math.MaxInt64
	}
	return max(m.bound(limit)-m.taken.Load(), 0)
}

func (m *Meter) bound(limit int64) int64 {
	if m.share != nil {
		return m.total.Load()
	}
	return limit
}

// Take sets up to n aside, and says how much: less where there is not as much. What is
// set aside is used or given back.
func (m *Meter) Take(limit, n int64) int64 {
	if n <= 0 {
		return 0
	}
	if limit < 0 { // counted all the same: a condition may ask how much was used
		m.taken.Add(n)
		return n
	}
	for {
		taken := m.taken.Load()
		left := m.bound(limit) - taken
		got := min(n, max(left, 0))
		if got > 0 && !m.taken.CompareAndSwap(taken, taken+got) {
			continue
		}
		if m.share != nil && left-got < m.low.Load() {
			m.share.wake()
		}
		return got
	}
}

// Give returns what was set aside and not used. A negative n sets aside what no limit
// bounded when it was used.
func (m *Meter) Give(n int64) { m.taken.Add(-n) }

// Use notes that n of what was set aside has been used.
func (m *Meter) Use(n int64) { m.used.Add(n) }

// A Count is a Meter of what is used as soon as it is taken.
type Count struct{ Meter }

// Used is what has been used, by other nodes too as far as is known.
func (c *Count) Used() int64 { return c.taken.Load() + c.others.Load() }

// A Budget is what one session, or all sessions of a grant on this node, may use. The
// zero Budget is a session's own.
type Budget struct {
	Rows, Bytes Meter
	Statements  Count
	Pace        *Pace // of the grant's sessions at this node
	share       *account
}

// Shared reports whether limits are counted for a grant, and not for a session alone.
func (b *Budget) Shared() bool { return b.share != nil }

// More waits a moment for more of m, one of b's meters, of which n are wanted. It is
// false where nothing more can be had now; why is nil where the limit is used up.
func (b *Budget) More(m *Meter, limit, n int64) (ok bool, why error) {
	if b.share == nil {
		return false, nil
	}
	return b.share.more(m, limit, n)
}
