// Package steward raises an alert for each workload that needs somebody: whose owner is
// locked, as who has left is, or that ends within a week. An alert is an entry of the
// audit log, once for as long as it lasts, and a metric for as long as it does.
package steward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/policy"
)

// soon is how long before its end a workload is told of.
const soon = 7 * 24 * time.Hour

// kind is that of the marks of what was told, in the store.
const kind = "alert"

// look is how often time alone is looked at; a change of policy is at once.
const look = 30 * time.Second

// Config is what a Steward works with; all is required.
type Config struct {
	Store    store.Store
	Snapshot func() *policy.Snapshot
	Changed  func() (changes <-chan struct{}, stop func())
	Audit    *audit.Log
	Logger   *slog.Logger
	Now      func() time.Time
}

// A Steward watches workloads. Every replica may run one: an alert is told once.
type Steward struct{ cfg Config }

// New makes a Steward.
func New(cfg Config) *Steward { return &Steward{cfg} }

// Needs is what there is to tell now.
func (s *Steward) Needs() []policy.Need {
	now := s.cfg.Snapshot()
	if now == nil || now.Version().IsZero() {
		return nil
	}
	return now.Needs(s.cfg.Now(), soon)
}

// Run tells of each need once, until ctx is done.
func (s *Steward) Run(ctx context.Context) error {
	changed, stop := s.cfg.Changed()
	defer stop()
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		if err := s.tell(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.WarnContext(ctx, "workloads that need somebody were not told of; retrying", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick.C:
		}
	}
}

// tell writes what is new and forgets what has passed, so that it is told again when it
// comes back.
func (s *Steward) tell(ctx context.Context) error {
	if s.cfg.Snapshot().Version().IsZero() {
		return nil
	}
	told, _, err := s.cfg.Store.List(ctx, kind, "", 0)
	if err != nil {
		return fmt.Errorf("list alerts: %w", err)
	}
	passed := make(map[string]store.Entry, len(told))
	for _, e := range told {
		passed[e.Name] = e
	}
	var errs []error
	for _, n := range s.Needs() {
		name := n.Workload + "." + n.Why
		if _, ok := passed[name]; ok {
			delete(passed, name)
			continue
		}
		_, err := s.cfg.Audit.Commit(ctx, audit.Entry{
			Actor: "postern", Action: "workload.alert", Object: "workload/" + n.Workload, Outcome: n.Why,
			Detail: map[string]any{"owner": n.Owner, "text": n.Text},
		}, store.Op{Key: store.Key{Kind: kind, Name: name}, Value: []byte(n.Text)})
		if store.IsConflict(err) {
			continue // another replica was first
		}
		if errs = append(errs, err); err == nil {
			s.cfg.Logger.WarnContext(ctx, "workload needs somebody", "workload", n.Workload, "owner", n.Owner, "why", n.Why)
		}
	}
	for name, e := range passed {
		_, err := s.cfg.Store.Commit(ctx, store.Op{Key: store.Key{Kind: kind, Name: name}, Delete: true, If: e.Revision})
		if !store.IsConflict(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
