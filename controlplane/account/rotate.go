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
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// nextKey is under which key a secret has the password that is being given: it is kept
// before the server has it, so that a rotation that is cut short anywhere can be finished.
const nextKey = "next"

// Rotate gives an account whose password stands a new one. That of a Secret or of Vault's
// KV is made here, given to the server by a wall as its verifier, and lent from then on;
// that of a static role Vault makes. The old one fails at once. By whom is for the audit
// log. Errors are *fault.Error.
func (s *Service) Rotate(ctx context.Context, name string, by audit.Entry) (*apiv1.RotateAccountResponse, error) {
	one, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	resp := &apiv1.RotateAccountResponse{Account: one.account, Secret: one.name}
	for _, r := range one.resources {
		resp.Resources = append(resp.Resources, string(r))
	}
	by.Action, by.Object, by.Outcome = "account.rotate", one.object(), "ok"
	detail := map[string]any{"account": one.account, "resources": resp.GetResources()}
	by.Detail = detail
	if one.ref.GetVault().GetStaticRole() != "" {
		if err := s.cfg.Vault.Rotate(ctx, one.ref.GetVault()); err != nil {
			return nil, unfinished(err, "Vault could not change the password of %s", one.account)
		}
		resp.Time = timestamppb.New(s.cfg.Now())
		err = s.cfg.Audit.Append(ctx, by)
	} else {
		err = s.replace(ctx, one, resp, by, detail)
	}
	if err != nil {
		return nil, err
	}
	if err := s.sessionsAfter(ctx, one, resp); err != nil {
		return nil, err
	}
	return resp, s.whoHasIt(ctx, one, resp)
}

// replace makes the new password, gives it to the server, and then to those who lend it.
func (s *Service) replace(ctx context.Context, one *static, resp *apiv1.RotateAccountResponse, by audit.Entry, detail map[string]any) error {
	wall, at, err := s.wallOf(one)
	if err != nil {
		return err
	}
	detail["wall"] = wall
	next, err := s.prepare(ctx, one)
	if err != nil {
		return err
	}
	verifier, err := secret.ScramVerifier([]byte(next))
	if err != nil {
		return err
	}
	res, err := s.cfg.Fleet.Command(ctx, wall, &nodev1.Command{Kind: &nodev1.Command_SetPassword{
		SetPassword: &nodev1.SetPassword{Resource: string(at), Account: one.account, Verifier: verifier},
	}})
	if err == nil && !res.GetDone() {
		err = errors.New(res.GetError())
	}
	if err != nil {
		return unfinished(err, "wall %s could not change the password of %s: %s", wall, one.account, fault.From(err).Reason)
	}
	resp.Time = timestamppb.New(s.cfg.Now())
	return s.finish(ctx, one, next, by)
}

// unfinished is why a rotation did not come to its end.
func unfinished(err error, format string, args ...any) error {
	if f := fault.From(err); f.Code == codes.FailedPrecondition {
		return f // nothing was done, and it says what to do
	}
	return fault.Wrap(err, codes.Unavailable, format, args...).
		WithHint("the account is as it was, or has the new password: rotate it again, which goes on where this stopped")
}

// whoHasIt adds who was seen with the account around Postern.
func (s *Service) whoHasIt(ctx context.Context, one *static, resp *apiv1.RotateAccountResponse) error {
	for _, r := range one.resources {
		seen, err := s.kept(ctx, r)
		if err != nil {
			return err
		}
		for _, g := range seen {
			if g.Account == one.account {
				resp.Around = append(resp.Around, g.message())
			}
		}
	}
	slices.SortFunc(resp.Around, func(a, b *apiv1.AroundUse) int { return b.GetLastTime().AsTime().Compare(a.GetLastTime().AsTime()) })
	return nil
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
	return one.values[nextKey], s.save(ctx, one, nil)
}

// finish makes the new password the one in use.
func (s *Service) finish(ctx context.Context, one *static, next string, by audit.Entry) error {
	one.values["password"] = next
	delete(one.values, nextKey)
	return s.save(ctx, one, &by)
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
			had, err := s.cfg.Fleet.Broadcast(wait, &nodev1.Command{Kind: &nodev1.Command_KillSession{
				KillSession: &nodev1.KillSession{Session: string(l.Session), Reason: "the password of its login was changed"},
			}})
			cancel()
			if had == "" && err != nil {
				return fmt.Errorf("end session %s: %w", l.Session, err)
			}
			resp.Ended = append(resp.Ended, string(l.Session))
		}
	}
	return nil
}

// killWait bounds the end of one session.
const killWait = 5 * time.Second
