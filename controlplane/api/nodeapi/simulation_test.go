//go:build simulate

// Built for make simulate alone: now and then gRPC's client spins on a way that was cut until
// time goes on, which virtual time then never does.

package nodeapi_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/dataplane/control"
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/gate"
	"github.com/posterngate/postern/dataplane/session"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
)

const (
	// simulations is how many schedules run where POSTERN_SIMULATIONS says nothing.
	simulations = 60
	// The task's bounds, and what a session may take to end once it must.
	simStale, simGrace = 3 * time.Second, 2 * time.Second
	simSlack           = 500 * time.Millisecond
	maxSkew            = time.Minute
)

// kept stands for what a session needs beside policy: it remembers what was lent.
type kept struct {
	mu    sync.Mutex
	loans map[*lent]postern.GrantID
}

type lent struct{ kept *kept }

func (k *kept) Take(_ context.Context, _ postern.SessionID, g postern.GrantID, _ postern.ResourceName, _ engine.Purpose) (session.Loan, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := &lent{k}
	k.loans[l] = g
	return l, nil
}

func (l *lent) Use(fn func(*engine.Credential) error) error { return fn(&engine.Credential{}) }
func (*lent) Done() <-chan struct{}                         { return nil }
func (*lent) Err() error                                    { return nil }
func (l *lent) Release(context.Context) error {
	l.kept.mu.Lock()
	defer l.kept.mu.Unlock()
	delete(l.kept.loans, l)
	return nil
}

func (*kept) Begin(gate.Opened) (gate.Recorder, error)     { return mute{}, nil }
func (*kept) Healthy() error                               { return nil }
func (mute) Record(*record.Event, policy.RecordMode) error { return nil }
func (mute) Close(string) error                            { return nil }

type mute struct{}

// simNode is a node with its sessions, whose clock is wrong by skew.
type simNode struct {
	*node
	*kept
	keeper *session.Keeper
	skew   time.Duration
	stop   func()
}

func (h *house) simNode(id *control.Identity, w *wire, skew time.Duration) *simNode {
	n := &simNode{node: h.node(id, w, "a:1", "b:1"), kept: &kept{loans: map[*lent]postern.GrantID{}}, skew: skew}
	stopNode := h.stops[len(h.stops)-1]
	h.stops = h.stops[:len(h.stops)-1]
	now := func() time.Time { return time.Now().Add(skew) }
	n.keeper = session.New(session.Config{
		Node: "n1", Region: "eu-1", Control: n.Client, Snapshots: n.holder, Leases: n.kept, Records: n.kept, Now: now, Logger: discard,
		Budgets: budget.NewBook(budget.Config{Process: "p", Control: n.Client, Logger: discard, Now: now}),
	})
	g := run.New(context.Background())
	g.Go("keeper", n.keeper.Run)
	n.stop = func() {
		g.Stop()
		_ = g.Wait()
		stopNode()
	}
	return n
}

// opened is a session as its opener knows it.
type opened struct {
	engine.Session
	subject string
	grant   *typesv1.Grant
	on      *simNode
}

type simLock struct {
	at       time.Time
	revision int64
	acked    time.Time // when the node was first seen to enforce it
}

// sim is one schedule under way.
type sim struct {
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	h        *house
	w        *wire
	far      map[string]*farStore
	replicas map[string]*replica
	id       *control.Identity
	n        *simNode
	next     int
	sessions []*opened
	locks    map[string]*simLock
	opens    int
}

func simTask() *typesv1.Object {
	o := object.Bare("task", "t")
	o.GetTask().Spec = &typesv1.TaskSpec{
		Purpose: "a simulation", Duration: "1h", Resources: &typesv1.ResourceSelector{Names: []string{"db"}},
		Permit:    []*typesv1.Permit{{Table: "public.t", Verbs: []string{"select"}, Columns: []string{"id"}}},
		Staleness: &typesv1.Staleness{MaxStaleness: simStale.String(), SessionGrace: simGrace.String()},
	}
	return o
}

