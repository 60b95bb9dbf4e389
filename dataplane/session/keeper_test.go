package session

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/dataplane/budget"
	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/gate"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/policy/policytest"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
	"github.com/posterngate/postern/pkg/secret"
)

const world = `
kind: Resource
metadata: {name: warehouse}
spec: {protocol: postgres, endpoint: {host: 127.0.0.1, port: PORT, database: warehouse}, credential: {sealed: warehouse}, catalog: {sealed: warehouse}, pin: {search_path: [sales, public]}}
---
kind: Task
metadata: {name: report}
spec:
  purpose: a test
  duration: 1h
  resources: {names: [warehouse]}
  permit: [{table: sales.orders, verbs: [select], columns: [id]}]
  limits: {sessions: 2, session: 30m}
  staleness: {maxStaleness: 60s, sessionGrace: 5m}
`

// house is everything that a Keeper asks, as a test wants it to be.
type house struct {
	t *testing.T
	*Keeper

	mu        sync.Mutex
	now       time.Time
	snapshot  *policy.Snapshot
	ended     map[postern.GrantID]string
	subs      []chan struct{}
	staleness time.Duration
	grant     *postern.Grant
	refuse    error
	routed    []string
	vouched   int
	unheard   error // of Vouch
	unhealthy error
	recorders map[postern.SessionID]*recorder
	loans     []*loan
	epoch     string
	revision  int64
	cas       *x509.CertPool
	sshCAs    []ssh.PublicKey
}

type recorder struct {
	mu     sync.Mutex
	closed string
	busy   bool
}

func (r *recorder) Idle() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.busy
}

func (r *recorder) Record(*record.Event, policy.RecordMode) error { return nil }
func (r *recorder) Close(why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = why
	return nil
}

type loan struct {
	err      atomic.Pointer[error]
	done     chan struct{}
	released atomic.Bool
}

func (l *loan) Use(fn func(*engine.Credential) error) error {
	return fn(&engine.Credential{Account: "app", Password: secret.FromString("hunter2")})
}
func (l *loan) Done() <-chan struct{} { return l.done }
func (l *loan) Err() error {
	if e := l.err.Load(); e != nil {
		return *e
	}
	return nil
}
func (l *loan) Release(context.Context) error { l.released.Store(true); return nil }

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, now: time.Now(), ended: map[postern.GrantID]string{}, recorders: map[postern.SessionID]*recorder{}}
	h.epoch = "e"
	h.grant = &postern.Grant{ID: "g-1", MinVersion: postern.Version{Epoch: "e", Revision: 1}, Subject: postern.Subject{Name: "alice"}, Task: "report", Start: h.now, End: h.now.Add(time.Hour)}
	h.load(strings.ReplaceAll(world, "PORT", "5432"))
	h.Keeper = New(Config{
		Node: "n-1", Region: "eu", Control: h, Snapshots: h, Leases: h, Records: h, Logger: slog.New(slog.DiscardHandler),
		Budgets: budget.NewBook(budget.Config{Process: "p", Control: h, Logger: slog.New(slog.DiscardHandler), Now: time.Now}),
		Now:     func() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.now },
	})
	return h
}

// load makes a text the policy that is enforced, and tells everybody.
func (h *house) load(text string) {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.revision++
	s := policytest.CompileAt(h.t, postern.Version{Epoch: h.epoch, Revision: h.revision}, text)
	h.snapshot = s
	h.tell()
}

