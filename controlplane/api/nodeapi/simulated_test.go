package nodeapi_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/dataplane/control"
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/gate"
	"github.com/posterngate/postern/dataplane/lease"
	"github.com/posterngate/postern/dataplane/session"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/run"
)

// loans are a node's leases, each known by its grant.
type loans struct {
	book *lease.Book

	mu   sync.Mutex
	lent map[*lease.Lease]postern.GrantID
}

func (l *loans) Take(ctx context.Context, s postern.SessionID, g postern.GrantID, r postern.ResourceName, p engine.Purpose) (session.Loan, error) {
	got, err := l.book.Take(ctx, s, g, r, p)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lent[got] = g
	return got, nil
}

// held are the grants for whose sessions there is a credential which can still be used.
func (l *loans) held() []postern.GrantID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []postern.GrantID
	for one, g := range l.lent {
		if one.Use(func(*engine.Credential) error { return nil }) != nil {
			delete(l.lent, one)
			continue
		}
		out = append(out, g)
	}
	return out
}

// mute keeps no record.
type mute struct{}

func (mute) Begin(gate.Opened) (rec, raw gate.Recorder, err error) { return mute{}, nil, nil }
func (mute) Healthy() error                                        { return nil }
func (mute) Record(*record.Event, policy.RecordMode) error         { return nil }
func (mute) Idle() bool                                            { return true }
func (mute) Close(string) error                                    { return nil }

// simNode is a node with its sessions and leases, whose clock is wrong by skew.
type simNode struct {
	*node
	*loans
	keeper *session.Keeper
	skew   time.Duration
	stop   func()
}

func (h *house) simNode(id *control.Identity, w *wire, skew time.Duration) *simNode {
	n := &simNode{node: h.node(id, w, "a:1", "b:1"), skew: skew}
	stopNode := h.stops[len(h.stops)-1]
	h.stops = h.stops[:len(h.stops)-1]
	now := func() time.Time { return time.Now().Add(skew) }
	n.loans = &loans{
		book: lease.NewBook(lease.Config{Node: id.Name(), Key: id.HPKEKey, Control: n.Client, Logger: discard, Now: now}),
		lent: map[*lease.Lease]postern.GrantID{},
	}
	n.keeper = session.New(session.Config{
		Node: id.Name(), Region: "eu-1", Control: n.Client, Snapshots: n.holder, Leases: n.loans, Records: mute{}, Now: now, Logger: discard,
		Budgets: budget.NewBook(budget.Config{Process: "p", Control: n.Client, Logger: discard, Now: now}),
	})
	g := run.New(context.Background())
	g.Go("keeper", n.keeper.Run)
	g.Go("leases", n.book.Run)
	n.stop = func() {
		g.Stop()
		_ = g.Wait()
		stopNode()
	}
	return n
}

// simGrants are the grants of all replicas, as their store has them.
type simGrants struct {
	mu   sync.Mutex
	made map[postern.GrantID]*typesv1.Grant
}

func (g *simGrants) put(one *typesv1.Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.made[postern.GrantID(one.GetId())] = one
}

func (g *simGrants) get(id postern.GrantID) *typesv1.Grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.made[id]
}

// simSource lends users that live until they are revoked, or their bound.
type simSource struct {
	mu    sync.Mutex
	made  int
	users map[string]simUser
}

type simUser struct {
	grant postern.GrantID
	until time.Time
}

func (s *simSource) Issue(ctx context.Context, r credential.Request) (credential.Issued, error) {
	s.mu.Lock()
	s.made++
	name := fmt.Sprint("user-", s.made)
	s.mu.Unlock()
	if err := r.Record(ctx, []byte(name)); err != nil {
		return credential.Issued{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[name] = simUser{r.Grant, r.Until}
	return credential.Issued{Credential: &nodev1.Credential{Account: name, Password: []byte("x")}, Handle: []byte(name), Expires: r.Until}, nil
}

func (s *simSource) Renew(_ context.Context, h []byte, until time.Time) (time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, ok := s.users[string(h)]; ok && u.until.Before(until) {
		return u.until, nil
	}
	return until, nil
}

func (s *simSource) Revoke(_ context.Context, h []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, string(h))
	return nil
}

// live are the users that can log in now, by name.
func (s *simSource) live() map[string]simUser {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]simUser{}
	for name, u := range s.users {
		if time.Now().Before(u.until) {
			out[name] = u
		}
	}
	return out
}

// simLending says what a replica may lend.
type simLending struct {
	*replica
	grants *simGrants
}

func (l simLending) Resource(_ postern.NodeName, r postern.ResourceName) (*typesv1.Resource, bool) {
	return l.hub.Snapshot().Resource(r)
}

func (l simLending) Login(t postern.TaskName, r postern.ResourceName) (*typesv1.CredentialRef, bool) {
	return l.hub.Snapshot().Login(t, r)
}

func (simLending) HostLogin(postern.TaskName) policy.HostLogin          { return policy.HostLogin{} }
func (simLending) Tokens(postern.TaskName) map[string]*postern.MaskRule { return nil }
func (simLending) Alone(postern.TaskName) time.Duration                 { return simStale + simGrace }

func (l simLending) Locked(g *typesv1.Grant, r postern.ResourceName, n postern.NodeName) string {
	reason, _, _ := l.hub.Snapshot().Locked(g.GetSubject().GetName(), "", postern.GrantID(g.GetId()), r, n, time.Now())
	return reason
}

func (l simLending) Grant(_ context.Context, id postern.GrantID) (*typesv1.Grant, error) {
	if g := l.grants.get(id); g != nil {
		return g, nil
	}
	return nil, fault.New(codes.NotFound, "no grant %q", id)
}

// simReplica starts a control plane that lends from a source.
func (h *house) simReplica(f *farStore, source *simSource, grants *simGrants) *replica {
	h.t.Helper()
	r := h.replica(f)
	broker, err := credential.New(credential.Config{
		Store: f, Policy: simLending{r, grants}, Keeper: plainKeeper{}, Vault: source, Logger: discard, TTL: simTTL,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	r.fakes.broker = broker
	r.group.Go("broker", func(ctx context.Context) error {
		if err := broker.Run(ctx); ctx.Err() == nil {
			return errors.Join(errors.New("the sweeper ended"), err)
		}
		return nil
	})
	return r
}
