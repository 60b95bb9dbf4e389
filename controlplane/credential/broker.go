package credential

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/hole"
	"github.com/posterngate/postern/pkg/mask"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// The kinds of the faults that nodes turn into refusals.
var (
	kindDenied      = postern.CodeDenied.String()
	kindKilled      = postern.CodeKilled.String()
	kindUnavailable = postern.CodeUnavailable.String()
)

// NodeIdentity is a node as its certificate and enrolment say it is.
type NodeIdentity struct {
	Name    postern.NodeName
	Role    string // empty for a node
	HPKEKey []byte // public, X25519
}

// Lease lends the credential of a resource, sealed to the node's key. Asking again for
// one session answers with the same lease while it lives: within a minute with the same
// credential, and later with a new one, the old one being revoked. Errors are
// fault.Errors.
func (b *Broker) Lease(ctx context.Context, node NodeIdentity, req *nodev1.LeaseRequest) (*nodev1.LeaseResponse, error) {
	// What is begun is brought to its end though the node gives up: see issueTimeout.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), issueTimeout)
	defer cancel()
	want, ref, err := b.allowed(ctx, node, req)
	if err != nil {
		return nil, err
	}
	unlock, err := b.locks.lock(ctx, want.id)
	if err != nil {
		return nil, fault.Wrap(err, codes.Unavailable, "the lease of this session is being made; try again").WithKind(kindUnavailable)
	}
	defer unlock()

	have, err := b.ledger.get(ctx, want.id)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, unavailable(err)
	case have.Grant != want.Grant || have.Resource != want.Resource:
		return nil, fault.New(codes.FailedPrecondition, "session %q has a lease for something else", want.Session)
	case have.State == stateActive && b.now().Before(have.Expires):
		if sealed, ok := b.replies.get(&have, node.HPKEKey, b.now()); ok {
			return b.response(have, sealed), nil
		}
		fallthrough
	default:
		if err := b.clear(ctx, &have); err != nil {
			return nil, err
		}
		want.State, want.revision = have.State, have.revision
	}
	return b.issue(ctx, node, want, ref)
}

// clear ends what is left of an earlier lease of the same session.
func (b *Broker) clear(ctx context.Context, have *lease) error {
	if (have.State.lending() || have.State == stateRevoking && b.now().Before(have.NextTry) && have.Tries == 0) && b.now().Sub(have.Updated) < issueTimeout {
		return fault.New(codes.Unavailable, "the lease of this session is being made; try again").WithKind(kindUnavailable)
	}
	if !have.State.ended() {
		if err := b.end(ctx, have, "asked for again"); err != nil {
			return unavailable(err)
		}
	}
	if have.State == stateIrrevocable {
		return hinted(fault.New(codes.FailedPrecondition, "the credential of this session's earlier lease could not be revoked"), "the operators must look at lease "+string(have.id))
	}
	return nil
}

