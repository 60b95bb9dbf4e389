package session

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
	"github.com/posterngate/postern/test/wait"
)

// kept stands for what an engine leaves.
type kept struct {
	net.Conn
	born   time.Time
	closed atomic.Bool
}

func (k *kept) Dialled() net.Conn { return k.Conn }
func (k *kept) Born() time.Time   { return k.born }
func (k *kept) Close() error {
	k.closed.Store(true)
	return k.Conn.Close()
}

// pooling is a house whose task shares its connections to somebody who listens.
func pooling(t *testing.T) (*house, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	h := newHouse(t)
	text := strings.ReplaceAll(world, "PORT", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
	text = strings.Replace(text, "limits: {sessions: 2, session: 30m}", "credential: {reuse: pool}", 1)
	h.load(text)
	return h, text
}

// leave has a session of the house log in and leave a connection; the session is over.
func (h *house) leave(key string) *kept {
	h.t.Helper()
	s := h.open()
	k := h.login(s)
	s.Leave(key, k)
	s.Close(io.EOF)
	return k
}

func (h *house) login(s *Session) *kept {
	h.t.Helper()
	if err := s.Lend(h.t.Context(), engine.PurposeSession, func(*engine.Credential) error { return nil }); err != nil {
		h.t.Fatal(err)
	}
	c, err := s.Dial(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return &kept{Conn: c, born: h.now}
}

// reuse is what a new session finds under the key; it is over when reuse returns.
func (h *house) reuse(key string) engine.Kept {
	h.t.Helper()
	s := h.open()
	defer s.Close(io.EOF)
	return s.Reuse(key)
}

func TestSessionsOfAGrantShareALoan(t *testing.T) {
	h, _ := pooling(t)
	first := h.open()
	a := h.login(first)
	first.Leave("key", a)
	second := h.open()
	if got := second.Reuse("another"); got != nil {
		t.Error("a connection was found under another key")
	}
	if got := second.Reuse("key"); got != a {
		t.Errorf("reuse = %v", got)
	}
	if got := second.Reuse("key"); got != nil {
		t.Error("two sessions have one connection")
	}
	h.login(second)
	if len(h.loans) != 1 {
		t.Errorf("%d loans", len(h.loans))
	}
	if id := first.Terms().Pool; id == "" || id != second.Terms().Pool || id == first.ID() {
		t.Errorf("the sessions are of pools %q and %q", id, second.Terms().Pool)
	}
	first.Close(io.EOF)
	if h.loans[0].released.Load() {
		t.Error("the loan was given back under a session")
	}
	second.Close(io.EOF)
	if !h.loans[0].released.Load() {
		t.Error("the loan was not given back")
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection outlives its last session: %v", err)
	}
}

func TestConnectionsStayWithTheirGrant(t *testing.T) {
	h, _ := pooling(t)
	k := h.leave("key")
	h.mu.Lock()
	h.grant.ID, h.grant.Subject.Name = "g-2", "bob"
	h.mu.Unlock()
	if h.reuse("key") != nil {
		t.Fatal("bob has a connection of alice's")
	}
	h.mu.Lock()
	h.grant.ID, h.grant.Subject.Name = "g-1", "alice"
	h.mu.Unlock()
	if h.reuse("key") != k {
		t.Error("alice has not got her connection")
	}
}

func TestAKilledSessionLeavesNothing(t *testing.T) {
	h, _ := pooling(t)
	s := h.open()
	k := h.login(s)
	s.Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "enough"})
	s.Leave("key", k)
	s.Close(nil)
	if !k.closed.Load() || h.reuse("key") != nil {
		t.Error("the connection of a killed session waits for another")
	}
}

// A connection that another session has now is ended with that one.
func TestKillReachesAConnectionThatIsUsedAgain(t *testing.T) {
	h, _ := pooling(t)
	h.leave("key")
	s := h.open()
	got := s.Reuse("key")
	if got == nil {
		t.Fatal("no connection")
	}
	_ = got.Dialled().SetReadDeadline(time.Now().Add(time.Minute))
	s.Kill(&postern.Refusal{Code: postern.CodeKilled, Reason: "enough"})
	if _, err := got.Dialled().Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read = %v, want a closed connection", err)
	}
}

