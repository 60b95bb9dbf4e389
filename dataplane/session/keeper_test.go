package session

import (
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

func TestOpenRefuses(t *testing.T) {
	with := func(change func(*engine.Claim)) engine.Claim { c := claim(); change(&c); return c }
	for name, c := range map[string]struct {
		claim engine.Claim
		code  postern.Code
		word  string
	}{
		"bad token":        {with(func(c *engine.Claim) { c.Token = secret.FromString("no") }), postern.CodeBadToken, "token"},
		"no text":          {with(func(c *engine.Claim) { c.Token = secret.FromString("p\xe4ssword") }), postern.CodeBadToken, "is none"},
		"no task":          {with(func(c *engine.Claim) { c.Permission = "" }), postern.CodeNoGrant, "which task"},
		"odd name":         {with(func(c *engine.Claim) { c.Permission = "Report'; --" }), postern.CodeNoGrant, "which task"},
		"odd resource":     {with(func(c *engine.Claim) { c.Permission = "report." }), postern.CodeNoGrant, "which task"},
		"other task":       {with(func(c *engine.Claim) { c.Permission = "other.warehouse" }), postern.CodeNoGrant, `for task "report"`},
		"other resource":   {with(func(c *engine.Claim) { c.Permission = "report.shop" }), postern.CodeNoGrant, "shop"},
		"other database":   {with(func(c *engine.Claim) { c.Database = "postgres" }), postern.CodeNoGrant, "database"},
		"another protocol": {with(func(c *engine.Claim) { c.Protocol = "mysql" }), postern.CodeNoGrant, "mysql"},
	} {
		t.Run(name, func(t *testing.T) { newHouse(t).refused(c.claim, c.code, c.word) })
	}
}

// TestClientsSayAnything: how a client calls itself keeps nobody out.
func TestClientsSayAnything(t *testing.T) {
	c := claim()
	c.ClientProgram = "B\xfcro 97"
	s, err := newHouse(t).Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.Close(nil)
}

func TestOpenFailsClosed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*house)
		code   postern.Code
		word   string
	}{
		"records cannot be kept": {func(h *house) { h.unhealthy = errors.New("disk full") }, postern.CodeUnavailable, "recorded"},
		"policy is old":          {func(h *house) { h.staleness = 61 * time.Second }, postern.CodeUnavailable, "not heard"},
		"grant is over":          {func(h *house) { h.grant.End = h.now }, postern.CodeKilled, "ended"},
		"grant was ended":        {func(h *house) { h.ended["g-1"] = "revoked by ada" }, postern.CodeKilled, "revoked by ada"},
		"policy is behind":       {func(h *house) { h.grant.MinVersion = postern.Version{Epoch: "e", Revision: 99} }, postern.CodeUnavailable, "does not enforce"},
		"another epoch":          {func(h *house) { h.grant.MinVersion = postern.Version{Epoch: "f", Revision: 1} }, postern.CodeUnavailable, "does not enforce"},
		"draining":               {func(h *house) { h.Drain() }, postern.CodeUnavailable, "no new sessions"},
		"locked": {func(h *house) {
			h.load(strings.ReplaceAll(world, "PORT", "5432") + "---\nkind: Lock\nmetadata: {name: l}\nspec: {subject: alice, reason: left}\n")
		}, postern.CodeKilled, "left"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			c.change(h)
			h.refused(claim(), c.code, c.word)
			if len(h.Live()) != 0 {
				t.Error("a refused session is counted")
			}
		})
	}
}

func TestSessionsAreCounted(t *testing.T) {
	h := newHouse(t)
	first := h.open()
	h.open()
	h.refused(claim(), postern.CodeLimit, "2 sessions")
	first.Close(io.EOF)
	h.open()
}

func TestTerms(t *testing.T) {
	h := newHouse(t)
	terms := h.open().Terms()
	if terms.Host != "127.0.0.1" || terms.Port != 5432 || terms.Database != "warehouse" || terms.TLS.Mode != "verify-full" || terms.TLS.ServerName != "127.0.0.1" {
		t.Errorf("terms = %+v", terms)
	}
	if len(terms.Pins) != 1 || terms.Pins[0] != (engine.Setting{Name: "search_path", Value: "sales, public"}) {
		t.Errorf("pins = %+v", terms.Pins)
	}
	if !terms.ReadOnly || terms.Level != postern.LevelSource {
		t.Errorf("terms = %+v", terms)
	}
}

