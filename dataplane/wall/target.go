package wall

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posterngate/postern/dataplane/engine"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// A loan is an admin credential.
type loan interface {
	Use(fn func(*engine.Credential) error) error
	Release(ctx context.Context) error
}

// borrow takes the admin credential of a resource; again while it lives, the same.
type borrow func(ctx context.Context, r postern.ResourceName) (loan, error)

// A target is one resource as a wall keeps it. One thing is done at a time, by whoever
// holds turn.
type target struct {
	name   postern.ResourceName
	borrow borrow
	grace  time.Duration
	now    func() time.Time

	turn chan struct{} // has room for one

	// Guarded by turn.
	conn   *pgx.Conn
	loan   loan                 // what conn has logged in with; nil before that
	at     *typesv1.Endpoint    // where conn goes
	built  map[string]error     // by schema of a wall: nil once the target is as it says
	leftAt map[string]time.Time // when a schema was first found to be asked for no more
	idleAt map[string]time.Time // when a filtered view was first found to have no reader
}

// idleViews is how long a filtered view stays that no login may read. It is longer than
// nodes believe a catalogue, so that one who comes back soon finds what they know.
const idleViews = 10 * time.Minute

func newTarget(name postern.ResourceName, b borrow, grace time.Duration) *target {
	return &target{
		name: name, borrow: b, grace: grace, now: time.Now,
		turn: make(chan struct{}, 1), built: map[string]error{}, leftAt: map[string]time.Time{}, idleAt: map[string]time.Time{},
	}
}

// with gives fn a connection when it is the caller's turn. A connection that is broken is
// made anew the next time.
func (t *target) with(ctx context.Context, snap *policy.Snapshot, fn func(conn *pgx.Conn, res *typesv1.Resource) error) error {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	res, ok := snap.Resource(t.name)
	if !ok {
		return fmt.Errorf("resource %q is not served by this wall", t.name)
	}
	if res.GetSpec().GetLevel().GetAdmin() == nil {
		return fmt.Errorf("resource %q names no admin credential", t.name)
	}
	if t.conn == nil || t.conn.IsClosed() || t.at != res.GetSpec().GetEndpoint() {
		t.hangUp()
		l, err := t.borrow(ctx, t.name)
		if err != nil {
			return err
		}
		t.loan = l
		err = l.Use(func(c *engine.Credential) (err error) {
			t.conn, err = connect(ctx, res, c)
			return err
		})
		if err != nil {
			return err
		}
		t.at = res.GetSpec().GetEndpoint()
	}
	return fn(t.conn, res)
}

// hangUp closes the connection; turn must be held.
func (t *target) hangUp() {
	if t.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = t.conn.Close(ctx)
	t.conn = nil
}

// close waits for its turn, so that nothing is cut off half-way.
func (t *target) close() {
	t.turn <- struct{}{}
	t.hangUp()
	<-t.turn
}

// leave hangs up where it is not to be kept any more, and gives back what was borrowed for that.
func (t *target) leave(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	t.hangUp()
	if t.loan == nil {
		return nil
	}
	err := t.loan.Release(ctx)
	t.loan = nil
	return err
}

// keep makes the target what every task asks for, and sweeps what none does.
func (t *target) keep(ctx context.Context, snap *policy.Snapshot) error {
	return t.with(ctx, snap, func(conn *pgx.Conn, _ *typesv1.Resource) error {
		walls := snap.Walls(t.name)
		old, err := t.old(ctx, conn, walls)
		if err != nil {
			return err
		}
		var errs []error
		built := map[string]error{}
		for _, w := range walls {
			err := build(ctx, conn, w, old, t.spare)
			if built[w.Schema] = err; err == nil {
				continue
			}
			errs = append(errs, err)
			if ctx.Err() != nil || conn.IsClosed() {
				break
			}
		}
		t.built = built
		errs = append(errs, sweep(ctx, conn, t.name, walls, old))
		return errors.Join(errs...)
	})
}

