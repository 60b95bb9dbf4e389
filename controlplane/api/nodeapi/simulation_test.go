package nodeapi_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/dataplane/control"
	"github.com/posterngate/postern/dataplane/engine"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/pkg/secret"
)

const (
	// simulations is how many schedules run where POSTERN_SIMULATIONS says nothing.
	simulations = 60
	simSteps    = 120
	// The task's bounds; what a healthy node may be behind all the same when it lets
	// somebody in; and what a session may take to end once it must.
	simStale, simGrace = 3 * time.Second, 2 * time.Second
	simBehind          = 5 * time.Second
	simSlack           = 500 * time.Millisecond
	maxSkew            = time.Minute
	simTTL             = 90 * time.Second // of a lease
	simSettled         = 3 * time.Minute  // until everything that was lent is taken back
)

// opened is a session as its opener knows it.
type opened struct {
	engine.Session
	subject string
	grant   *typesv1.Grant
	ended   time.Time // when it was first seen to have ended
}

type simLock struct {
	at       time.Time
	revision int64
	acked    time.Time // when the node was first seen to enforce it
}

// sim is one schedule under way.
type sim struct {
	t        *testing.T
	rng      *rand.Rand
	h        *house
	w        *wire
	far      map[string]*farStore
	replicas map[string]*replica
	source   *simSource
	grants   *simGrants
	id       *control.Identity
	n        *simNode
	closing  *run.Group // of sessions, which engines close each on its own
	next     int
	sessions map[postern.GrantID]*opened
	locks    map[string]*simLock
	opens    int
	lent     int
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

// simResource has a login of each session's own, which somebody must take back.
func simResource() *typesv1.Object {
	o := resource("db")
	o.GetResource().Spec.Credential = &typesv1.CredentialRef{Vault: &typesv1.VaultRef{Mount: "database", Role: "reader"}}
	return o
}

// TestSimulation runs random schedules of locks, opened sessions, cut ways between node,
// replicas and store, late messages, restarts of node and replicas, and clocks that are
// wrong: real hub, broker, mutual TLS, streams, snapshots, leases and keeper, in virtual
// time. No session outlives a lock that its node has acknowledged, nor one that it cannot
// have heard of by more than the task's bounds; none opens under a policy older than its
// grant's, for somebody whose lock is acknowledged, or was set before the bound; no
// credential outlives its session at the node, nor its grant at the source, and in the end
// none is left.
//
// A seed fixes what happens and when; how goroutines interleave it does not. One schedule
// runs anew by its name: go test -run TestSimulation/seed=N$.
func TestSimulation(t *testing.T) {
	first, n := number(t, "POSTERN_SEED", 0), number(t, "POSTERN_SIMULATIONS", simulations)
	var opens, locks, lent atomic.Int64
	t.Run("schedules", func(t *testing.T) {
		for seed := first; seed < first+n; seed++ {
			t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				synctest.Test(t, func(*testing.T) {
					s := newSim(t, seed, dir)
					defer s.stop()
					for range simSteps {
						s.step()
						time.Sleep(time.Duration(s.rng.Int64N(int64(400 * time.Millisecond))))
						s.check()
					}
					s.settle()
					opens.Add(int64(s.opens))
					locks.Add(int64(len(s.locks)))
					lent.Add(int64(s.lent))
				})
			})
		}
	})
	t.Logf("%d schedules from seed %d: %d sessions opened, %d locks, %d credentials lent", n, first, opens.Load(), locks.Load(), lent.Load())
	if n >= simulations && (opens.Load() == 0 || locks.Load() == 0 || lent.Load() == 0) {
		t.Error("the schedules show nothing")
	}
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func newSim(t *testing.T, seed uint64, dir string) *sim {
	s := &sim{
		t: t, rng: rand.New(rand.NewPCG(seed, 2)), h: newHouse(t), closing: run.New(context.Background()),
		far: map[string]*farStore{}, replicas: map[string]*replica{}, locks: map[string]*simLock{}, sessions: map[postern.GrantID]*opened{},
		source: &simSource{users: map[string]simUser{}}, grants: &simGrants{made: map[postern.GrantID]*typesv1.Grant{}},
	}
	s.h.put(simResource(), simTask())
	for _, addr := range simAddrs {
		s.far[addr] = &farStore{Memory: s.h.mem}
		s.replicas[addr] = s.h.simReplica(s.far[addr], s.source, s.grants)
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
	_ = s.closing.Wait()
	s.mend()
	s.h.stop()
}

var simAddrs = []string{"a:1", "b:1"}

func (s *sim) addr() string { return simAddrs[s.rng.IntN(len(simAddrs))] }

// step is one thing that happens.
func (s *sim) step() {
	switch s.rng.IntN(31) {
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
		s.restart(s.rng.IntN(2) == 0)
	case 9, 10:
		s.lock()
	case 14:
		s.replace(s.addr())
	default:
		s.open()
	}
}

func (s *sim) mend() {
	for _, addr := range simAddrs {
		s.far[addr].mend()
		s.w.set(addr, false)
	}
	s.delay(0)
}

func (s *sim) delay(most time.Duration) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.delay = nil
	if most > 0 {
		s.w.delay = func() time.Duration { return most }
	}
}

