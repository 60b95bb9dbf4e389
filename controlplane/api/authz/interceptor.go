package authz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
)

const (
	maxBearerBytes = 16 << 10
	maxStaleness   = 30 * time.Second
)

// Authenticator says whose a token for the API is, and until when. Its errors are
// *fault.Error with a text for the caller.
type Authenticator interface {
	Authenticate(ctx context.Context, bearer string) (postern.Subject, time.Time, error)
}

// Config is what an Interceptor needs; all is required but Admins and Logger.
type Config struct {
	Auth Authenticator
	// Policy is the policy as it stands: roles and locks. Nil, or of no version, denies.
	Policy func() *policy.Snapshot
	// Staleness is how old Policy may be; past maxStaleness everything that needs a token
	// is refused, for a role may have been taken away. Nil where it cannot be old.
	Staleness func() time.Duration
	// Admins are admins without a RoleBinding: the first ones, and those of an emergency.
	// A Lock binds them like everybody.
	Admins []*typesv1.SubjectSelector
	Audit  *audit.Log
	Logger *slog.Logger
	Now    func() time.Time
}

// Interceptor stands before every method: it knows the caller, holds the call against
// the Table, audits, and gives errors the form in which they leave the house.
type Interceptor struct {
	cfg     Config
	table   map[string]Rule
	admins  *policy.Snapshot
	refused refusals
	opened  *rate.Limiter // of recordings, by people who are no auditors
	logins  logins
	buckets buckets
}

var _ connect.Interceptor = (*Interceptor)(nil)

// New makes an Interceptor.
func New(cfg Config) (*Interceptor, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	i := &Interceptor{cfg: cfg, table: Table(), refused: newRefusals(cfg.Audit, cfg.Logger), opened: rate.NewLimiter(refusalsPerSecond, refusalsAtOnce)}
	if len(cfg.Admins) > 0 {
		var rejected []policy.Rejection
		i.admins, rejected = selecting(map[string][]*typesv1.SubjectSelector{"configuration": cfg.Admins})
		if len(rejected) > 0 {
			return nil, fmt.Errorf("admins: %s", rejected[0].Reason)
		}
	}
	return i, nil
}

// selecting compiles selectors by a name, as RoleBindings: so that they are read by
// pkg/policy alone, and nowhere in another way.
func selecting(selectors map[string][]*typesv1.SubjectSelector) (*policy.Snapshot, []policy.Rejection) {
	var objects []*typesv1.Object
	for name, s := range selectors {
		objects = append(objects, &typesv1.Object{Kind: &typesv1.Object_RoleBinding{RoleBinding: &typesv1.RoleBinding{
			ApiVersion: "postern/v1", Kind: "RoleBinding",
			Metadata: &typesv1.Metadata{Name: name},
			Spec:     &typesv1.RoleBindingSpec{Role: Admin, Subjects: s},
		}}})
	}
	return policy.Compile(postern.Version{}, objects)
}

