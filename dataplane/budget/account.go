package budget

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// An account is one grant on this node. Sessions take from its budget without a lock;
// draw, under calling, is the one that changes what it holds.
type account struct {
	book   *Book
	grant  postern.GrantID
	task   postern.TaskName
	until  time.Time
	budget Budget
	queued atomic.Bool

	calling sync.Mutex // held over a call: one at a time
	seq     uint64

	mu       sync.Mutex // guards what follows
	limits   [3]int64   // as they were last heard of; negative bounds nothing
	sessions int64
	counted  bool          // whether the control plane counts the sessions or the use
	perGrant bool          // whether it counts the use
	owes     bool          // whether it has yet to be told something
	allowed  int64         // sessions, by the last answer
	wanted   [3]int64      // by statements that wait
	spent    [3]bool       // whether nobody has anything left, by the last answer
	held     [3]bool       // whether others hold what is left, by the last answer
	failed   error         // of the last call
	answered chan struct{} // closed and replaced by every answer
}

func newAccount(b *Book, g *postern.Grant) *account {
	a := &account{book: b, grant: g.ID, task: g.Task, until: g.End, answered: make(chan struct{})}
	a.budget.share, a.budget.Pace = a, &Pace{}
	for _, m := range a.meters() {
		m.share = a
	}
	return a
}

func (a *account) meters() [3]*Meter {
	return [3]*Meter{&a.budget.Rows, &a.budget.Bytes, &a.budget.Statements.Meter}
}

// enter counts one session more, with the control plane's consent where a limit asks
// for it.
func (a *account) enter(ctx context.Context, t policy.Terms) error {
	a.calling.Lock()
	a.mu.Lock()
	a.limits = [3]int64{t.Rows, t.Bytes, t.Statements}
	a.sessions++
	mine := a.sessions
	limited := t.Sessions >= 0 || t.PerGrant && (t.Rows >= 0 || t.Bytes >= 0 || t.Statements >= 0)
	a.perGrant = a.perGrant || t.PerGrant
	if !limited && !a.counted {
		a.mu.Unlock()
		a.calling.Unlock()
		return nil
	}
	a.counted, a.owes = true, true
	a.mu.Unlock()
	err := a.call(ctx)
	a.mu.Lock()
	full := err == nil && t.Sessions >= 0 && a.allowed < mine
	a.mu.Unlock()
	a.calling.Unlock()
	if !limited || err == nil && !full {
		return nil
	}
	a.leave()
	if full {
		return &postern.Refusal{Code: postern.CodeLimit, Reason: fmt.Sprintf("task %q allows %d sessions at once", a.task, t.Sessions), Rule: string(a.task) + policy.LimitsSuffix, Hint: "close another session first"}
	}
	return postern.AsRefusal(err)
}

// leave counts one session less.
func (a *account) leave() {
	a.mu.Lock()
	a.sessions--
	a.owes = a.owes || a.counted
	wake := a.counted
	a.mu.Unlock()
	if wake {
		a.wake()
	}
}

// standing reports whether the account has no sessions and nothing to give back, and
// whether it owes the control plane a word.
func (a *account) standing() (idle, owes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sessions == 0, a.owes
}

// wake has the Book draw soon.
func (a *account) wake() {
	if a.queued.CompareAndSwap(false, true) {
		a.book.queue(a)
	}
}

// more waits for more of m, whose limit is given.
func (a *account) more(m *Meter, limit, n int64) (bool, error) {
	deadline := time.NewTimer(moreTimeout)
	defer deadline.Stop()
	i := a.index(m)
	a.mu.Lock()
	a.limits[i] = limit // it may have come after the session
	a.counted, a.perGrant = true, true
	a.wanted[i] += n
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		a.wanted[i] -= n
		a.mu.Unlock()
	}()
	for {
		a.mu.Lock()
		answered := a.answered
		a.mu.Unlock()
		a.wake()
		select {
		case <-answered:
		case <-deadline.C:
			return false, ErrUnreachable
		}
		if m.total.Load() > m.taken.Load() {
			return true, nil
		}
		a.mu.Lock()
		failed, spent, held := a.failed, a.spent[i], a.held[i]
		a.mu.Unlock()
		switch {
		case failed != nil:
			return false, fmt.Errorf("%w: %w", ErrUnreachable, failed)
		case spent:
			return false, nil
		case !held:
			continue // that answer was to another question
		}
		again := time.NewTimer(askAgain)
		select {
		case <-again.C:
		case <-deadline.C:
			again.Stop()
			return false, ErrHeld
		}
	}
}

func (a *account) index(m *Meter) int {
	meters := a.meters()
	return slices.Index(meters[:], m)
}

