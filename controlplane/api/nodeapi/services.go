package nodeapi

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/publish"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/noun"
	"github.com/posterngate/postern/pkg/postern"
)

type syncService struct {
	nodev1.UnimplementedSyncServiceServer
	*Server
}

func (s syncService) Sync(conn nodev1.SyncService_SyncServer) error {
	c := callerOf(conn.Context())
	return s.Hub.Serve(conn.Context(), publish.Node{
		Name: c.name, Labels: c.node.GetMetadata().GetLabels(), Region: c.node.GetSpec().GetRegion(), Serial: c.node.GetSpec().GetSerial(),
	}, conn)
}

type grantService struct {
	nodev1.UnimplementedGrantServiceServer
	*Server
}

// opened refuses what a node asks under a grant that no client has opened there.
func (s *Server) opened(ctx context.Context, grant string) error {
	return s.Grants.Opened(ctx, postern.GrantID(grant), callerOf(ctx).name)
}

func (s grantService) OpenGrant(ctx context.Context, req *nodev1.OpenGrantRequest) (*nodev1.OpenGrantResponse, error) {
	o, err := s.Grants.OpenFor(ctx, req, callerOf(ctx).name)
	if err != nil {
		return nil, err
	}
	resp := &nodev1.OpenGrantResponse{Grant: o.Grant, RecordingKey: s.RecordingKey(), RawKey: s.RawKey, Alternatives: noun.Alternatives(o.Alternatives)}
	if o.Reuse > 0 {
		resp.Reuse = durationpb.New(o.Reuse)
	}
	return resp, nil
}

func (s grantService) SignIn(req *nodev1.SignInRequest, conn grpc.ServerStreamingServer[nodev1.SignInResponse]) error {
	ctx := conn.Context()
	signed, err := s.SignIns.SignIn(ctx, req, callerOf(ctx).name, func(p *nodev1.SignInPrompt) error {
		return conn.Send(&nodev1.SignInResponse{Kind: &nodev1.SignInResponse_Prompt{Prompt: p}})
	})
	if err != nil {
		return err
	}
	return conn.Send(&nodev1.SignInResponse{Kind: &nodev1.SignInResponse_Grant{Grant: &nodev1.OpenGrantResponse{Grant: signed, RecordingKey: s.RecordingKey(), RawKey: s.RawKey}}})
}

// holdGrace is how long a hold is kept for a node whose call broke off: a client that
// gave up and a connection that was lost look the same from here.
const holdGrace = 2 * time.Second

func (s grantService) OpenHold(req *nodev1.OpenHoldRequest, conn grpc.ServerStreamingServer[nodev1.OpenHoldResponse]) error {
	ctx := conn.Context()
	if err := s.opened(ctx, req.GetGrant()); err != nil {
		return err
	}
	hold, err := s.Holds.OpenHold(ctx, callerOf(ctx).name, req)
	if err != nil {
		return err
	}
	following, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(holdGrace, giveUp) })()
	_, err = s.Holds.Follow(following, hold.GetId(), func(h *typesv1.Hold) error {
		if ctx.Err() != nil {
			return nil // nobody listens, but giving up is not an answer either
		}
		err := conn.Send(&nodev1.OpenHoldResponse{Hold: h, Url: s.Holds.URL(h.GetId())})
		if ctx.Err() != nil {
			return nil
		}
		return err
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (s grantService) ConsumeHold(ctx context.Context, req *nodev1.ConsumeHoldRequest) (*nodev1.ConsumeHoldResponse, error) {
	hold, err := s.Holds.Consume(ctx, callerOf(ctx).name, req.GetHold(), req.GetDigest(), req.GetSession())
	if err != nil {
		return nil, err
	}
	return &nodev1.ConsumeHoldResponse{Hold: hold}, nil
}

// RouteCancel tells the nodes and does not say whether one had the session.
func (s grantService) RouteCancel(ctx context.Context, req *nodev1.RouteCancelRequest) (*nodev1.RouteCancelResponse, error) {
	if len(req.GetKey()) > 0 {
		had, err := s.Fleet.Broadcast(ctx, &nodev1.Command{Kind: &nodev1.Command_CancelQuery{CancelQuery: &nodev1.CancelQuery{Key: req.GetKey()}}})
		if had == "" && err != nil {
			return nil, err
		}
	}
	return &nodev1.RouteCancelResponse{}, nil
}

func (s grantService) DrawBudget(ctx context.Context, req *nodev1.DrawBudgetRequest) (*nodev1.DrawBudgetResponse, error) {
	if err := s.opened(ctx, req.GetGrant()); err != nil {
		return nil, err
	}
	return s.Budgets.Draw(ctx, callerOf(ctx).name, req)
}

func (s grantService) Vouch(ctx context.Context, req *nodev1.VouchRequest) (*nodev1.VouchResponse, error) {
	if err := s.opened(ctx, req.GetGrant()); err != nil {
		return nil, err
	}
	return s.Vouchers.Vouch(ctx, callerOf(ctx).name, req)
}

func (s grantService) PinServer(ctx context.Context, req *nodev1.PinServerRequest) (*nodev1.PinServerResponse, error) {
	if err := s.opened(ctx, req.GetGrant()); err != nil {
		return nil, err
	}
	return s.Pins.Pin(ctx, req)
}

func (s grantService) BeginBrowser(ctx context.Context, req *nodev1.BeginBrowserRequest) (*nodev1.BeginBrowserResponse, error) {
	return s.Entrances.Begin(ctx, callerOf(ctx).name, req)
}

func (s grantService) FinishBrowser(ctx context.Context, req *nodev1.FinishBrowserRequest) (*nodev1.FinishBrowserResponse, error) {
	return s.Entrances.Finish(ctx, callerOf(ctx).name, req)
}

func (s grantService) EndBrowser(ctx context.Context, req *nodev1.EndBrowserRequest) (*nodev1.EndBrowserResponse, error) {
	return &nodev1.EndBrowserResponse{}, s.Entrances.End(ctx, req.GetToken())
}

type credentialService struct {
	nodev1.UnimplementedCredentialServiceServer
	*Server
}

func (s credentialService) Lease(ctx context.Context, req *nodev1.LeaseRequest) (*nodev1.LeaseResponse, error) {
	c := callerOf(ctx)
	if req.GetGrant() != "" {
		if err := s.opened(ctx, req.GetGrant()); err != nil {
			return nil, err
		}
	}
	return s.Broker.Lease(ctx, credential.NodeIdentity{Name: c.name, Role: c.node.GetSpec().GetRole(), HPKEKey: c.node.GetSpec().GetHpkeKey()}, req)
}

func (s credentialService) RenewLease(ctx context.Context, req *nodev1.RenewLeaseRequest) (*nodev1.RenewLeaseResponse, error) {
	return s.Broker.Renew(ctx, callerOf(ctx).name, req)
}

func (s credentialService) Release(ctx context.Context, req *nodev1.ReleaseRequest) (*nodev1.ReleaseResponse, error) {
	return s.Broker.Release(ctx, callerOf(ctx).name, req)
}