// caller finds out who calls, and whether they may at all; request is nil for a stream.
func (i *Interceptor) caller(ctx context.Context, procedure string, header http.Header, address string, request any) (*Caller, Rule, error) {
	rule, known := i.table[procedure]
	if !known {
		return nil, rule, fault.New(codes.PermissionDenied, "method %.100q is not one that anybody may call", procedure)
	}
	if rule.Public {
		return nil, rule, nil
	}
	bearer, err := bearerOf(header)
	if err != nil {
		return nil, rule, err
	}
	if bearer == "" {
		if rule.Optional {
			return nil, rule, nil
		}
		return nil, rule, fault.New(codes.Unauthenticated, "%s needs a token: run postern login, or set POSTERN_TOKEN", method(procedure)).WithKind("bad-token")
	}
	sub, until, err := i.cfg.Auth.Authenticate(ctx, bearer)
	if err != nil {
		return nil, rule, err
	}
	if sub.Name == "" || (!until.IsZero() && !until.After(i.cfg.Now())) {
		return nil, rule, fault.New(codes.Unauthenticated, "the token has ended: run postern login").WithKind("bad-token")
	}
	c := &Caller{Subject: sub, Expires: until, Address: address, Method: method(procedure)}
	now := i.cfg.Policy()
	if now == nil || now.Version().IsZero() {
		return c, rule, fault.New(codes.Unavailable, "the control plane has not read its policy yet; try again")
	}
	if i.cfg.Staleness != nil && i.cfg.Staleness() > maxStaleness {
		return c, rule, fault.New(codes.Unavailable, "the control plane has lost its store, and with it the roles that hold now; try again")
	}
	if err := i.locked(now, sub); err != nil {
		if _, _, known := now.LockedFor(&sub, "", "", "", i.cfg.Now()); known || !aboutLocks(request) {
			return c, rule, err
		}
		c.barred = err
	}
	c.Roles = i.roles(now, sub)
	if err := i.login(ctx, c, bearer); err != nil {
		return c, rule, err
	}
	c.again = func() *Caller {
		next := *c
		next.Roles = nil
		if now := i.cfg.Policy(); now != nil {
			if i.locked(now, sub) == nil {
				next.Roles = i.roles(now, sub)
			}
		}
		return &next
	}
	if !rule.allows(c) {
		have := strings.Join(c.RoleNames(), ", ")
		if have == "" {
			have = "none"
		}
		return c, rule, fault.New(codes.PermissionDenied, "%s needs the role %s; the roles of %s: %s", c.Method, rule.who(), sub.Name, have).WithKind("denied").
			WithHint("an admin gives roles, by a RoleBinding")
	}
	return c, rule, nil
}

// locked says which lock stands on a subject, or may, or nil. One that cannot be read spares
// admins: somebody has to delete it.
func (i *Interceptor) locked(now *policy.Snapshot, sub postern.Subject) error {
	reason, lock, locked := now.Barred(&sub, "", "", "", i.cfg.Now())
	if locked && (&Caller{Roles: i.roles(now, sub)}).Has(Admin) {
		reason, lock, locked = now.LockedFor(&sub, "", "", "", i.cfg.Now())
	}
	if !locked {
		return nil
	}
	return fault.New(codes.PermissionDenied, "lock %q stands on %s: %s", lock, sub.Name, reason).WithKind("locked")
}

// aboutLocks reports whether a request writes locks alone, and asks for none as it was: an etag
// that is not the newest is answered with what has changed.
func aboutLocks(request any) bool {
	r, ok := request.(*apiv1.ApplyRequest)
	return ok && !slices.ContainsFunc(r.GetObjects(), func(o *typesv1.Object) bool {
		return o.GetLock() == nil || o.GetLock().GetMetadata().GetEtag() != ""
	})
}

func (i *Interceptor) roles(now *policy.Snapshot, sub postern.Subject) []policy.RoleGrant {
	roles := now.Roles(sub)
	if i.admins != nil {
		roles = append(roles, i.admins.Roles(sub)...)
	}
	return roles
}

// Methods are those that a subject may call as policy stands now, beside those that need
// no token; sorted.
func (i *Interceptor) Methods(sub postern.Subject) []string {
	c := &Caller{Subject: sub, Roles: i.roles(i.cfg.Policy(), sub)}
	var out []string
	for procedure, rule := range Table() {
		if !rule.Public && rule.allows(c) {
			out = append(out, method(procedure))
		}
	}
	slices.Sort(out)
	return out
}

func bearerOf(h http.Header) (string, error) {
	all := h.Values("Authorization")
	if len(all) == 0 {
		return "", nil
	}
	scheme, token, ok := strings.Cut(all[0], " ")
	if len(all) > 1 || !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || len(token) > maxBearerBytes || strings.ContainsAny(token, " ,") {
		return "", fault.New(codes.Unauthenticated, "the Authorization header is not one Bearer token").WithKind("bad-token")
	}
	return token, nil
}