func TestLiveSessionsAreEnded(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*house, *Session)
		word   string
	}{
		"lock": {func(h *house, _ *Session) {
			h.load(strings.ReplaceAll(world, "PORT", "5432") + "---\nkind: Lock\nmetadata: {name: l}\nspec: {subject: alice, reason: contract ended}\n")
		}, "contract ended"},
		"grant ended": {func(h *house, _ *Session) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.ended["g-1"] = "revoked by ada"
			h.tell()
		}, "revoked by ada"},
		"grant over":     {func(h *house, _ *Session) { h.after(2 * time.Hour) }, "ended"},
		"session's time": {func(h *house, _ *Session) { h.after(31 * time.Minute) }, "30m"},
		"a backup": {func(h *house, _ *Session) {
			h.mu.Lock()
			h.epoch = "f"
			h.mu.Unlock()
			h.load(strings.ReplaceAll(world, "PORT", "5432"))
		}, "put back to a backup"},
		"task gone": {func(h *house, _ *Session) {
			h.load("kind: Mask\nmetadata: {name: m}\nspec: {method: 'null'}\n")
		}, "no longer served"},
		"too stale": {func(h *house, _ *Session) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.staleness = 7 * time.Minute
		}, "not heard"},
		"credential ended": {func(h *house, s *Session) {
			if err := s.Lend(h.t.Context(), engine.PurposeSession, func(*engine.Credential) error { return nil }); err != nil {
				h.t.Fatal(err)
			}
			gone := errors.New("revoked")
			h.loans[0].err.Store(&gone)
		}, "credential"},
		"killed": {func(h *house, s *Session) {
			if !h.Kill(s.ID(), "seen enough") || h.Kill("s-other", "x") {
				h.t.Error("Kill does not know what it has")
			}
		}, "seen enough"},
		"signed out": {func(h *house, _ *Session) {
			other, mine := sha256.Sum256([]byte("another token")), sha256.Sum256([]byte("token"))
			h.SignedOut(other[:])
			h.SignedOut(nil)
			if len(h.Live()) != 1 {
				h.t.Error("somebody else's sign-out ended it")
			}
			h.SignedOut(mine[:])
		}, "signed out"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.keep()
			s := h.open()
			c.change(h, s)
			if why := cut(t, s); !strings.Contains(why, c.word) {
				t.Errorf("ended because %q, want %q in it", why, c.word)
			}
			s.Close(io.EOF)
			if r := h.recorders[s.ID()]; !strings.Contains(r.closed, c.word) {
				t.Errorf("recorded as %q, want %q in it", r.closed, c.word)
			}
		})
	}
}

// Who could do anything has a session of which nothing is known: it does not become one
// of the narrower task.
func TestNarrowedTasksEndSessions(t *testing.T) {
	h := newHouse(t)
	narrow := strings.ReplaceAll(world, "PORT", "5432")
	h.load(strings.Replace(narrow, "permit: [{table: sales.orders, verbs: [select], columns: [id]}]", "permit: [{unrestricted: true}]", 1))
	h.keep()
	s := h.open()
	if !s.Terms().Own {
		t.Fatalf("terms = %+v", s.Terms())
	}
	h.load(narrow)
	if why := cut(t, s); !strings.Contains(why, "no longer allows everything") {
		t.Errorf("ended because %q", why)
	}
}

// A session is judged by one policy and as of one moment, though another is applied and time
// goes on meanwhile: what is said of it is what those say.
func TestOneMomentJudges(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*house)
		says   string
	}{
		"a policy": {func(h *house) { h.load("kind: Mask\nmetadata: {name: m}\nspec: {method: 'null'}\n") }, "no longer served"},
		"an hour":  {func(h *house) { h.after(2 * time.Hour) }, "the grant ended"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			s := h.open()
			h.looked = func() { c.change(h); h.looked = nil }
			if r := h.judge(s); r != nil {
				t.Errorf("judged by what came later: %v", r)
			}
			if r := h.judge(s); r == nil || !strings.Contains(r.Reason, c.says) {
				t.Errorf("judged anew: %v", r)
			}
		})
	}
}

func (h *house) after(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = h.now.Add(d)
}

