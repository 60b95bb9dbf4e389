// Package wall keeps tasks as privileges of the targets themselves (level native): for
// each task a role, views that show what it permits, and a login for each session. A
// postern-wall runs beside the nodes, for only they reach the targets, and alone borrows
// admin credentials. It serves no client and sees no statement. What a task's wall
// consists of is said by policy; who gets a login is for the control plane.
package wall

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/control"
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/lease"
	"github.com/posterngate/postern/dataplane/snapshot"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/release"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/telemetry"
)

// purposeAdmin is what a wall borrows for, and nobody else.
const purposeAdmin engine.Purpose = "admin"

const (
	policyWait = 3 * time.Second  // of a command for the policy that it speaks of
	keepWait   = 60 * time.Second // of one look at one resource
	soon       = 2 * time.Second  // to the next look where something is about to go
)

// A Wall is one postern-wall process.
type Wall struct {
	cfg     Config
	log     *slog.Logger
	policy  *snapshot.Holder
	control *control.Client
	leases  *lease.Book
	debug   *telemetry.Debug

	mu      sync.Mutex
	targets map[postern.ResourceName]*target
}

func identityDir(cfg Config) string { return filepath.Join(cfg.DataDir, "identity") }

// New makes a wall: it enrols where it has to. Nothing is kept before Run.
func New(ctx context.Context, cfg Config, tel *telemetry.T) (*Wall, error) {
	w := &Wall{cfg: cfg, log: tel.Logger.With("wall", cfg.Name), policy: snapshot.New(), targets: map[postern.ResourceName]*target{}}
	id, err := control.OpenIdentity(ctx, identityDir(cfg), cfg.JoinTokenFile, control.EnrolConfig{Addrs: cfg.ControlPlane, Name: cfg.Name})
	if err != nil {
		return nil, err
	}
	w.control = control.New(control.Config{
		Addrs: cfg.ControlPlane, Identity: id, Process: rand.Text(), Snapshot: w.policy, OnCommand: w.command,
		Report: w.report, Release: release.Version,
		DialOptions: control.Traced(), Logger: w.log,
	})
	w.leases = lease.NewBook(lease.Config{Node: id.Name(), Key: id.HPKEKey, Control: w.control, Logger: w.log})
	if cfg.Debug != "" {
		if w.debug, err = telemetry.NewDebug(cfg.Debug, tel, w.Ready); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// report says what is kept here.
func (w *Wall) report() *nodev1.NodeReport {
	r := &nodev1.NodeReport{Leases: int64(w.leases.Len())}
	snap := w.policy.Current()
	for _, name := range snap.Resources() {
		if res, _ := snap.Resource(name); res.GetSpec().GetLevel().GetAdmin() != nil {
			r.Resources = append(r.Resources, string(name))
		}
	}
	return r
}

// Ready says why the wall keeps nothing now, or nil.
func (w *Wall) Ready(context.Context) error {
	if !w.control.Connected() {
		return errors.New("the control plane does not answer")
	}
	return nil
}

// Run keeps walls until ctx is done. They stand when it has ended.
func (w *Wall) Run(ctx context.Context) error {
	parts := []run.Part{
		{Name: "control", Run: w.control.Run}, {Name: "leases", Run: w.leases.Run}, {Name: "walls", Run: w.keep},
	}
	if w.debug != nil {
		parts = append(parts, run.Part{Name: "debug", Run: w.debug.Run})
	}
	w.log.Info("wall serves", "release", release.Version)
	return run.All(ctx, parts...)
}

// keep has every resource looked at, each at a pace of its own: one that is slow or gone delays
// no other.
func (w *Wall) keep(ctx context.Context) error {
	changed, stop := w.policy.Subscribe()
	defer stop()
	defer w.hangUp()
	g := run.New(ctx)
	kept := map[postern.ResourceName]bool{}
	for {
		snap := w.policy.Current()
		for _, name := range snap.Resources() {
			if res, _ := snap.Resource(name); res.GetSpec().GetLevel().GetAdmin() != nil && !kept[name] {
				kept[name] = true
				g.Go("wall of "+string(name), func(ctx context.Context) error { return w.keepOne(ctx, name) })
			}
		}
		select {
		case <-changed:
		case <-g.Context().Done():
			return errors.Join(g.Wait(), ctx.Err())
		}
	}
}

// keepOne looks at a resource at each change of policy and as time passes.
func (w *Wall) keepOne(ctx context.Context, name postern.ResourceName) error {
	changed, stop := w.policy.Subscribe()
	defer stop()
	for {
		wait := time.Duration(w.cfg.Every)
		if w.look(ctx, name) {
			wait = min(wait, soon)
		}
		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-changed:
			again.Stop()
		case <-again.C:
		}
	}
}

// look looks at a resource once, if it is to be kept, and leaves it otherwise. It is true where
// that must be done again soon.
func (w *Wall) look(ctx context.Context, name postern.ResourceName) (again bool) {
	snap := w.policy.Current()
	ctx, cancel := context.WithTimeout(ctx, keepWait)
	defer cancel()
	t := w.target(name)
	if res, _ := snap.Resource(name); res.GetSpec().GetLevel().GetAdmin() == nil {
		if err := t.leave(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("an admin credential was not given back; its loan runs out", "resource", string(name), "error", err)
		}
		return false
	}
	err := t.keep(ctx, snap)
	if err != nil && ctx.Err() == nil {
		w.log.Error("wall does not stand", "resource", string(name), "error", err)
	}
	return err != nil || t.waits(ctx)
}

func (w *Wall) target(name postern.ResourceName) *target {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.targets[name]
	if t == nil {
		t = newTarget(name, w.borrow, time.Duration(w.cfg.Grace))
		w.targets[name] = t
	}
	return t
}

func (w *Wall) hangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.targets {
		t.close()
	}
}

