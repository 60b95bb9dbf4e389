package session

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"google.golang.org/protobuf/proto"
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
	looked    func() // what happens where it was looked whether a grant has ended
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
	if h.looked != nil {
		h.looked()
	}
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
	if _, err := proto.Marshal(req); err != nil { // as it would be sent
		return nil, err
	}
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
