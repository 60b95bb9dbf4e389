package session

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

// Bounds of connections that wait for a session.
const (
	idlePerPool = 8
	idlePerNode = 1024
	idleTime    = 30 * time.Second
	idleAge     = 10 * time.Minute // since the connection was made, in use or not
)

// poolKey is what sessions must have in common to share connections. A grant is one
// subject's.
type poolKey struct {
	grant    postern.GrantID
	resource postern.ResourceName
}

// A pool has the loan that all sessions of one grant log in with, and the connections
// that one has left and the next may have. It lives while there is either.
type pool struct {
	k     *Keeper
	key   poolKey
	id    postern.SessionID // borrows in the place of a session
	grant *postern.Grant
	turn  chan struct{} // held by who leases

	mu      sync.Mutex // guards what follows
	users   int
	request policy.Request // of the session that came last
	rules   *policy.Snapshot
	round   int // of the rules
	loan    Loan
	idle    []idle // the one that was left last is the last
	over    bool
}

// idle is a connection that waits.
type idle struct {
	key   string
	kept  engine.Kept
	since time.Time
}

// errPoolOver says that the pool has ended under a session, which ends for the same cause.
var errPoolOver = errors.New("session: the grant's connections are being closed")

// join finds or makes the pool of a session that opens under snap, and returns the round
// that it joins in.
func (k *Keeper) join(s *Session, snap *policy.Snapshot) (*pool, int) {
	key := poolKey{s.grant.ID, s.terms.Resource}
	if hole.Is("pool-crossed") {
		key.grant = ""
	}
	k.mu.Lock()
	p := k.pools[key]
	spent := p
	if p != nil && p.usable() {
		spent = nil
	} else {
		p = &pool{k: k, key: key, id: "p" + newID()[1:], grant: s.grant, turn: make(chan struct{}, 1), rules: snap}
		k.pools[key] = p
	}
	p.mu.Lock()
	p.users++
	p.request = s.client
	round := p.round
	if !p.rules.SameRules(snap) {
		round = -1 // the sweep has not seen it yet
	}
	p.mu.Unlock()
	k.mu.Unlock()
	if spent != nil {
		spent.end()
	}
	return p, round
}

// usable reports whether sessions may still join.
func (p *pool) usable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.over && (p.loan == nil || p.loan.Err() == nil)
}

// shared is a pool's loan in the hands of a session, which does not end it.
type shared struct{ Loan }

func (s shared) Release(ctx context.Context) error {
	if hole.Is("pool-loan") {
		return s.Loan.Release(ctx)
	}
	return nil
}

// borrow is the pool's loan, which the first session takes.
func (p *pool) borrow(ctx context.Context) (Loan, error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-p.turn }()
	p.mu.Lock()
	loan, over := p.loan, p.over
	p.mu.Unlock()
	switch {
	case over:
		return nil, errPoolOver
	case loan != nil:
		return shared{loan}, nil
	}
	loan, err := p.k.cfg.Leases.Take(ctx, p.id, p.grant.ID, p.key.resource, engine.PurposeSession)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loan = loan // the last one gives it back
	if p.over {
		return nil, errPoolOver
	}
	return shared{loan}, nil
}

// take gives the connection that was left last under the key.
func (p *pool) take(key string) engine.Kept {
	now := p.k.cfg.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, c := range slices.Backward(p.idle) {
		if c.key == key && !c.stale(now) && !p.over {
			p.idle = slices.Delete(p.idle, i, i+1)
			p.k.idle.Add(-1)
			return c.kept
		}
	}
	return nil
}

func (c *idle) stale(now time.Time) bool {
	return now.Sub(c.since) >= idleTime || now.Sub(c.kept.Born()) >= idleAge
}

// keep takes a connection that a session of the round has left, if there is room.
func (p *pool) keep(key string, kept engine.Kept, round int) bool {
	c := idle{key, kept, p.k.cfg.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || round != p.round && !hole.Is("pool-rules") || len(p.idle) >= idlePerPool || c.stale(c.since) || p.k.draining.Load() {
		return false
	}
	if p.k.idle.Add(1) > idlePerNode {
		p.k.idle.Add(-1)
		return false
	}
	p.idle = append(p.idle, c)
	return true
}

// drop closes the connections that wait and are to go.
func (p *pool) drop(which func(*idle) bool) {
	p.mu.Lock()
	gone := p.dropLocked(which)
	p.mu.Unlock()
	closeAll(gone)
}

func (p *pool) dropLocked(which func(*idle) bool) (gone []idle) {
	p.idle = slices.DeleteFunc(p.idle, func(c idle) bool {
		if which(&c) {
			gone = append(gone, c)
			return true
		}
		return false
	})
	p.k.idle.Add(-int64(len(gone)))
	return gone
}

func closeAll(gone []idle) {
	for _, c := range gone {
		_ = c.kept.Close()
	}
}

func everything(*idle) bool { return true }

// end lets nobody join any more and closes what waits. The loan is given back once the
// last session has left. Who finds the pool among those that end finds nothing waiting in
// it: it is looked at once, and where sessions are left again by the last of them.
func (p *pool) end() {
	p.k.mu.Lock()
	p.mu.Lock()
	first := !p.over
	p.over = true
	gone := p.dropLocked(everything)
	p.mu.Unlock()
	if p.k.pools[p.key] == p {
		delete(p.k.pools, p.key)
	}
	if first {
		p.k.ending = append(p.k.ending, p)
	}
	p.k.mu.Unlock()
	closeAll(gone)
}

// leave is the end of one session.
func (p *pool) leave() {
	p.mu.Lock()
	p.users--
	p.mu.Unlock()
	p.settle()
}

func (p *pool) unused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.unusedLocked()
}