func (a *account) draw(ctx context.Context) {
	a.calling.Lock()
	defer a.calling.Unlock()
	_ = a.call(ctx) // kept in failed, and tried again
}

// giveBack lowers what is held by half of what is not used.
func (a *account) giveBack(ctx context.Context) bool {
	a.calling.Lock()
	defer a.calling.Unlock()
	some := false
	for _, m := range a.meters() {
		some = a.lower(m, (m.total.Load()-m.taken.Load()+1)/2) || some
	}
	if some {
		a.mu.Lock()
		a.owes = true
		a.mu.Unlock()
		_ = a.call(ctx)
	}
	return some
}

// lower gives up to n of m up. It is taken first, so that no session can.
func (a *account) lower(m *Meter, n int64) bool {
	for {
		taken := m.taken.Load()
		got := min(n, m.total.Load()-taken)
		if got <= 0 {
			return false
		}
		if m.taken.CompareAndSwap(taken, taken+got) {
			m.total.Add(-got)
			m.taken.Add(-got)
			return true
		}
	}
}

// call says what the account wants to hold, and takes in what it holds then. The caller
// holds calling.
func (a *account) call(ctx context.Context) error {
	a.mu.Lock()
	sessions, wanted, limits, perGrant, owes, counted := a.sessions, a.wanted, a.limits, a.perGrant, a.owes, a.counted
	a.owes = false
	a.mu.Unlock()
	if !counted {
		return nil
	}
	meters := a.meters()
	if sessions == 0 {
		for _, m := range meters {
			owes = a.lower(m, m.total.Load()) || owes
		}
	}
	var have, want [3]int64
	used := [3]int64{a.budget.Rows.used.Load(), a.budget.Bytes.used.Load(), a.budget.Statements.taken.Load()}
	for i, m := range meters {
		have[i] = m.total.Load()
		want[i] = have[i]
		if !perGrant || limits[i] < 0 || sessions == 0 {
			continue
		}
		left, slice := have[i]-m.taken.Load(), sliceOf(limits[i])
		if left < low(slice) || left < wanted[i] {
			want[i] = have[i] + max(max(slice, wanted[i])-left, 0)
		}
	}
	if want == have && !owes {
		a.answer(nil)
		return nil
	}
	a.seq++
	ctx, cancel := context.WithTimeout(ctx, drawTimeout)
	defer cancel()
	resp, err := a.book.cfg.Control.DrawBudget(ctx, &nodev1.DrawBudgetRequest{
		Grant: string(a.grant), Process: a.book.cfg.Process, Sequence: a.seq,
		Have: wire(have), Want: wire(want), Used: wire(used), Sessions: sessions,
	})
	if err != nil {
		a.mu.Lock()
		a.owes = true
		a.mu.Unlock()
		a.answer(err)
		a.book.cfg.Logger.WarnContext(ctx, "budget was not drawn", "grant", a.grant, "error", err)
		return err
	}
	total, elsewhere, others := measures(resp.GetTotal()), measures(resp.GetElsewhere()), measures(resp.GetHeld())
	var spent, held [3]bool
	for i, m := range meters {
		m.others.Store(max(elsewhere[i], 0))
		switch more := total[i] - have[i]; {
		case more > want[i]-have[i], total[i] < 0: // nobody asked for that
		case more > 0:
			m.total.Add(more)
		case more < 0:
			a.lower(m, -more)
		}
		short := total[i] < want[i]
		spent[i], held[i] = short && others[i] <= 0, short && others[i] > 0
		ahead := int64(0)
		if perGrant && limits[i] >= 0 && !short { // where there is no more, only who needs some asks
			ahead = low(sliceOf(limits[i]))
		}
		m.low.Store(ahead)
	}
	a.mu.Lock()
	a.allowed, a.spent, a.held = resp.GetSessions(), spent, held
	a.mu.Unlock()
	a.answer(nil)
	return nil
}

// sliceOf is how much of a limit is held ahead of need, and low when the next is drawn.
func sliceOf(limit int64) int64 { return max(limit/slicesPerLimit, 1) }

func low(slice int64) int64 { return max(slice/2, 1) }

// answer tells those who wait how the call went.
func (a *account) answer(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed = err
	close(a.answered)
	a.answered = make(chan struct{})
}

func wire(m [3]int64) *nodev1.Budget {
	return &nodev1.Budget{Rows: m[0], Bytes: m[1], Statements: m[2]}
}

func measures(b *nodev1.Budget) [3]int64 {
	return [3]int64{b.GetRows(), b.GetBytes(), b.GetStatements()}
}