// borrow takes the admin credential of a resource on loan.
func (w *Wall) borrow(ctx context.Context, r postern.ResourceName) (loan, error) {
	l, err := w.leases.Take(ctx, postern.SessionID("wall-"+string(r)), "", r, purposeAdmin)
	if err != nil {
		return nil, fmt.Errorf("borrow the admin credential of %s: %w", r, err)
	}
	return l, nil
}

// command does what the control plane asks for.
func (w *Wall) command(ctx context.Context, c *nodev1.Command) *nodev1.CommandResult {
	out := &nodev1.CommandResult{}
	var err error
	switch c := c.GetKind().(type) {
	case *nodev1.Command_MakeLogin:
		var snap *policy.Snapshot
		if snap, err = w.at(ctx, c.MakeLogin); err == nil {
			out.Account, err = w.target(postern.ResourceName(c.MakeLogin.GetResource())).login(ctx, snap, c.MakeLogin)
		}
	case *nodev1.Command_DropLogin:
		err = w.target(postern.ResourceName(c.DropLogin.GetResource())).drop(ctx, w.policy.Current(), c.DropLogin.GetLease())
	case *nodev1.Command_Inspect:
		out.Inspection, err = w.target(postern.ResourceName(c.Inspect.GetResource())).inspect(ctx, w.policy.Current())
	case *nodev1.Command_InspectAccounts:
		var since time.Time
		if at := c.InspectAccounts.GetRefusedSince(); at != nil {
			since = at.AsTime()
		}
		out.Accounts, err = w.target(postern.ResourceName(c.InspectAccounts.GetResource())).accounts(ctx, w.policy.Current(), since)
	case *nodev1.Command_SetPassword:
		err = w.target(postern.ResourceName(c.SetPassword.GetResource())).setPassword(ctx, w.policy.Current(), c.SetPassword.GetAccount(), c.SetPassword.GetVerifier())
	case *nodev1.Command_Drain, *nodev1.Command_KillSession, *nodev1.Command_EndSignIn, *nodev1.Command_CancelQuery, *nodev1.Command_ReturnBudget:
		return out // it has no sessions
	default:
		err = errors.New("a wall does not know this command")
	}
	if err != nil {
		w.log.Warn("command failed", "error", err)
		return &nodev1.CommandResult{Error: problem(err)}
	}
	out.Done = true
	return out
}

// at is the policy once it is what a request speaks of.
func (w *Wall) at(ctx context.Context, req *nodev1.MakeLogin) (*policy.Snapshot, error) {
	wait, cancel := context.WithTimeout(ctx, policyWait)
	defer cancel()
	v := postern.Version{Epoch: req.GetVersion().GetEpoch(), Revision: req.GetVersion().GetRevision()}
	if err := w.policy.WaitFor(wait, v); err != nil {
		return nil, fmt.Errorf("this wall does not have the newest policy yet: %w", err)
	}
	return w.policy.Current(), nil
}