func (p *pool) unusedLocked() bool { return p.users == 0 && len(p.idle) == 0 }

// settle ends the pool where nobody has anything of it.
func (p *pool) settle() {
	p.k.mu.Lock()
	p.mu.Lock()
	loan := p.loan
	unused := p.unusedLocked()
	if unused {
		p.over, p.loan = true, nil
		if p.k.pools[p.key] == p {
			delete(p.k.pools, p.key)
		}
	}
	p.mu.Unlock()
	p.k.mu.Unlock()
	if !unused || loan == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	if err := loan.Release(ctx); err != nil {
		p.k.cfg.Logger.Warn("lease was not given back; the control plane will find it", "grant", p.grant.ID, "resource", p.key.resource, "error", err)
	}
}

// sweep ends the pool where a session of its grant would be ended, and closes what has
// waited for too long or was left under rules that have changed.
func (p *pool) sweep(snap *policy.Snapshot) {
	now := p.k.cfg.Now()
	p.mu.Lock()
	changed := !p.rules.SameRules(snap)
	if changed {
		p.rules = snap
		p.round++
	}
	loan, req := p.loan, p.request
	p.mu.Unlock()
	terms, ok := snap.Terms(p.grant.Task)
	if !ok || !terms.Pool || loan != nil && loan.Err() != nil || p.judge(req, now) != nil && !hole.Is("pool-unjudged") {
		p.end()
		return
	}
	p.drop(func(c *idle) bool { return changed || c.stale(now) || p.k.draining.Load() })
}

// judge says why a session of the pool would have to end.
func (p *pool) judge(req policy.Request, now time.Time) *postern.Refusal {
	req.Time = now
	return p.k.judge(&Session{k: p.k, id: p.id, grant: p.grant, client: req, terms: &engine.Terms{Resource: p.key.resource}})
}

// Reuse gives a connection that an earlier session of the grant has left.
func (s *Session) Reuse(key string) engine.Kept {
	if s.pool == nil {
		return nil
	}
	kept := s.pool.take(key)
	if kept == nil {
		return nil
	}
	c, ok := kept.Dialled().(*conn)
	if !ok || !s.adopt(c) {
		_ = kept.Close()
		return nil
	}
	return kept
}

// Leave keeps a connection of the session for a later one, or closes it.
func (s *Session) Leave(key string, kept engine.Kept) {
	c, ok := kept.Dialled().(*conn)
	if s.pool == nil || !ok || !s.disown(c) || !s.pool.keep(key, kept, s.round) {
		_ = kept.Close()
	}
}

// waiting are the addresses of connections to a resource that no session has.
func (k *Keeper) waiting(r postern.ResourceName) []string {
	var out []string
	for _, p := range k.allPools() {
		if p.key.resource != r {
			continue
		}
		p.mu.Lock()
		for _, c := range p.idle {
			out = append(out, c.kept.Dialled().LocalAddr().String())
		}
		p.mu.Unlock()
	}
	return out
}

func (k *Keeper) allPools() []*pool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Values(k.pools))
}

// sweepPools looks at every pool.
func (k *Keeper) sweepPools(g *run.Group) {
	snap := k.cfg.Snapshots.Current()
	for _, p := range k.allPools() {
		p.sweep(snap)
	}
	k.giveBack(g)
}

// giveBack has g give back what nobody uses any more.
func (k *Keeper) giveBack(g *run.Group) {
	k.mu.Lock()
	look := append(slices.Collect(maps.Values(k.pools)), k.ending...)
	k.ending = nil
	k.mu.Unlock()
	for _, p := range look {
		if p.unused() {
			g.Go("give back", func(context.Context) error {
				p.settle()
				return nil
			})
		}
	}
}

// endPools ends them all. What sessions still use is given back by the last of them.
func (k *Keeper) endPools(g *run.Group) {
	for _, p := range k.allPools() {
		p.end()
	}
	k.giveBack(g)
}

// killPool ends the pool of this id with its sessions, and reports whether there is one.
func (k *Keeper) killPool(id postern.SessionID, r *postern.Refusal) bool {
	found := false
	for _, p := range k.allPools() {
		if p.id == id {
			found = true
			p.end()
		}
	}
	for _, s := range k.live() {
		if s.pool != nil && s.pool.id == id {
			found = true
			s.Kill(r)
		}
	}
	return found
}