// spare reports whether a filtered view stays for now: while a login may read it, and for
// a while after.
func (t *target) spare(view string, read bool) bool {
	now := t.now()
	maps.DeleteFunc(t.idleAt, func(_ string, at time.Time) bool { return now.Sub(at) > 2*idleViews }) // gone with their schemas
	switch {
	case read:
		delete(t.idleAt, view)
	case t.idleAt[view].IsZero():
		t.idleAt[view] = now
	case now.Sub(t.idleAt[view]) >= idleViews:
		return false
	}
	return true
}

// old are the schemas that no task asks for any more and that sessions may still use for a
// while.
func (t *target) old(ctx context.Context, conn *pgx.Conn, walls []policy.Wall) (map[string]bool, error) {
	have, err := schemasOf(ctx, conn, t.name)
	if err != nil {
		return nil, err
	}
	for _, w := range walls {
		delete(have, w.Schema)
		delete(t.leftAt, w.Schema)
	}
	old := map[string]bool{}
	for s := range have {
		if t.leftAt[s].IsZero() {
			t.leftAt[s] = t.now()
		}
		owned := false // by a task that is still there
		for _, w := range walls {
			owned = owned || have[s] == w.Owner
		}
		if owned && t.now().Sub(t.leftAt[s]) < t.grace {
			old[s] = true
		}
	}
	for s := range t.leftAt {
		if have[s] == "" {
			delete(t.leftAt, s)
		}
	}
	return old, nil
}

// waits reports whether something is left that must go soon; turn need not be held long.
func (t *target) waits(ctx context.Context) bool {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return false
	}
	return len(t.leftAt) > 0
}

// login makes a login for a session of a task, whose wall stands first.
func (t *target) login(ctx context.Context, snap *policy.Snapshot, req *nodev1.MakeLogin) (account string, err error) {
	w, ok := snap.Wall(postern.TaskName(req.GetTask()), t.name)
	if !ok {
		return "", fmt.Errorf("task %q has no wall on resource %q", req.GetTask(), t.name)
	}
	account, err = loginName(t.name, req.GetLease())
	if err != nil {
		return "", err
	}
	subject := noun.SubjectOf(req.GetSubject())
	rules, err := snap.Shown(w.Task, t.name, &subject)
	if err != nil {
		return "", err
	}
	until := req.GetExpireTime().AsTime()
	if !until.After(t.now()) {
		return "", errors.New("the login would have ended already")
	}
	return account, t.with(ctx, snap, func(conn *pgx.Conn, _ *typesv1.Resource) error {
		if err, done := t.built[w.Schema]; err != nil || !done {
			old, err := t.old(ctx, conn, snap.Walls(t.name))
			if err == nil {
				err = build(ctx, conn, w, old, t.spare)
			}
			if t.built[w.Schema] = err; err != nil {
				return err
			}
		}
		return makeLogin(ctx, conn, w, rules, account, req.GetVerifier(), until)
	})
}

// drop ends a login.
func (t *target) drop(ctx context.Context, snap *policy.Snapshot, lease string) error {
	login, err := loginName(t.name, lease)
	if err != nil {
		return err
	}
	return t.with(ctx, snap, func(conn *pgx.Conn, _ *typesv1.Resource) error { return dropLogin(ctx, conn, login) })
}

// inspect looks for what weakens the resource's level.
func (t *target) inspect(ctx context.Context, snap *policy.Snapshot) (out *nodev1.Inspection, err error) {
	err = t.with(ctx, snap, func(conn *pgx.Conn, res *typesv1.Resource) error {
		walls := snap.Walls(t.name)
		if out, err = examine(ctx, conn, res, walls); err != nil {
			return err
		}
		for _, w := range walls {
			st := &nodev1.WallState{Task: string(w.Task), Role: w.Role, Schema: w.Schema}
			err, done := t.built[w.Schema]
			if st.Ready = done && err == nil; err != nil {
				st.Problem = problem(err)
			}
			out.Walls = append(out.Walls, st)
		}
		return nil
	})
	return out, err
}

// problem words an error in one line.
func problem(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