func (h *house) tell() {
	for _, c := range h.subs {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (h *house) Current() *policy.Snapshot { h.mu.Lock(); defer h.mu.Unlock(); return h.snapshot }
func (h *house) Version() postern.Version  { return h.Current().Version() }
func (h *house) Ended(g postern.GrantID) (string, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.ended[g]
	return r, ok
}
func (h *house) Subscribe() (<-chan struct{}, func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := make(chan struct{}, 1)
	h.subs = append(h.subs, c)
	return c, func() {}
}
func (h *house) WaitFor(ctx context.Context, v postern.Version) error {
	if h.Version().Covers(v) || v.IsZero() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}
func (h *house) Staleness() time.Duration { h.mu.Lock(); defer h.mu.Unlock(); return h.staleness }
func (h *house) OpenGrant(_ context.Context, req *nodev1.OpenGrantRequest) (*postern.Grant, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if req.GetToken() != "token" && len(req.GetClientCertificate())+len(req.GetSshCertificate()) == 0 {
		return nil, &postern.Refusal{Code: postern.CodeBadToken, Reason: "the token is not good"}
	}
	g := *h.grant
	return &g, h.refuse
}
func (h *house) PinServer(context.Context, *nodev1.PinServerRequest) (*nodev1.PinServerResponse, error) {
	return &nodev1.PinServerResponse{}, nil
}

func (h *house) Vouch(_ context.Context, req *nodev1.VouchRequest) (*nodev1.VouchResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.unheard != nil {
		return nil, h.unheard
	}
	h.vouched++
	return &nodev1.VouchResponse{
		Token:      fmt.Sprintf("%s %s %d", req.GetGrant(), req.GetResource(), h.vouched),
		ExpireTime: timestamppb.New(h.now.Add(5 * time.Minute)), RenewTime: timestamppb.New(h.now.Add(3 * time.Minute)),
	}, nil
}
func (h *house) BeginBrowser(context.Context, *nodev1.BeginBrowserRequest) (*nodev1.BeginBrowserResponse, error) {
	return nil, errors.New("no browsers here")
}
func (h *house) FinishBrowser(context.Context, *nodev1.FinishBrowserRequest) (*nodev1.FinishBrowserResponse, error) {
	return nil, errors.New("no browsers here")
}
func (h *house) EndBrowser(context.Context, *nodev1.EndBrowserRequest) error { return nil }
func (h *house) SignIn(_ context.Context, req *nodev1.SignInRequest, show func(*nodev1.SignInPrompt)) (*postern.Grant, error) {
	show(&nodev1.SignInPrompt{Url: "https://postern.example/sign-in/" + req.GetTask(), Code: req.GetClientAddress()})
	h.mu.Lock()
	defer h.mu.Unlock()
	g := *h.grant
	return &g, h.refuse
}
func (h *house) ClientCAs() *x509.CertPool { return h.cas }
func (h *house) UserCAs() []ssh.PublicKey  { return h.sshCAs }

func (h *house) DrawBudget(_ context.Context, req *nodev1.DrawBudgetRequest) (*nodev1.DrawBudgetResponse, error) {
	return &nodev1.DrawBudgetResponse{Total: req.GetWant(), Sessions: min(req.GetSessions(), 2)}, nil
}

func (h *house) RouteCancel(_ context.Context, key []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.routed = append(h.routed, string(key))
	return nil
}
func (h *house) OpenHold(context.Context, *nodev1.OpenHoldRequest, func(*nodev1.OpenHoldResponse)) (*typesv1.Hold, error) {
	return nil, errors.New("nobody is asked here")
}
func (h *house) ConsumeHold(context.Context, *nodev1.ConsumeHoldRequest) (*typesv1.Hold, error) {
	return nil, errors.New("nobody is asked here")
}
func (h *house) Take(context.Context, postern.SessionID, postern.GrantID, postern.ResourceName, engine.Purpose) (Loan, error) {
	l := &loan{done: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loans = append(h.loans, l)
	return l, nil
}
func (h *house) Begin(o gate.Opened) (rec, raw gate.Recorder, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &recorder{}
	h.recorders[o.Session] = r
	return r, nil, nil
}
func (h *house) Healthy() error { h.mu.Lock(); defer h.mu.Unlock(); return h.unhealthy }

func claim() engine.Claim {
	return engine.Claim{Protocol: postern.Postgres, Permission: "report.warehouse", Token: secret.FromString("token"), Database: "warehouse", ClientAddress: "127.0.0.1:4000", ClientProgram: "psql"}
}

func (h *house) open() *Session {
	h.t.Helper()
	s, err := h.Open(h.t.Context(), claim())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { s.Close(nil) })
	return s.(*Session)
}

func (h *house) refused(c engine.Claim, code postern.Code, word string) {
	h.t.Helper()
	s, err := h.Open(h.t.Context(), c)
	if err == nil {
		s.Close(nil)
		h.t.Fatalf("opened; want a refusal with %q", word)
	}
	if r := postern.AsRefusal(err); r.Code != code || !strings.Contains(r.Reason, word) {
		h.t.Errorf("refusal %s %q, want %s with %q", r.Code, r.Reason, code, word)
	}
}

// keep runs the Keeper for the length of the test.
func (h *house) keep() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	h.t.Cleanup(func() { cancel(); <-done })
}

// cut waits for a session to be ended, and returns why.
func cut(t *testing.T, s *Session) string {
	t.Helper()
	select {
	case <-s.Context().Done():
		return postern.AsRefusal(context.Cause(s.Context())).Reason
	case <-time.After(time.Minute):
		t.Fatal("the session lives on")
		return ""
	}
}

func TestOpenRefuses(t *testing.T) {
	with := func(change func(*engine.Claim)) engine.Claim { c := claim(); change(&c); return c }
	for name, c := range map[string]struct {
		claim engine.Claim
		code  postern.Code
		word  string
	}{
		"bad token":        {with(func(c *engine.Claim) { c.Token = secret.FromString("no") }), postern.CodeBadToken, "token"},
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
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read = %v, want a closed connection", err)
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
}