// allowed checks the request against policy and says what the lease would be.
func (b *Broker) allowed(ctx context.Context, node NodeIdentity, req *nodev1.LeaseRequest) (*lease, *typesv1.CredentialRef, error) {
	if s := req.GetSession(); s == "" || len(s) > maxID || len(req.GetGrant()) > maxID {
		return nil, nil, fault.New(codes.InvalidArgument, "session and grant are ids of at most %d characters", maxID)
	}
	if len(req.GetProcess()) > maxID {
		return nil, nil, fault.New(codes.InvalidArgument, "process is an id of at most %d characters", maxID)
	}
	if err := secret.CheckPublicKey(node.HPKEKey); err != nil {
		return nil, nil, hinted(fault.Wrap(err, codes.FailedPrecondition, "node %q has enrolled no key to which a credential can be sealed", node.Name), "the operators must enrol it again")
	}
	name := postern.ResourceName(req.GetResource())
	res, ok := b.cfg.Policy.Resource(node.Name, name)
	if !ok {
		return nil, nil, fault.New(codes.PermissionDenied, "node %q does not serve a resource %q", node.Name, name).WithKind(kindDenied)
	}
	now := b.now()
	one := &lease{
		Node: node.Name, Process: req.GetProcess(), Session: postern.SessionID(req.GetSession()), Grant: postern.GrantID(req.GetGrant()),
		Resource: name, Purpose: req.GetPurpose(), Created: now,
	}
	if wall := node.Role == postern.RoleWall; wall != (one.Purpose == PurposeAdmin) {
		return nil, nil, fault.New(codes.PermissionDenied, "%q may not borrow for purpose %q: admin credentials are for walls, and the others for nodes", node.Name, one.Purpose).WithKind(kindDenied)
	}
	var ref *typesv1.CredentialRef
	switch one.Purpose {
	case PurposeSession:
		g, err := b.usable(ctx, one)
		if err != nil {
			return nil, nil, err
		}
		one.Task, one.subject, one.Until = postern.TaskName(g.GetTask()), g.GetSubject(), g.GetEndTime().AsTime()
		if hole.Is("lease-unbounded") {
			one.Until = one.Until.Add(time.Hour)
		}
		if ref, err = b.login(g, name); err != nil {
			return nil, nil, err
		}
	case PurposeAdmin:
		ref, one.Until = res.GetSpec().GetLevel().GetAdmin(), now.Add(b.cfg.CatalogTTL)
	case PurposeCatalog:
		ref, one.Until = res.GetSpec().GetCatalog(), now.Add(b.cfg.CatalogTTL)
		if one.Grant != "" { // read on behalf of a session
			g, err := b.usable(ctx, one)
			if err == nil {
				_, err = b.login(g, name)
			}
			if err != nil {
				return nil, nil, err
			}
			one.Task, one.Until = postern.TaskName(g.GetTask()), earlier(one.Until, g.GetEndTime().AsTime())
		}
	default:
		return nil, nil, fault.New(codes.InvalidArgument, "purpose %q is not known", one.Purpose)
	}
	if one.Source, one.Where = sourceOf(ref); ref == nil && one.Purpose == PurposeSession {
		one.Source, one.Where = sourceWall, string(name)+"/"+string(one.Task)
	}
	switch {
	case one.Source == "":
		return nil, nil, hinted(fault.New(codes.FailedPrecondition, "resource %q names no credential for purpose %s", name, one.Purpose), "the owner of the resource must name one")
	case b.source(one.Source) == nil:
		return nil, nil, hinted(fault.New(codes.FailedPrecondition, "resource %q takes its credential from %s, which this control plane does not have", name, one.Source), "the operators must configure it")
	}
	one.Expires = earlier(now.Add(b.life(one)), one.Until)
	one.id = leaseID(one.Node, one.Session, one.Purpose)
	return one, ref, nil
}

// usable is the grant of a lease, which lives, and under which no lock keeps anything from
// being lent.
func (b *Broker) usable(ctx context.Context, one *lease) (*typesv1.Grant, error) {
	id := one.Grant
	g, err := b.cfg.Policy.Grant(ctx, id)
	if err != nil && fault.CodeOf(err) != codes.NotFound {
		return nil, unavailable(err)
	}
	if err != nil || over(g, b.now()) {
		return nil, fault.New(codes.PermissionDenied, "grant %q is over", id).WithKind(kindKilled)
	}
	if why := b.cfg.Policy.Locked(g, one.Resource, one.Node); why != "" {
		return nil, fault.New(codes.PermissionDenied, "%s", why).WithKind(kindKilled)
	}
	return g, nil
}

// login is the credential that a grant's sessions use on a resource that it reaches.
func (b *Broker) login(g *typesv1.Grant, r postern.ResourceName) (*typesv1.CredentialRef, error) {
	ref, ok := b.cfg.Policy.Login(postern.TaskName(g.GetTask()), r)
	if !ok {
		return nil, fault.New(codes.PermissionDenied, "task %q does not reach resource %q", g.GetTask(), r).WithKind(kindDenied)
	}
	return ref, nil
}