// restart is a node's process that ends, and one that comes in its place. One that crashes
// gives nothing back.
func (s *sim) restart(crash bool) {
	if crash {
		before := s.w.cuts()
		for _, addr := range simAddrs {
			s.w.set(addr, true)
		}
		defer func() {
			for addr, cut := range before {
				s.w.set(addr, cut)
			}
		}()
	}
	s.n.stop()
	for id, o := range s.sessions {
		s.close(o)
		delete(s.sessions, id)
	}
	for _, l := range s.locks {
		l.acked = time.Time{}
	}
	s.start()
}

// replace is a replica that crashes, and one that comes in its place.
func (s *sim) replace(addr string) {
	cut := s.w.cuts()[addr]
	s.w.set(addr, true)
	old := s.replicas[addr]
	old.group.Stop()
	_ = old.group.Wait()
	s.replicas[addr] = s.h.simReplica(s.far[addr], s.source, s.grants)
	s.w.move(addr, s.replicas[addr])
	s.w.set(addr, cut)
}

func (s *sim) close(o *opened) {
	s.closing.Go("close", func(context.Context) error { o.Close(context.Cause(o.Context())); return nil })
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

// life is how long a grant lives: often about as long as what happens to it.
func (s *sim) life() time.Duration {
	most := 30 * time.Second
	if s.rng.IntN(2) == 0 {
		most = 5 * time.Minute
	}
	return time.Duration(s.rng.Int64N(int64(most))) + time.Second
}

// open lets somebody in, if that goes. The grant is as a replica makes it that has not
// heard of every lock, not always the one that hands it out.
func (s *sim) open() {
	who := s.subject()
	s.next++
	id := postern.GrantID(fmt.Sprint("g-", s.next))
	end := time.Now().Add(s.life())
	by := s.replicas[s.addr()].hub.Version
	for _, r := range s.replicas {
		r.fakes.mu.Lock()
		r.fakes.grant = func(g *typesv1.Grant) {
			g.Id, g.Subject, g.Approval, g.EndTime = string(id), &typesv1.Subject{Name: who}, nil, timestamppb.New(end)
			if v := by(); v.Epoch != "" {
				g.MinVersion = &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision}
			}
			s.grants.put(g)
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
	o := &opened{Session: sess, subject: who, grant: s.grants.get(id)}
	if v := o.grant.GetMinVersion(); !s.n.holder.Version().Covers(postern.Version{Epoch: v.GetEpoch(), Revision: v.GetRevision()}) {
		s.t.Errorf("a session opened at %s, and its grant wants %v", s.n.holder.Version(), v)
	}
	if l := s.locks[who]; l != nil {
		if !l.acked.IsZero() {
			s.t.Errorf("a session opened for %s, whose lock the node acknowledged %s ago", who, time.Since(l.acked))
		}
		if age := time.Since(l.at); age > simBehind+simSlack {
			s.t.Errorf("a session opened for %s, whose lock is %s old, whatever the node has heard", who, age)
		}
	}
	if sess.Lend(ctx, engine.PurposeSession, func(*engine.Credential) error { return nil }) == nil {
		s.lent++
	}
	s.sessions[id] = o
}

// check holds what is against what must be.
func (s *sim) check() {
	s.t.Helper()
	for _, l := range s.locks {
		if l.acked.IsZero() && s.acked(l.revision) {
			l.acked = time.Now()
		}
	}
	for _, o := range s.sessions {
		s.session(o)
	}
	for _, id := range s.n.held() {
		o := s.sessions[id]
		if o == nil {
			s.t.Errorf("a credential of grant %s outlives its session", id)
			continue
		}
		if !o.ended.IsZero() && time.Since(o.ended) > simSlack {
			s.t.Errorf("a credential of grant %s is held %s after its session", o.grant.GetId(), time.Since(o.ended))
		}
	}
	for name, u := range s.source.live() {
		if over := time.Since(s.grants.get(u.grant).GetEndTime().AsTime()); over >= 0 {
			s.t.Errorf("%s is good at its source %s after the end of grant %s", name, over, u.grant)
		}
	}
}

func (s *sim) session(o *opened) {
	s.t.Helper()
	if o.Context().Err() != nil {
		if o.ended.IsZero() {
			o.ended = time.Now()
			s.close(o)
		}
		return
	}
	if l := s.locks[o.subject]; l != nil {
		if !l.acked.IsZero() && time.Since(l.acked) > simSlack {
			s.t.Errorf("%s has a session %s after the node acknowledged the lock", o.subject, time.Since(l.acked))
		}
		if age := time.Since(l.at); age > simStale+simGrace+simSlack {
			s.t.Errorf("%s has a session %s after the lock, whatever the node has heard", o.subject, age)
		}
	}
	if over := time.Now().Add(s.n.skew).Sub(o.grant.GetEndTime().AsTime()); over > simSlack {
		s.t.Errorf("a session lives %s after its grant's end by the node's clock", over)
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

// settle mends everything, ends every session, and finds nothing that is still lent.
func (s *sim) settle() {
	s.t.Helper()
	s.mend()
	for _, o := range s.sessions {
		if o.ended.IsZero() {
			o.ended = time.Now()
			s.close(o)
		}
	}
	time.Sleep(simSettled)
	s.check()
	if n := len(s.source.live()); n > 0 {
		s.t.Errorf("%d credentials are good at their source, and nobody has a session", n)
	}
}