func TestWaitingConnectionsAreClosed(t *testing.T) {
	const lock = "---\nkind: Lock\nmetadata: {name: l}\nspec: {subject: alice, reason: contract ended}\n"
	for name, change := range map[string]func(h *house, text string){
		"the grant ended": func(h *house, _ string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.ended["g-1"] = "revoked by ada"
			h.tell()
		},
		"a lock": func(h *house, text string) { h.load(text + lock) },
		"the resource moved": func(h *house, text string) {
			h.load(strings.Replace(text, "database: warehouse", "database: other", 1))
		},
		"the task changed": func(h *house, text string) { h.load(strings.Replace(text, "columns: [id]", "columns: [id, note]", 1)) },
		"reuse was taken back": func(h *house, text string) {
			h.load(strings.Replace(text, "credential: {reuse: pool}", "", 1))
		},
		"the task is gone": func(h *house, _ string) { h.load("kind: Mask\nmetadata: {name: m}\nspec: {method: 'null'}\n") },
		"the loan ended": func(h *house, _ string) {
			gone := errors.New("revoked")
			h.loans[0].err.Store(&gone)
		},
		"the node is stale": func(h *house, _ string) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.staleness = 7 * time.Minute
		},
		"time":                  func(h *house, _ string) { h.after(idleTime) },
		"a drain":               func(h *house, _ string) { h.Drain() },
		"the login was rotated": func(h *house, _ string) { h.killed(h.allPools()[0].id) },
	} {
		t.Run(name, func(t *testing.T) {
			h, text := pooling(t)
			k := h.leave("key")
			h.keep()
			if k.closed.Load() {
				t.Fatal("it was closed before anything happened")
			}
			change(h, text)
			wait.For(t, "it is closed", k.closed.Load)
			wait.For(t, "its loan is given back", h.loans[0].released.Load)
		})
	}
}

// A node that stops gives back what its pools have borrowed, before it is gone.
func TestAStoppingNodeGivesLoansBack(t *testing.T) {
	h, _ := pooling(t)
	k := h.leave("key")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	cancel()
	<-done
	if !k.closed.Load() || !h.loans[0].released.Load() {
		t.Errorf("closed: %t, loan given back: %t", k.closed.Load(), h.loans[0].released.Load())
	}
}

// A pool is ended by an order while the keeper looks at what ends: the keeper looks once.
func TestLoansAreGivenBackWhateverEndsThePool(t *testing.T) {
	h, _ := pooling(t)
	ctx, cancel := context.WithCancel(t.Context())
	g := run.New(ctx)
	defer func() { cancel(); _ = g.Wait() }()
	g.Go("look", func(context.Context) error {
		for ctx.Err() == nil {
			h.giveBack(g)
		}
		return nil
	})
	for range 500 {
		h.leave("key")
		h.killed(h.allPools()[0].id)
	}
	for i, l := range h.loans {
		wait.For(t, "loan "+strconv.Itoa(i)+" is given back", l.released.Load)
	}
}

func (h *house) killed(pool postern.SessionID) {
	if !h.Kill(pool, "the password was changed") {
		h.t.Error("the pool is not known by the name that the ledger has")
	}
}

func TestOldConnectionsAreNotLeft(t *testing.T) {
	h, _ := pooling(t)
	s := h.open()
	k := h.login(s)
	k.born = h.now.Add(-idleAge)
	s.Leave("key", k)
	if !k.closed.Load() {
		t.Error("an old connection waits for another session")
	}
}

func TestWaitingConnectionsAreBounded(t *testing.T) {
	h, _ := pooling(t)
	var all []*kept
	for range idlePerPool + 3 {
		s := h.open()
		k := h.login(s)
		all = append(all, k)
		defer s.Close(io.EOF)
		defer s.Leave("key", k)
	}
	t.Cleanup(func() {
		waiting := 0
		for _, k := range all {
			if !k.closed.Load() {
				waiting++
			}
		}
		if waiting != idlePerPool || h.idle.Load() != idlePerPool || len(h.Connections("warehouse")) != idlePerPool {
			t.Errorf("%d connections wait, %d are counted, %d are told of", waiting, h.idle.Load(), len(h.Connections("warehouse")))
		}
		for _, p := range h.allPools() {
			p.end()
		}
	})
}

// A session that began under other rules leaves nothing to those of now.
func TestAChangeOfPolicyParts(t *testing.T) {
	h, text := pooling(t)
	s := h.open()
	k := h.login(s)
	h.load(strings.Replace(text, "columns: [id]", "columns: [id, note]", 1))
	h.sweepPools(nil)
	s.Leave("key", k)
	if !k.closed.Load() {
		t.Error("a connection of the rules of before waits")
	}
}