func TestKnownWorkGoesOnWithinItsGrace(t *testing.T) {
	h := newHouse(t)
	s := h.open()
	h.mu.Lock()
	h.staleness = 2 * time.Minute
	h.mu.Unlock()
	h.reconsider()
	if s.Context().Err() != nil {
		t.Error("a live session ended within its grace")
	}
	h.refused(claim(), postern.CodeUnavailable, "not heard")
}

// While nothing can be recorded, what runs may end, and sessions in which nothing runs do.
func TestIdleSessionsEndWhereNothingIsKept(t *testing.T) {
	h := newHouse(t)
	idle, busy := h.open(), h.open()
	h.recorders[busy.ID()].busy = true
	full := func(why error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.unhealthy = why
	}
	h.endIdle()
	full(errors.New("the spool is full"))
	h.endIdle() // room may be made in a moment
	full(nil)
	h.after(time.Minute)
	h.endIdle()
	full(errors.New("the spool is full"))
	h.endIdle()
	if idle.Context().Err() != nil {
		t.Error("ended at once")
	}
	h.after(2 * unkeptFor)
	h.endIdle()
	if why := cut(t, idle); !strings.Contains(why, "could not be recorded any more") {
		t.Errorf("ended because %q", why)
	}
	if busy.Context().Err() != nil {
		t.Error("one in which something runs was ended")
	}
}

func TestCloseGivesEverythingBack(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	h := newHouse(t)
	h.load(strings.ReplaceAll(world, "PORT", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)))
	s := h.open()
	if err := s.Lend(t.Context(), engine.PurposeSession, func(*engine.Credential) error { return nil }); err != nil {
		t.Fatal(err)
	}
	c, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.OnCancel([]byte("key"), func() {})
	s.Close(io.EOF)
	s.Close(io.EOF)
	if !h.loans[0].released.Load() {
		t.Error("the credential was not given back")
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the way to the resource is open: %v", err)
	}
	if h.CancelLocal([]byte("key")) || len(h.Live()) != 0 {
		t.Error("a closed session can still be found")
	}
	if h.recorders[s.ID()].closed != "client left" {
		t.Errorf("recorded as %q", h.recorders[s.ID()].closed)
	}
	if _, err := s.Dial(t.Context()); err == nil {
		t.Error("a closed session can dial")
	}
	if err := s.Lend(t.Context(), engine.PurposeSession, func(*engine.Credential) error { return nil }); err == nil {
		t.Error("a closed session can borrow")
	}
}

func TestKillClosesTheWayToTheResource(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	h := newHouse(t)
	h.load(strings.ReplaceAll(world, "PORT", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)))
	s := h.open()
	c, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	s.Kill(&postern.Refusal{Reason: "enough"})
	cancel, err := s.Dial(t.Context()) // what runs is cancelled by one of its own
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read = %v, want a closed connection", err)
	}
	if _, err := cancel.Write([]byte("stop")); err != nil {
		t.Errorf("a connection made after the kill is closed with those before: %v", err)
	}
	s.Close(nil)
	if _, err := cancel.Write([]byte("stop")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write = %v, want a closed connection", err)
	}
}

func TestCancelGoesToWhoHasTheSession(t *testing.T) {
	h := newHouse(t)
	s := h.open()
	called := 0
	s.OnCancel([]byte("mine"), func() { called++ })
	if err := h.Cancel(t.Context(), []byte("mine")); err != nil || called != 1 || len(h.routed) != 0 {
		t.Errorf("own key: err %v, called %d, routed %q", err, called, h.routed)
	}
	if err := h.Cancel(t.Context(), []byte("other")); err != nil || len(h.routed) != 1 {
		t.Errorf("another's key: err %v, routed %q", err, h.routed)
	}
	// Strangers must not make a node flood the others.
	var r *postern.Refusal
	for range 2 * routeBurst {
		if err := h.Cancel(t.Context(), []byte("nobody's")); err != nil && (!errors.As(err, &r) || r.Code != postern.CodeLimit) {
			t.Fatal(err)
		}
	}
	if r == nil || len(h.routed) != routeBurst {
		t.Errorf("%d keys were passed on at once", len(h.routed))
	}
	if err := h.Cancel(t.Context(), []byte("mine")); err != nil || called != 2 {
		t.Errorf("own key after that: err %v, called %d", err, called)
	}
}