// call runs one method, of whatever form. request is what was asked; for a stream it is
// known to run alone, which hands it to begin before anything is done with it.
func (i *Interceptor) call(ctx context.Context, procedure string, header http.Header, address string, request any, run func(ctx context.Context, begin func(request any) error) error) (err error) {
	log := i.cfg.Logger
	// The error leaves in its form whatever happens, and also where the code below panics.
	defer func() {
		if v := recover(); v != nil {
			if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it in this way too
				panic(v)
			}
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
		err = wire(ctx, log, procedure, err)
	}()
	c, rule, err := i.caller(ctx, procedure, header, address, request)
	if err != nil {
		i.refused.note(ctx, c, address, procedure, request, err)
		return err
	}
	if err := i.buckets.take(rule.Limit, counted(c, address), i.cfg.Now()); err != nil {
		return err
	}
	if c != nil {
		ctx = audit.Through(With(ctx, c), c.Subject.Name, c.Subject.Actors())
		if !c.Expires.IsZero() {
			var cancel context.CancelFunc
			ended := fault.New(codes.Unauthenticated, "the token has ended during the call: sign in and go on").WithKind("bad-token")
			ctx, cancel = context.WithDeadlineCause(ctx, c.Expires, ended)
			defer cancel()
		}
	}
	ctx, wrote := audit.Watched(ctx)
	begin := func(asked any) error {
		request = asked
		if rule.Audit != opens {
			return nil
		}
		if !c.Has(Auditor) && !i.opened.Allow() { // nor does opening, without a right to, fill the log
			return fault.New(codes.ResourceExhausted, "too many recordings are opened at this moment; try again")
		}
		return i.writeFirst(ctx, entry(c, address, procedure, request))
	}
	ctx = audit.Telling(ctx, func(ctx context.Context, before any) error {
		e := entry(c, address, procedure, request)
		e.Detail = map[string]any{"before": before, "request": request}
		return i.writeFirst(ctx, e)
	})
	if err := run(ctx, begin); err != nil {
		if code := fault.CodeOf(err); code == codes.PermissionDenied || code == codes.Unauthenticated {
			i.refused.note(ctx, c, address, procedure, request, err)
		}
		return err
	}
	if rule.Audit == writes && !wrote() {
		// Even when the caller has gone, for it was done.
		if err := i.cfg.Audit.Append(context.WithoutCancel(ctx), entry(c, address, procedure, request)); err != nil {
			return errors.Join(errors.New("done, and not written to the audit log"), err)
		}
	}
	return nil
}

// writeFirst writes the entry of what is done after it, or not at all.
func (i *Interceptor) writeFirst(ctx context.Context, e audit.Entry) error {
	if err := i.cfg.Audit.Append(ctx, e); err != nil {
		return fault.Wrap(err, codes.Unavailable, "this could not be written to the audit log, and so it was not done; try again")
	}
	return nil
}

// WrapUnary implements connect.Interceptor.
func (i *Interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		var resp connect.AnyResponse
		err := i.call(ctx, req.Spec().Procedure, req.Header(), req.Peer().Addr, req.Any(), func(ctx context.Context, begin func(any) error) (err error) {
			if err := begin(req.Any()); err != nil {
				return err
			}
			resp, err = next(ctx, req)
			return err
		})
		if err != nil {
			return nil, err
		}
		return resp, nil
	}
}

// WrapStreamingHandler implements connect.Interceptor.
func (i *Interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return i.call(ctx, conn.Spec().Procedure, conn.RequestHeader(), conn.Peer().Addr, nil, func(ctx context.Context, begin func(any) error) error {
			return next(ctx, &streaming{StreamingHandlerConn: conn, begin: begin, may: func() error {
				if c, ok := From(ctx); ok {
					return i.locked(i.cfg.Policy(), c.Subject)
				}
				return nil
			}})
		})
	}
}

// streaming hands the first message of a stream to begin, before its method has it, and
// sends nothing to who may be sent nothing any more.
type streaming struct {
	connect.StreamingHandlerConn
	begin func(any) error // nil once called; one goroutine receives
	may   func() error
}

// Send implements connect.StreamingHandlerConn.
func (f *streaming) Send(m any) error {
	if err := f.may(); err != nil {
		return err
	}
	return f.StreamingHandlerConn.Send(m)
}

// Receive implements connect.StreamingHandlerConn.
func (f *streaming) Receive(m any) error {
	if err := f.StreamingHandlerConn.Receive(m); err != nil {
		return err
	}
	if begin := f.begin; begin != nil {
		f.begin = nil
		return begin(m)
	}
	return nil
}

// WrapStreamingClient implements connect.Interceptor; this one is for servers.
func (*Interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}
