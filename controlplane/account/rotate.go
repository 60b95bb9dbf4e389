package account

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/audit"
	"github.com/posterngate/postern/controlplane/credential/sealed"
	"github.com/posterngate/postern/controlplane/store"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

const secretKind = "secret"

// nextKey is under which key a secret has the password that is being given: it is kept
// before the server has it, so that a rotation that is cut short anywhere can be finished.
const nextKey = "next"

// Rotate gives the account of a secret a new password: made here, given to the server by a
// wall as its verifier, and lent from then on. The old one fails at once. By whom is for
// the audit log. Errors are *fault.Error.
func (s *Service) Rotate(ctx context.Context, name string, by audit.Entry) (*apiv1.RotateAccountResponse, error) {
	one, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	wall, at, err := s.wallOf(one)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.RotateAccountResponse{Account: one.account, Secret: one.name}
	for _, r := range one.resources {
		resp.Resources = append(resp.Resources, string(r))
	}
	next, err := s.prepare(ctx, one)
	if err != nil {
		return nil, err
	}
	verifier, err := secret.ScramVerifier([]byte(next))
	if err != nil {
		return nil, err
	}
	res, err := s.cfg.Fleet.Command(ctx, wall, &nodev1.Command{Kind: &nodev1.Command_SetPassword{
		SetPassword: &nodev1.SetPassword{Resource: string(at), Account: one.account, Verifier: verifier},
	}})
	if err == nil && !res.GetDone() {
		err = errors.New(res.GetError())
	}
	if err != nil {
		f := fault.Wrap(err, codes.Unavailable, "wall %s could not change the password of %s: %s", wall, one.account, fault.From(err).Reason)
		f.Violations = append(f.Violations, fault.Violation{Field: "hint", Reason: "the account is as it was, or has the new password: rotate it again, which goes on where this stopped"})
		return nil, f
	}
	resp.Time = timestamppb.New(s.cfg.Now())
	by.Action, by.Object, by.Outcome = "account.rotate", secretKind+"/"+one.name, "ok"
	by.Detail = map[string]any{"account": one.account, "resources": resp.GetResources(), "wall": wall}
	if err := s.finish(ctx, one, next, by); err != nil {
		return nil, err
	}
	if err := s.sessionsAfter(ctx, one, resp); err != nil {
		return nil, err
	}
	for _, r := range one.resources {
		seen, err := s.kept(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, g := range seen {
			if g.Account == one.account {
				resp.Around = append(resp.Around, g.message())
			}
		}
	}
	slices.SortFunc(resp.Around, func(a, b *apiv1.AroundUse) int { return b.GetLastTime().AsTime().Compare(a.GetLastTime().AsTime()) })
	return resp, nil
}

// static is a secret that is the login of resources.
type static struct {
	name      string
	account   string
	resources []postern.ResourceName
	entry     store.Entry
	object    *typesv1.Object
	values    map[string]string
}

// find is the secret that a name means: its own, its account's, or that of the one resource
// that logs in with it.
func (s *Service) find(ctx context.Context, name string) (*static, error) {
	users := map[string][]postern.ResourceName{} // by secret
	snap := s.cfg.Snapshot()
	for _, r := range snap.Resources() {
		res, _ := snap.Resource(r)
		for _, ref := range refs(res) {
			if n := ref.GetSealed(); n != "" && !slices.Contains(users[n], r) {
				users[n] = append(users[n], r)
			}
		}
	}
	var meant []string
	for n, by := range users {
		account, err := s.accountOf(ctx, n)
		if err != nil {
			return nil, err
		}
		if n == name {
			meant = []string{n}
			break
		}
		res, ok := snap.Resource(postern.ResourceName(name))
		if account == name || ok && slices.Contains(by, postern.ResourceName(name)) && res.GetSpec().GetCredential().GetSealed() == n {
			meant = append(meant, n)
		}
	}
	switch len(meant) {
	case 0:
		return nil, fault.New(codes.NotFound, "no secret %.60q is the login of a resource; an account that a source makes or rotates itself needs no rotation here", name)
	case 1:
	default:
		slices.Sort(meant)
		return nil, fault.New(codes.FailedPrecondition, "%.60q may be one of the secrets %v: name the one that is meant", name, meant)
	}
	one, err := s.open(ctx, meant[0])
	if err != nil {
		return nil, err
	}
	one.resources = users[one.name]
	slices.Sort(one.resources)
	if one.account == "" || one.values["password"] == "" {
		return nil, fault.New(codes.FailedPrecondition, "secret %q is no username with a password", one.name)
	}
	return one, nil
}

// open reads a secret.
func (s *Service) open(ctx context.Context, name string) (*static, error) {
	e, err := s.cfg.Store.Get(ctx, store.Key{Kind: secretKind, Name: name})
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(codes.NotFound, "there is no secret %q", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read secret %q: %w", name, err)
	}
	o, err := store.DecodeObject(e)
	if err != nil {
		return nil, err
	}
	opened, err := sealed.OpenSecret(ctx, s.cfg.Keeper, o.GetSecret())
	if err != nil {
		return nil, err
	}
	one := &static{name: name, entry: e, object: o, values: map[string]string{}}
	for k, v := range opened {
		one.values[k] = string(v.Reveal())
		v.Wipe()
	}
	one.account = one.values["username"]
	return one, nil
}

// accountOf is the account of a secret; empty where it is none, or not there.
func (s *Service) accountOf(ctx context.Context, name string) (string, error) {
	one, err := s.open(ctx, name)
	if fault.CodeOf(err) == codes.NotFound {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return one.account, nil
}

// wallOf is a wall that reaches the account's server, and by which resource.
func (s *Service) wallOf(one *static) (postern.NodeName, postern.ResourceName, error) {
	for _, r := range one.resources {
		res, _ := s.cfg.Snapshot().Resource(r)
		if wall, ok := s.cfg.Fleet.WallFor(r); ok && res.GetSpec().GetLevel().GetAdmin() != nil && res.GetSpec().GetProtocol() == string(postern.Postgres) {
			return wall, r, nil
		}
	}
	return "", "", fault.New(codes.FailedPrecondition, "no wall may change the password of %s: set spec.level.admin of one of %s, and run a postern-wall beside the nodes", one.account, describe(one.resources))
}

// prepare keeps the new password beside the one in use, and returns it: that of an earlier
// rotation that was cut short, where there is one, for the server may have it already.
func (s *Service) prepare(ctx context.Context, one *static) (string, error) {
	if next := one.values[nextKey]; next != "" {
		return next, nil
	}
	one.values[nextKey] = rand.Text()
	op, err := s.sealed(ctx, one)
	if err != nil {
		return "", err
	}
	revision, err := s.cfg.Store.Commit(ctx, op)
	if err != nil {
		return "", meanwhile(err)
	}
	one.entry.Revision = revision
	return one.values[nextKey], nil
}

// finish makes the new password the one in use.
func (s *Service) finish(ctx context.Context, one *static, next string, by audit.Entry) error {
	one.values["password"] = next
	delete(one.values, nextKey)
	object.Meta(one.object).UpdateTime = timestamppb.New(s.cfg.Now())
	op, err := s.sealed(ctx, one)
	if err != nil {
		return err
	}
	_, err = s.cfg.Audit.Commit(ctx, by, op)
	return meanwhile(err)
}

// sealed is the operation that stores the values.
func (s *Service) sealed(ctx context.Context, one *static) (store.Op, error) {
	sec := one.object.GetSecret()
	sec.Spec = &typesv1.SecretSpec{Data: one.values}
	if err := sealed.SealSecret(ctx, s.cfg.Keeper, sec); err != nil {
		return store.Op{}, err
	}
	k, value, err := store.EncodeObject(one.object)
	return store.Op{Key: k, Value: value, If: one.entry.Revision}, err
}

func meanwhile(err error) error {
	var conflict *store.ConflictError
	if errors.As(err, &conflict) {
		return fault.Wrap(err, codes.Aborted, "somebody changed the secret in this moment; rotate it again")
	}
	return err
}

// sessionsAfter ends the sessions that logged in with the old password, where their
// resource says so. The others live on: a server asks for a password at login alone.
func (s *Service) sessionsAfter(ctx context.Context, one *static, resp *apiv1.RotateAccountResponse) error {
	for _, r := range one.resources {
		lent, err := s.cfg.Lent(ctx, r)
		if err != nil {
			return err
		}
		res, _ := s.cfg.Snapshot().Resource(r)
		for _, l := range lent {
			if !l.Live || l.Account != one.account || l.Purpose != "session" || l.Created.After(resp.GetTime().AsTime()) {
				continue
			}
			if res.GetSpec().GetRotatedSessions() != "end" {
				resp.Kept = append(resp.Kept, string(l.Session))
				continue
			}
			wait, cancel := context.WithTimeout(ctx, killWait)
			_, err := s.cfg.Fleet.Broadcast(wait, &nodev1.Command{Kind: &nodev1.Command_KillSession{
				KillSession: &nodev1.KillSession{Session: string(l.Session), Reason: "the password of its login was changed"},
			}})
			cancel()
			if err != nil {
				return fmt.Errorf("end session %s: %w", l.Session, err)
			}
			resp.Ended = append(resp.Ended, string(l.Session))
		}
	}
	return nil
}

// killWait bounds the end of one session.
const killWait = 5 * time.Second
