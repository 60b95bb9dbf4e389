// Package wall lends logins that a resource's postern-wall makes, one for each lease: a
// member of the task's role and of nothing else. The password is made here and never
// leaves but sealed to the node; the wall, and the target's log, see its verifier.
package wall

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/credential"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/secret"
)

// Walls reaches the walls; *fleet.Fleet is one.
type Walls interface {
	// Wall has a connected wall of the resource do something, and waits for the result.
	Wall(ctx context.Context, r postern.ResourceName, cmd *nodev1.Command) (*nodev1.CommandResult, error)
	// Version is the newest version that was published.
	Version() postern.Version
}

// Source lends logins. It is safe for concurrent use.
type Source struct{ walls Walls }

var _ credential.Source = (*Source)(nil)

// New makes a Source.
func New(w Walls) *Source { return &Source{w} }

// handle is what it takes to end a login.
type handle struct {
	Resource string `json:"resource"`
	Lease    string `json:"lease"`
}

// Issue has a wall make the login. It ends by itself at r.Until, and can be used until
// then.
func (s *Source) Issue(ctx context.Context, r credential.Request) (credential.Issued, error) {
	password := []byte(rand.Text())
	verifier, err := secret.ScramVerifier(password)
	if err != nil {
		return credential.Issued{}, err
	}
	h, err := json.Marshal(handle{string(r.Resource), string(r.Lease)})
	if err != nil {
		return credential.Issued{}, err
	}
	if err := r.Record(ctx, h); err != nil {
		return credential.Issued{}, err
	}
	v := s.walls.Version()
	res, err := s.walls.Wall(ctx, r.Resource, &nodev1.Command{Kind: &nodev1.Command_MakeLogin{MakeLogin: &nodev1.MakeLogin{
		Resource: string(r.Resource), Task: string(r.Task), Lease: string(r.Lease), Verifier: verifier, ExpireTime: timestamppb.New(r.Until),
		Subject: r.Subject, Version: &typesv1.Version{Epoch: v.Epoch, Revision: v.Revision},
	}}})
	if err != nil {
		return credential.Issued{}, fmt.Errorf("make a login: %w", err)
	}
	if !res.GetDone() || res.GetAccount() == "" {
		return credential.Issued{}, fmt.Errorf("make a login: the wall says: %s", res.GetError())
	}
	return credential.Issued{Credential: &nodev1.Credential{Account: res.GetAccount(), Password: password}, Handle: h, Expires: r.Until}, nil
}

// Renew has nothing to do: the login lives until the grant's end.
func (s *Source) Renew(_ context.Context, _ []byte, until time.Time) (time.Time, error) {
	return until, nil
}

// Revoke has a wall end the login and whatever runs under it.
func (s *Source) Revoke(ctx context.Context, b []byte) error {
	var h handle
	if err := json.Unmarshal(b, &h); err != nil || h.Lease == "" {
		return errors.New("the handle of a wall's login is damaged")
	}
	res, err := s.walls.Wall(ctx, postern.ResourceName(h.Resource), &nodev1.Command{Kind: &nodev1.Command_DropLogin{
		DropLogin: &nodev1.DropLogin{Resource: h.Resource, Lease: h.Lease},
	}})
	if err != nil {
		return fmt.Errorf("drop a login: %w", err)
	}
	if !res.GetDone() {
		return fmt.Errorf("drop a login: the wall says: %s", res.GetError())
	}
	return nil
}