// alone is how long the lease is kept for a node that is not heard of.
func (b *Broker) alone(one *lease) time.Duration { return b.cfg.Policy.Alone(one.Task) + awaySlack }

// life is how long a lease lives without a renewal: a node that is cut off must have it
// for as long as it may go on with the task.
func (b *Broker) life(one *lease) time.Duration { return max(b.cfg.TTL, b.alone(one)) }

func over(g *typesv1.Grant, now time.Time) bool {
	return g.GetState() != typesv1.GrantState_GRANT_STATE_ACTIVE || !now.Before(g.GetEndTime().AsTime())
}

// issue goes from nothing to ACTIVE, and takes everything back where that fails. Of what is
// only read, the ledger knows before it is lent, and not before it is read.
func (b *Broker) issue(ctx context.Context, node NodeIdentity, one *lease, ref *typesv1.CredentialRef) (resp *nodev1.LeaseResponse, err error) {
	began := b.now()
	if !read(one.Source) {
		if err := b.ledger.move(ctx, one, stateIntent, nil); err != nil {
			return nil, unavailable(err)
		}
	}
	defer func() {
		if err == nil || one.State == "" || one.State.ended() {
			return
		}
		// The caller may be gone; what was begun must be undone all the same.
		late := ctx.Err() != nil // and the source may be at it still
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), revokeTimeout)
		defer cancel()
		undo := errors.New("the source took too long")
		if late {
			undo = errors.Join(undo, b.put(ctx, one, "lending took too long", b.now().Add(issueTimeout)))
		} else {
			undo = b.end(ctx, one, "lending failed")
		}
		if undo != nil {
			b.cfg.Logger.WarnContext(ctx, "lease is left to the sweeper", append(one.attrs(), slog.Any("error", undo))...)
		}
	}()
	issued, err := b.source(one.Source).Issue(ctx, Request{
		Ref: ref, Lease: one.id, Grant: one.Grant, Task: one.Task, Subject: one.subject, Resource: one.Resource, Node: one.Node, Until: one.Until,
		Host: b.cfg.Policy.HostLogin(one.Task),
		Record: func(ctx context.Context, handle []byte) error {
			sealed, err := b.ledger.seal(ctx, one.id, handle)
			if err != nil {
				return err
			}
			return b.ledger.move(ctx, one, stateToken, func(l *lease) { l.Handle = sealed })
		},
	})
	defer wipe(issued.Credential)
	if err != nil {
		b.cfg.Logger.WarnContext(ctx, "credential was not lent", append(one.attrs(), slog.Any("error", err))...)
		return nil, hinted(fault.Wrap(err, codes.Unavailable, "%s did not lend the credential of resource %q", one.Source, one.Resource), "try again; if it stays, tell the operators when it happened")
	}
	if one.Purpose == PurposeSession {
		if err := b.addKeys(ctx, one.Task, issued.Credential); err != nil {
			return nil, hinted(fault.Wrap(err, codes.FailedPrecondition, "the tokens of task %q have no key", one.Task), "the operators must look at the masks of method token")
		}
	}
	handle, err := b.ledger.seal(ctx, one.id, issued.Handle)
	if err != nil {
		return nil, unavailable(err)
	}
	err = b.ledger.move(ctx, one, stateActive, func(l *lease) {
		l.Handle, l.Bound, l.Account = handle, issued.Expires, issued.Credential.GetAccount()
		l.Expires = within(l.Expires, l.Bound)
	})
	if err != nil {
		return nil, unavailable(err)
	}
	sealed, err := sealFor(node, one, issued.Credential)
	if err != nil {
		return nil, fault.Wrap(err, codes.Internal, "the credential could not be sealed to node %q", node.Name)
	}
	b.replies.put(one, node.HPKEKey, sealed, b.now())
	b.cfg.Logger.InfoContext(ctx, "credential lent", append(one.attrs(), slog.Duration("took", b.now().Sub(began)))...)
	return b.response(*one, sealed), nil
}

