package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/gate"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

// A Session is one client connection under one grant. Judging is its gate's; the rest
// of what an engine may reach is here.
type Session struct {
	*gate.Gate

	k      *Keeper
	id     postern.SessionID
	grant  *postern.Grant
	terms  *engine.Terms
	client policy.Request
	leave  func()            // counts the session no more
	shown  [sha256.Size]byte // hash of the token that opened it
	each   bool              // the credential is shown with each request, and not at a login
	pool   *pool             // of the grant's connections; nil where each session has its own
	round  int               // of the pool's rules

	ctx context.Context // ends with the session; its cause is a *postern.Refusal
	end context.CancelCauseFunc

	mu         sync.Mutex // guards what follows
	closed     bool
	judged     bool // its Gate is there
	cancelKeys []string
	conns      map[*conn]struct{}
	loans      map[engine.Purpose]Loan
	account    string // that was noted last

	voucher voucher
}

var (
	_ engine.Session = (*Session)(nil)
	_ engine.Waiter  = (*Session)(nil)
	_ engine.Reuser  = (*Session)(nil)
	_ engine.Lender  = (*Session)(nil)
)

// ID names the session.
func (s *Session) ID() postern.SessionID { return s.id }

// Terms is what the engine needs to know; it does not change.
func (s *Session) Terms() *engine.Terms { return s.terms }

// Context ends when the session must end, with a *postern.Refusal as its cause.
func (s *Session) Context() context.Context { return s.ctx }

func (s *Session) request() policy.Request {
	r := s.client
	r.Time = s.k.cfg.Now()
	return r
}

// open reports whether the session has its gate.
func (s *Session) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.judged
}

// idle reports whether nothing runs in the session, once it is open.
func (s *Session) idle() bool { return s.open() && s.Gate.Idle() }

// reconsider says why a policy does not let the session go on, once it is open, or nil.
func (s *Session) reconsider(snap *policy.Snapshot, now time.Time) *postern.Refusal {
	if !s.open() {
		return nil // Open looks once more when it is
	}
	return s.Gate.Reconsider(snap, now)
}

// Kill ends the session with a cause that the engine shows to the client, and closes its
// connections to the resource shortly after, whether the engine has spoken or not. One that
// is made later, to cancel what still runs there, has until Close, or killTime.
func (s *Session) Kill(r *postern.Refusal) {
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		return
	}
	s.end(r)
	conns := slices.Collect(maps.Keys(s.conns))
	s.mu.Unlock()
	s.k.cfg.Logger.Info("session killed", "session", s.id, "subject", s.grant.Subject.Name, "reason", r.Reason)
	time.AfterFunc(killGrace, func() {
		for _, c := range conns {
			c.hangUp()
		}
	})
	time.AfterFunc(killTime, s.closeConns)
}

// OnCancel registers what a cancel request with this key does.
func (s *Session) OnCancel(key []byte, cancel func()) {
	k := string(key)
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if _, live := s.k.sessions[s.id]; !live {
		return
	}
	s.cancelKeys = append(s.cancelKeys, k)
	s.k.cancels[k] = cancel
}

// Lend gives fn the credential for a purpose, leasing it on first use.
func (s *Session) Lend(ctx context.Context, p engine.Purpose, fn func(*engine.Credential) error) (err error) {
	ctx, span := otel.Tracer("postern/session").Start(ctx, "lend credential", trace.WithAttributes(attribute.String("postern.purpose", string(p))))
	defer func() { endSpan(span, err) }()
	for {
		loan, err := s.borrow(ctx, p)
		if err != nil {
			return err
		}
		used := false
		err = loan.Use(func(c *engine.Credential) error { used = true; return fn(c) })
		if used || !s.each || loan.Err() == nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		// It has ended just now.
	}
}

// Lent reports whether Lend has a loan already, and so waits for nobody.
func (s *Session) Lent(p engine.Purpose) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.closed && s.current(p) != nil
}

// borrow is the session's loan for a purpose, which it takes on first use.
func (s *Session) borrow(ctx context.Context, p engine.Purpose) (Loan, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errors.New("session: closed")
	}
	loan := s.current(p)
	s.mu.Unlock()
	if loan != nil {
		return loan, nil
	}
	grant := s.grant.ID
	if p == engine.PurposeCatalog {
		grant = "" // names and types are the node's business, and no subject's
	}
	var err error
	if p == engine.PurposeSession && s.pool != nil {
		loan, err = s.pool.borrow(ctx)
	} else {
		loan, err = s.k.cfg.Leases.Take(ctx, s.id, grant, s.terms.Resource, p)
	}
	if err != nil {
		return nil, fmt.Errorf("lease a credential for %s: %w", s.terms.Resource, err)
	}
	if p == engine.PurposeSession {
		if err := s.noteAccount(loan); err != nil {
			s.release(loan)
			return nil, err
		}
	}
	return s.keep(p, loan)
}

