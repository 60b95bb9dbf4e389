package userapi

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/controlplane/api/authz"
	"github.com/posterngate/postern/controlplane/identity/authority"
	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	api "github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
)

// Keys replaces keys; *authority.Authority is one.
type Keys interface {
	Keys() ([]authority.Key, error)
	Bundle() []byte
	Rotate(ctx context.Context, by, use string, lead *time.Duration) (authority.Key, error)
	Retire(ctx context.Context, by, name string) error
}

// Authority answers AuthorityService.
type Authority struct{ keys Keys }

var _ api.AuthorityServiceHandler = (*Authority)(nil)

// NewAuthority makes an Authority.
func NewAuthority(keys Keys) *Authority { return &Authority{keys} }

func signingKey(k authority.Key) *apiv1.SigningKey {
	return &apiv1.SigningKey{
		Name: k.Name, Use: k.Use, CreateTime: timestamppb.New(k.Created), SignTime: timestamppb.New(k.Signs), State: k.State, Fingerprint: k.Fingerprint,
	}
}

// ListKeys implements apiv1connect.AuthorityServiceHandler.
func (a *Authority) ListKeys(context.Context, *connect.Request[apiv1.ListKeysRequest]) (*connect.Response[apiv1.ListKeysResponse], error) {
	keys, err := a.keys.Keys()
	if err != nil {
		return nil, err
	}
	resp := &apiv1.ListKeysResponse{Ca: a.keys.Bundle()}
	for _, k := range keys {
		resp.Keys = append(resp.Keys, signingKey(k))
	}
	return connect.NewResponse(resp), nil
}

// RotateKey implements apiv1connect.AuthorityServiceHandler.
func (a *Authority) RotateKey(ctx context.Context, r *connect.Request[apiv1.RotateKeyRequest]) (*connect.Response[apiv1.RotateKeyResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	var lead *time.Duration
	if d := r.Msg.GetLead(); d != nil {
		if !d.IsValid() {
			return nil, fault.Invalid(fault.Violation{Field: "lead", Reason: "is not a duration"})
		}
		l := d.AsDuration()
		lead = &l
	}
	k, err := a.keys.Rotate(ctx, c.Subject.Name, r.Msg.GetUse(), lead)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.RotateKeyResponse{Key: signingKey(k)}), nil
}

// RetireKey implements apiv1connect.AuthorityServiceHandler.
func (a *Authority) RetireKey(ctx context.Context, r *connect.Request[apiv1.RetireKeyRequest]) (*connect.Response[apiv1.RetireKeyResponse], error) {
	c, err := authz.Require(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.keys.Retire(ctx, c.Subject.Name, r.Msg.GetName()); err != nil {
		return nil, err
	}
	return connect.NewResponse(&apiv1.RetireKeyResponse{}), nil
}