// addKeys gives a session the keys of its task's tokens, each derived for the domain: the
// key itself stays here.
func (b *Broker) addKeys(ctx context.Context, t postern.TaskName, c *nodev1.Credential) error {
	for name, m := range b.cfg.Policy.Tokens(t) {
		if b.cfg.Key == nil {
			return errors.New("this control plane keeps no secrets")
		}
		key, err := b.cfg.Key(ctx, m.Key)
		if err != nil {
			return err
		}
		derived, err := mask.TokenKey(key.Reveal(), m.Domain)
		key.Wipe()
		if err != nil {
			return fmt.Errorf("secret %q: %w", m.Key, err)
		}
		if c.MaskKeys == nil {
			c.MaskKeys = map[string][]byte{}
		}
		c.MaskKeys[name] = derived
	}
	return nil
}

func sealFor(node NodeIdentity, one *lease, c *nodev1.Credential) ([]byte, error) {
	plain, err := proto.Marshal(c)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return secret.SealTo(node.HPKEKey, secret.CredentialInfo(string(one.Node), string(one.id), string(one.Session)), plain)
}

func (b *Broker) response(one lease, sealed []byte) *nodev1.LeaseResponse {
	return &nodev1.LeaseResponse{
		Lease: string(one.id), Sealed: sealed,
		ExpireTime: timestamppb.New(one.Expires), RenewTime: b.renewTime(one),
	}
}

// renewTime is two thirds of what is left; nil where nothing more can be had.
func (b *Broker) renewTime(one lease) *timestamppb.Timestamp {
	if !one.Expires.Before(one.Until) {
		return nil
	}
	now := b.now()
	left := min(one.Expires.Sub(now), b.cfg.TTL)
	if left < renewLeast && !one.Bound.IsZero() && !one.Expires.Before(one.Bound) {
		return nil // the source has given all it will, and the node asks no more for what is left
	}
	return timestamppb.New(now.Add(left * 2 / 3))
}

// Renew keeps a lease alive. Only the node that took it may, and only while its grant
// lives. Errors are fault.Errors; of kind "killed" when the lease or its grant is over.
func (b *Broker) Renew(ctx context.Context, node postern.NodeName, req *nodev1.RenewLeaseRequest) (*nodev1.RenewLeaseResponse, error) {
	one, unlock, err := b.mine(ctx, node, req.GetLease())
	if err != nil {
		return nil, err
	}
	defer unlock()
	now := b.now()
	if one == nil || one.State != stateActive || !now.Before(one.Expires) {
		return nil, fault.New(codes.FailedPrecondition, "the lease has ended").WithKind(kindKilled)
	}
	if one.Grant != "" {
		g, err := b.usable(ctx, one)
		if err == nil {
			_, err = b.login(g, one.Resource)
		}
		if one.Task = postern.TaskName(g.GetTask()); err != nil {
			return nil, err
		}
	}
	until := earlier(now.Add(b.life(one)), one.Until)
	bound := one.Bound
	if !bound.IsZero() && bound.Before(until) {
		if bound, err = b.extend(ctx, *one); err != nil {
			return nil, unavailable(err)
		}
	}
	err = b.ledger.move(ctx, one, stateActive, func(l *lease) {
		l.Bound, l.Expires = bound, within(until, bound)
	})
	if err != nil {
		return nil, unavailable(err)
	}
	return &nodev1.RenewLeaseResponse{ExpireTime: timestamppb.New(one.Expires), RenewTime: b.renewTime(*one)}, nil
}