// noteAccount records as whom the session logs in, once for each account.
func (s *Session) noteAccount(loan Loan) error {
	account := ""
	if err := loan.Use(func(c *engine.Credential) error { account = c.Account; return nil }); err != nil {
		return err
	}
	s.mu.Lock()
	known := s.account == account
	s.account = account
	s.mu.Unlock()
	if known {
		return nil
	}
	return s.Note(postern.NoteAccount, account)
}

// current is the loan for a purpose; s.mu is held. One that has ended is forgotten where it
// is shown with each request, so that the next one is leased: an access token ends before
// its session does.
func (s *Session) current(p engine.Purpose) Loan {
	loan := s.loans[p]
	if loan != nil && s.each && loan.Err() != nil {
		delete(s.loans, p)
		return nil
	}
	return loan
}

// keep takes a loan into the session, which gives it back when it is closed. Of two that
// were taken at once the first stays, and is returned.
func (s *Session) keep(p engine.Purpose, loan Loan) (Loan, error) {
	s.mu.Lock()
	have := s.loans[p]
	switch {
	case s.closed:
		s.mu.Unlock()
		s.release(loan)
		return nil, errors.New("session: closed")
	case have == nil:
		if s.loans == nil {
			s.loans = map[engine.Purpose]Loan{}
		}
		s.loans[p], have = loan, loan
	}
	s.mu.Unlock()
	if have != loan {
		s.release(loan)
	}
	return have, nil
}

// loanEnded tells why the credential that the session logged in with has ended, or nil.
func (s *Session) loanEnded() error {
	s.mu.Lock()
	loan := s.current(engine.PurposeSession)
	s.mu.Unlock()
	if loan == nil {
		return nil
	}
	return loan.Err()
}

// Close ends the session: what it opened is closed, what it borrowed given back, and
// why it ended recorded.
func (s *Session) Close(why error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	loans := slices.Collect(maps.Values(s.loans))
	s.loans = nil
	s.mu.Unlock()
	if hole.Is("lease-kept") {
		loans = nil
	}

	if cause := context.Cause(s.ctx); cause != nil {
		why = cause // a kill is why, whatever the sockets said afterwards
	}
	s.end(&postern.Refusal{Code: postern.CodeKilled, Reason: "the session is closed"})
	s.closeConns()
	s.k.forget(s)
	opened := s.Gate != nil // and not there for an explanation alone
	if opened {
		if err := s.Gate.End(reasonOf(why)); err != nil {
			s.k.cfg.Logger.Error("session's end was not recorded", "session", s.id, "error", err)
		}
	}
	for _, l := range loans {
		s.release(l)
	}
	if s.pool != nil {
		s.pool.leave()
	}
	if opened {
		s.k.cfg.Logger.Info("session closed", "session", s.id, "reason", reasonOf(why))
	}
}

func (s *Session) release(l Loan) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), releaseTimeout)
	defer cancel()
	if err := l.Release(ctx); err != nil {
		s.k.cfg.Logger.Warn("lease was not given back; the control plane will find it", "session", s.id, "error", err)
	}
}

func reasonOf(why error) string {
	var r *postern.Refusal
	switch {
	case why == nil, errors.Is(why, io.EOF):
		return "client left"
	case errors.As(why, &r):
		return r.Reason
	}
	return "connection lost"
}

func parsePermission(p string) (postern.TaskName, postern.ResourceName, error) {
	task, resource, dotted := strings.Cut(p, ".")
	bad := func(err error) error {
		return &postern.Refusal{Code: postern.CodeNoGrant, Reason: "the user name does not say which task: " + err.Error(), Hint: "connect as TASK.RESOURCE, or as TASK where it reaches one resource; `postern tasks` lists yours"}
	}
	if err := object.CheckName(task); err != nil {
		return "", "", bad(err)
	}
	if dotted {
		if err := object.CheckName(resource); err != nil {
			return "", "", bad(err)
		}
	}
	return postern.TaskName(task), postern.ResourceName(resource), nil
}

type resolved struct {
	name     postern.ResourceName
	resource *typesv1.Resource
	ca       []byte
}

