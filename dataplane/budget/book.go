package budget

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// Control is where budgets are kept.
type Control interface {
	DrawBudget(ctx context.Context, req *nodev1.DrawBudgetRequest) (*nodev1.DrawBudgetResponse, error)
}

// Config is what a Book works with.
type Config struct {
	Process string // the node's process, as its stream names it
	Control Control
	Logger  *slog.Logger
	Now     func() time.Time
}

const (
	// slicesPerLimit is how many slices a limit is cut into: a node that is lost takes at most
	// about one with it.
	slicesPerLimit = 16
	// moreTimeout bounds the wait of a statement for a slice.
	moreTimeout = 2 * time.Second
	// askAgain is how long a statement waits before it asks for what others may have
	// given back.
	askAgain = 20 * time.Millisecond
	// drawTimeout bounds one call.
	drawTimeout = 3 * time.Second
	// sweepEvery is how often what could not be given back is tried again.
	sweepEvery = time.Second
	// settleTimeout bounds the giving back when the node stops.
	settleTimeout = 3 * time.Second
)

// Reasons why there is no more.
var (
	// ErrHeld says that nodes hold the rest.
	ErrHeld = errors.New("other nodes hold what is left")
	// ErrUnreachable says that the control plane did not answer.
	ErrUnreachable = errors.New("the control plane, which keeps the budget of the grant, does not answer")
)

// A Book has the budgets of the grants that have sessions on this node. It is safe for
// concurrent use.
type Book struct {
	cfg Config

	mu       sync.Mutex
	accounts map[postern.GrantID]*account
	due      []*account
	kick     chan struct{}
}

// NewBook makes an empty Book; its Run must run.
func NewBook(cfg Config) *Book {
	return &Book{cfg: cfg, accounts: map[postern.GrantID]*account{}, kick: make(chan struct{}, 1)}
}

// Open counts a session of a grant, whose limits are in t, and returns what it may use
// with the function that ends it. A *postern.Refusal says that there is no room.
func (b *Book) Open(ctx context.Context, g *postern.Grant, t policy.Terms) (*Budget, func(), error) {
	a := b.account(g)
	if err := a.enter(ctx, t); err != nil {
		return nil, nil, err
	}
	leave := sync.OnceFunc(a.leave)
	if t.PerGrant {
		return &a.budget, leave, nil
	}
	return &Budget{Pace: a.budget.Pace}, leave, nil
}

func (b *Book) account(g *postern.Grant) *account {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[g.ID]
	if a == nil {
		a = newAccount(b, g)
		b.accounts[g.ID] = a
	}
	return a
}

// Return gives back half of what is not used of a grant's budget, and reports whether
// there was something.
func (b *Book) Return(ctx context.Context, id postern.GrantID) bool {
	b.mu.Lock()
	a := b.accounts[id]
	b.mu.Unlock()
	return a != nil && a.giveBack(ctx)
}

// Run draws and gives back until ctx is done.
func (b *Book) Run(ctx context.Context) error {
	g := run.New(ctx)
	g.Go("budgets", func(ctx context.Context) error {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-b.kick:
			case <-tick.C:
				b.sweep()
			}
			for _, a := range b.take() {
				g.Go("draw", func(ctx context.Context) error {
					a.queued.Store(false)
					a.draw(ctx)
					return nil
				})
			}
		}
	})
	return g.Wait()
}

func (b *Book) queue(a *account) {
	b.mu.Lock()
	b.due = append(b.due, a)
	b.mu.Unlock()
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

func (b *Book) take() []*account {
	b.mu.Lock()
	defer b.mu.Unlock()
	due := b.due
	b.due = nil
	return due
}

// sweep wakes the accounts that have something to say still, and forgets those whose
// grant has ended.
func (b *Book) sweep() {
	now := b.cfg.Now()
	b.mu.Lock()
	var late []*account
	for id, a := range b.accounts {
		idle, owes := a.standing()
		if idle && now.After(a.until) {
			delete(b.accounts, id)
		} else if owes {
			late = append(late, a)
		}
	}
	b.mu.Unlock()
	for _, a := range late {
		a.wake()
	}
}

// Settle gives back what is left once the last session has ended. It is for a node that
// stops.
func (b *Book) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	b.mu.Lock()
	all := make([]*account, 0, len(b.accounts))
	for _, a := range b.accounts {
		all = append(all, a)
	}
	b.mu.Unlock()
	for _, a := range all {
		if _, owes := a.standing(); owes {
			a.draw(ctx)
		}
	}
}
