package gate

import (
	"errors"
	"fmt"

	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// What an execution sets aside beyond what it needs at the moment, so that it seldom has
// to ask; never more than a quarter of what is left.
const (
	rowsAhead  = 256
	bytesAhead = 64 << 10
)

// spend takes one statement out of the budget, and sees that there are rows and bytes.
func (g *Gate) spend(t *policy.Terms, d *postern.Decision) error {
	b := g.cfg.Budget
	if d.Effect == postern.EffectNone {
		b.Statements.Take(-1, 1) // a transaction can be ended whatever was used
		return nil
	}
	if ok, after := b.Pace.Allow(g.cfg.Now(), t.Rate); !ok {
		return &postern.Refusal{
			Code: postern.CodeLimit, Rule: string(g.cfg.Task) + policy.LimitsSuffix,
			Reason: fmt.Sprintf("task %q allows %s, and more came", g.cfg.Task, t.Rate), Hint: "try again in a moment", After: after,
		}
	}
	if err := g.some(&b.Rows, t.Rows, "rows"); err != nil {
		return err
	}
	if err := g.some(&b.Bytes, t.Bytes, "bytes"); err != nil {
		return err
	}
	for b.Statements.Take(t.Statements, 1) == 0 {
		if ok, why := b.More(&b.Statements.Meter, t.Statements, 1); !ok {
			return g.spent("statements", t.Statements, why)
		}
	}
	return nil
}

func (g *Gate) some(m *budget.Meter, limit int64, what string) error {
	for m.Left(limit) == 0 {
		if ok, why := g.cfg.Budget.More(m, limit, 1); !ok {
			return g.spent(what, limit, why)
		}
	}
	return nil
}

func (g *Gate) spent(what string, limit int64, why error) error {
	r := &postern.Refusal{
		Code: postern.CodeLimit, Rule: string(g.cfg.Task) + policy.LimitsSuffix, Cause: why,
		Reason: fmt.Sprintf("task %q allows %d %s, and they are used up", g.cfg.Task, limit, what), Hint: "ask for less, or take the task again later",
	}
	switch {
	case errors.Is(why, budget.ErrHeld):
		r.Reason = fmt.Sprintf("task %q allows %d %s for a grant, and sessions on other nodes hold what is left of them", g.cfg.Task, limit, what)
		r.Hint = "end those sessions, or try again in a moment"
	case why != nil:
		r.Reason = fmt.Sprintf("task %q allows %d %s for a grant; this node's share is used up, and no more could be had", g.cfg.Task, limit, what)
		r.Detail, r.Hint = budget.ErrUnreachable.Error(), "try again in a moment"
	}
	return r
}

// An allotment is what one execution has set aside of one meter.
type allotment struct {
	meter *budget.Meter
	limit int64 // of the task; negative bounds nothing
	most  int64 // of this execution; negative bounds nothing
	aside int64
}

// start is what the flow may pass on before it asks for more.
func (a *allotment) start() int64 {
	if a.limit >= 0 {
		return 0
	}
	return a.most
}

// more sets n aside, or less where less is left; and up to ahead more.
func (a *allotment) more(b *budget.Budget, n, ahead int64) int64 {
	if a.limit < 0 {
		return 0 // all was said at the start
	}
	ahead = min(ahead, a.meter.Left(a.limit)/4)
	if a.most >= 0 {
		n = min(n, a.most-a.aside)
		ahead = min(ahead, a.most-a.aside-n)
	}
	if n <= 0 {
		return 0
	}
	got := a.meter.Take(a.limit, n+ahead)
	for got < n {
		if ok, _ := b.More(a.meter, a.limit, n-got); !ok {
			break
		}
		got += a.meter.Take(a.limit, n-got)
	}
	a.aside += got
	return got
}

// settle gives back what was set aside and not used, or counts what was used without.
func (a *allotment) settle(used int64) {
	if a.aside != used {
		a.meter.Give(a.aside - used)
	}
}