// resolve finds the resource that a claim means, and checks that the claim fits it.
func (k *Keeper) resolve(snap *policy.Snapshot, c engine.Claim, task postern.TaskName, name postern.ResourceName) (resolved, policy.Terms, error) {
	terms, ok := snap.Terms(task)
	if !ok {
		return resolved{}, policy.Terms{}, &postern.Refusal{Code: postern.CodeNoGrant, Reason: fmt.Sprintf("task %q is not served by this node", task), Hint: "`postern tasks` lists yours; `postern connect` finds a node that serves it"}
	}
	name, err := snap.ResourceOf(task, name)
	if err != nil {
		return resolved{}, policy.Terms{}, err
	}
	r, ok := snap.Resource(name)
	if !ok {
		return resolved{}, policy.Terms{}, &postern.Refusal{Code: postern.CodeNoGrant, Reason: fmt.Sprintf("resource %q is not served by this node", name), Hint: "`postern connect` finds a node that serves it"}
	}
	spec := r.GetSpec()
	if got, want := spec.GetProtocol(), string(c.Protocol); got != want {
		return resolved{}, policy.Terms{}, &postern.Refusal{Code: postern.CodeNoGrant, Reason: fmt.Sprintf("resource %q speaks %s, and this listener %s", name, got, want)}
	}
	if db := spec.GetEndpoint().GetDatabase(); db != "" && c.Database != "" && c.Database != db && c.Database != c.Permission {
		return resolved{}, policy.Terms{}, &postern.Refusal{Code: postern.CodeNoGrant, Reason: fmt.Sprintf("resource %q is database %q", name, db), Hint: "connect with dbname=" + db}
	}
	out := resolved{name: name, resource: r}
	if ca := spec.GetEndpoint().GetTls().GetCa(); ca.GetPem() != "" {
		out.ca = []byte(ca.GetPem())
	} else if ca.GetSecret() != "" {
		// The control plane puts the text in before it publishes.
		return resolved{}, policy.Terms{}, &postern.Refusal{Code: postern.CodeUnavailable, Reason: fmt.Sprintf("the CA of resource %q is not known here", name), Hint: "tell the operators"}
	}
	return out, terms, nil
}

func engineTerms(k *Keeper, g *postern.Grant, task postern.TaskName, r resolved, t policy.Terms, d postern.Decision) *engine.Terms {
	ep := r.resource.GetSpec().GetEndpoint()
	mode := ep.GetTls().GetMode()
	if mode == "" {
		mode = "verify-full"
	}
	server := ep.GetTls().GetServerName()
	if server == "" {
		server = ep.GetHost()
	}
	out := &engine.Terms{
		Node: k.cfg.Node, Subject: g.Subject.Name, Grant: g.ID, Task: task, Resource: r.name,
		Host: ep.GetHost(), Port: int(ep.GetPort()), Database: ep.GetDatabase(),
		TLS:              engine.TLSTerms{Mode: mode, CA: r.ca, ServerName: server},
		HTTP:             httpTerms(ep),
		SSH:              engine.SSHTerms{HostKeys: ep.GetSsh().GetHostKeys(), HostCAs: ep.GetSsh().GetHostCas()},
		Level:            d.Level,
		StatementTimeout: t.StatementTimeout, Idle: t.Idle,
		ReadOnly: t.ReadOnly, Own: t.Unrestricted,
		Hold: d.Verdict == postern.VerdictHold,
	}
	pins := r.resource.GetSpec().GetPin()
	for _, name := range slices.Sorted(maps.Keys(pins)) {
		out.Pins = append(out.Pins, engine.Setting{Name: name, Value: pinValue(pins[name])})
	}
	return out
}

func httpTerms(ep *typesv1.Endpoint) engine.HTTPTerms {
	auth := ep.GetHttp().GetAuth()
	out := engine.HTTPTerms{
		Authority: ep.GetHttp().GetAuthority(), Auth: auth.GetScheme(), Header: auth.GetHeader(),
		Region: auth.GetRegion(), Service: auth.GetService(), Identity: ep.GetHttp().GetIdentity(),
	}
	if out.Authority == "" {
		out.Authority = net.JoinHostPort(ep.GetHost(), strconv.Itoa(int(ep.GetPort())))
		own := ":443" // of its scheme, which no client names
		if ep.GetTls().GetMode() == "disable" {
			own = ":80"
		}
		out.Authority = strings.TrimSuffix(out.Authority, own)
	}
	if out.Auth == "" {
		out.Auth = "bearer"
	}
	return out
}

// pinValue writes a pin as the target's SET takes it: lists are joined by commas.
func pinValue(v *structpb.Value) string {
	switch v := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return v.StringValue
	case *structpb.Value_BoolValue:
		if v.BoolValue {
			return "on"
		}
		return "off"
	case *structpb.Value_NumberValue:
		return strconv.FormatFloat(v.NumberValue, 'f', -1, 64)
	case *structpb.Value_ListValue:
		var parts []string
		for _, e := range v.ListValue.GetValues() {
			parts = append(parts, pinValue(e))
		}
		return strings.Join(parts, ", ")
	}
	return ""
}