// extend asks the source for more time: all that the lease may ever have, so that it is
// asked seldom.
func (b *Broker) extend(ctx context.Context, one lease) (time.Time, error) {
	handle, err := b.ledger.open(ctx, one)
	if err != nil {
		return time.Time{}, err
	}
	source := b.source(one.Source)
	if source == nil {
		return time.Time{}, fmt.Errorf("lease %s: this control plane has no source %q", one.id, one.Source)
	}
	return source.Renew(ctx, handle, one.Until)
}

// Release gives a lease back. It is idempotent; only the node that took the lease may.
// Once it returns nil the lease has ended or the sweeper will end it.
func (b *Broker) Release(ctx context.Context, node postern.NodeName, req *nodev1.ReleaseRequest) (*nodev1.ReleaseResponse, error) {
	for {
		resp, err := b.release(ctx, node, req)
		// The session's record may tell at the same moment that it is over.
		if conflict := (*store.ConflictError)(nil); errors.As(err, &conflict) && ctx.Err() == nil {
			continue
		}
		return resp, err
	}
}

func (b *Broker) release(ctx context.Context, node postern.NodeName, req *nodev1.ReleaseRequest) (*nodev1.ReleaseResponse, error) {
	one, unlock, err := b.mine(ctx, node, req.GetLease())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if one == nil || one.State.ended() || one.State == stateRevoking && !one.NextTry.IsZero() {
		return &nodev1.ReleaseResponse{}, nil // somebody else is at it
	}
	if err := b.end(ctx, one, "released"); err != nil && one.State != stateRevoking && !one.State.ended() {
		return nil, unavailable(err)
	}
	return &nodev1.ReleaseResponse{}, nil
}

// mine reads a lease that must be the node's own, and locks it. A lease that does not
// exist is nil.
func (b *Broker) mine(ctx context.Context, node postern.NodeName, id string) (*lease, func(), error) {
	if id == "" || len(id) > maxID {
		return nil, nil, fault.New(codes.InvalidArgument, "lease is an id of at most %d characters", maxID)
	}
	unlock, err := b.locks.lock(ctx, postern.LeaseID(id))
	if err != nil {
		return nil, nil, unavailable(err)
	}
	one, err := b.ledger.get(ctx, postern.LeaseID(id))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, unlock, nil
	case err != nil:
		unlock()
		return nil, nil, unavailable(err)
	case one.Node != node:
		unlock()
		b.cfg.Logger.WarnContext(ctx, "node asked for another node's lease", append(one.attrs(), slog.String("asker", string(node)))...)
		return nil, nil, fault.New(codes.PermissionDenied, "the lease is not this node's").WithKind(kindDenied)
	}
	return &one, unlock, nil
}

func (b *Broker) now() time.Time { return b.cfg.Now() }

func (l *lease) attrs() []any {
	return []any{
		slog.String("lease", string(l.id)), slog.String("grant", string(l.Grant)), slog.String("session", string(l.Session)),
		slog.String("node", string(l.Node)), slog.String("resource", string(l.Resource)), slog.String("source", l.Source),
		slog.String("where", l.Where), slog.String("account", l.Account), slog.String("state", string(l.State)),
	}
}

// hinted is a fault that the person who waits for the credential reads, with what to do.
func hinted(f *fault.Error, hint string) *fault.Error {
	return f.WithHint(hint).WithKind(kindUnavailable)
}

func unavailable(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return fault.Wrap(err, codes.Unavailable, "the control plane cannot lend credentials now; try again").WithKind(kindUnavailable)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// within is t, but no later than the bound; a zero bound is none.
func within(t, bound time.Time) time.Time {
	if bound.IsZero() {
		return t
	}
	return earlier(t, bound)
}

// wipe overwrites the secret parts.
func wipe(c *nodev1.Credential) {
	clear(c.GetPassword())
	clear(c.GetSessionToken())
	clear(c.GetPrivateKey())
	for _, key := range c.GetMaskKeys() {
		clear(key)
	}
}