// TestSimulation runs random schedules of locks, opened sessions, cut ways between node,
// replicas and store, late messages, restarts, and clocks that are wrong: real hub, mutual
// TLS, streams, snapshots and keeper, in virtual time. No session outlives a lock that its
// node has acknowledged, nor one that it cannot have heard of by more than the task's
// bounds; none opens under a policy older than its grant's or for somebody whose lock is
// acknowledged; no credential outlives its grant.
func TestSimulation(t *testing.T) {
	n := uint64(simulations)
	if s := os.Getenv("POSTERN_SIMULATIONS"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	opens, locks := 0, 0
	for seed := range n {
		synctest.Test(t, func(*testing.T) {
			s := newSim(t, seed, fmt.Sprintf("%s/%d", dir, seed))
			defer s.stop()
			for range 120 {
				s.step()
				time.Sleep(time.Duration(s.rng.Int64N(int64(400 * time.Millisecond))))
				s.check()
			}
			opens += s.opens
			locks += len(s.locks)
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d schedules: %d sessions opened, %d locks", n, opens, locks)
	if opens == 0 || locks == 0 {
		t.Error("the schedules show nothing")
	}
}

func newSim(t *testing.T, seed uint64, dir string) *sim {
	s := &sim{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 2)), h: newHouse(t), locks: map[string]*simLock{}, replicas: map[string]*replica{}, far: map[string]*farStore{}}
	s.h.put(resource("db"), simTask())
	for _, addr := range []string{"a:1", "b:1"} {
		s.far[addr] = &farStore{Memory: s.h.mem}
		s.replicas[addr] = s.h.replica(s.far[addr])
	}
	s.w = newWire(s.replicas)
	s.id = s.h.enrolled(s.replicas["a:1"], s.w, "a:1", "n1", dir)
	s.start()
	time.Sleep(2 * time.Second)
	return s
}

func (s *sim) start() {
	s.n = s.h.simNode(s.id, s.w, time.Duration(s.rng.Int64N(int64(2*maxSkew)))-maxSkew)
}

func (s *sim) stop() {
	s.n.stop()
	for _, o := range s.sessions {
		o.Close(nil)
	}
	for _, f := range s.far {
		f.mend()
	}
	s.h.stop()
}

func (s *sim) addr() string { return []string{"a:1", "b:1"}[s.rng.IntN(2)] }

// step is one thing that happens.
func (s *sim) step() {
	switch s.rng.IntN(30) {
	case 0:
		s.far[s.addr()].cut()
	case 1, 13:
		s.far[s.addr()].mend()
	case 2:
		s.w.set(s.addr(), true)
	case 3, 4, 11, 12:
		s.w.set(s.addr(), false)
	case 5:
		s.h.mem.BreakWatches()
	case 6:
		s.delay(time.Duration(s.rng.Int64N(int64(800 * time.Millisecond))))
	case 7:
		s.delay(0)
	case 8:
		s.restart()
	case 9, 10:
		s.lock()
	default:
		s.open()
	}
}

func (s *sim) delay(most time.Duration) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.delay = nil
	if most > 0 {
		s.w.delay = func() time.Duration { return most }
	}
}

// restart is a node's process that dies, and one that comes in its place.
func (s *sim) restart() {
	s.n.stop()
	for _, o := range s.sessions {
		if o.on == s.n {
			o.Close(nil)
		}
	}
	s.sessions = nil
	for _, l := range s.locks {
		l.acked = time.Time{}
	}
	s.start()
}

func (s *sim) subject() string { return fmt.Sprint("p", s.rng.IntN(20)) }

func (s *sim) lock() {
	who := s.subject()
	if s.locks[who] != nil {
		return
	}
	rev := s.h.put(lockOn("l-"+who, &typesv1.LockSpec{Subject: who, Reason: "gone"}))
	s.locks[who] = &simLock{at: time.Now(), revision: rev}
}

// open lets somebody in, if that goes. The grant is as a replica makes it that has not
// heard of every lock.
func (s *sim) open() {
	who := s.subject()
	s.next++
	id := fmt.Sprint("g-", s.next)
	end := time.Now().Add(time.Duration(s.rng.Int64N(int64(30*time.Second))) + time.Second)
	var made *typesv1.Grant
	for _, r := range s.replicas {
		r.fakes.mu.Lock()
		r.fakes.grant = func(g *typesv1.Grant) {
			g.Id, g.Subject, g.Approval, g.EndTime = id, &typesv1.Subject{Name: who}, nil, timestamppb.New(end)
			made = g
		}
		r.fakes.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	sess, err := s.n.keeper.Open(ctx, engine.Claim{Protocol: postern.Postgres, Permission: "t.db", Token: secret.FromString("good"), Database: "db", ClientAddress: "127.0.0.1:1"})
	if err != nil {
		return
	}
	s.opens++
	if v := made.GetMinVersion(); !s.n.holder.Version().Covers(postern.Version{Epoch: v.GetEpoch(), Revision: v.GetRevision()}) {
		s.t.Errorf("seed %d: a session opened at %s, and its grant wants %v", s.seed, s.n.holder.Version(), v)
	}
	if l := s.locks[who]; l != nil && !l.acked.IsZero() {
		s.t.Errorf("seed %d: a session opened for %s, whose lock the node acknowledged %s ago", s.seed, who, time.Since(l.acked))
	}
	_ = sess.Lend(ctx, engine.PurposeSession, func(*engine.Credential) error { return nil })
	s.sessions = append(s.sessions, &opened{Session: sess, subject: who, grant: made, on: s.n})
}

// check holds what is against what must be.
func (s *sim) check() {
	s.t.Helper()
	for _, l := range s.locks {
		if l.acked.IsZero() && s.acked(l.revision) {
			l.acked = time.Now()
		}
	}
	alive := s.sessions[:0]
	for _, o := range s.sessions {
		if o.Context().Err() != nil {
			o.Close(context.Cause(o.Context()))
			continue
		}
		alive = append(alive, o)
		if l := s.locks[o.subject]; l != nil {
			if !l.acked.IsZero() && time.Since(l.acked) > simSlack {
				s.t.Errorf("seed %d: %s has a session %s after the node acknowledged the lock", s.seed, o.subject, time.Since(l.acked))
			}
			if age := time.Since(l.at); age > simStale+simGrace+simSlack {
				s.t.Errorf("seed %d: %s has a session %s after the lock, whatever the node has heard", s.seed, o.subject, age)
			}
		}
		if over := time.Now().Add(s.n.skew).Sub(o.grant.GetEndTime().AsTime()); over > simSlack {
			s.t.Errorf("seed %d: a session lives %s after its grant's end by the node's clock", s.seed, over)
		}
	}
	s.sessions = alive
	s.n.kept.mu.Lock()
	defer s.n.kept.mu.Unlock()
	for _, g := range s.n.kept.loans {
		known := false
		for _, o := range alive {
			known = known || o.grant.GetId() == string(g)
		}
		if !known {
			s.t.Errorf("seed %d: a credential of grant %s outlives its session", s.seed, g)
		}
	}
}

// acked reports whether a replica that the node talks to has heard that it enforces a
// revision.
func (s *sim) acked(revision int64) bool {
	for _, r := range s.replicas {
		for _, n := range r.hub.Nodes() {
			if n.GetName() == "n1" && n.GetConnected() && n.GetVersion().GetRevision() >= revision {
				return true
			}
		}
	}
	return false
}
