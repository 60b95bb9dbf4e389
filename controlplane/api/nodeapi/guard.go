package nodeapi

import (
	"context"
	"crypto/x509"
	"errors"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/posterngate/postern/pkg/fault"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/postern"
)

// Who may call a method. The zero value is nobody.
type who uint8

const (
	nobody who = iota
	anybody
	bearer  // of a certificate; the service itself says which
	current // a node with its current certificate, and no lock
	members // such a node, or a wall
)

// methods says who may call what. What is not here is nobody's, registered or not.
var methods = map[string]who{
	nodev1.EnrolService_Register_FullMethodName:        anybody,
	nodev1.EnrolService_Renew_FullMethodName:           bearer,
	nodev1.SyncService_Sync_FullMethodName:             members,
	nodev1.GrantService_OpenGrant_FullMethodName:       current,
	nodev1.GrantService_SignIn_FullMethodName:          current,
	nodev1.GrantService_OpenHold_FullMethodName:        current,
	nodev1.GrantService_ConsumeHold_FullMethodName:     current,
	nodev1.GrantService_RouteCancel_FullMethodName:     current,
	nodev1.GrantService_DrawBudget_FullMethodName:      current,
	nodev1.GrantService_Vouch_FullMethodName:           current,
	nodev1.GrantService_PinServer_FullMethodName:       current,
	nodev1.GrantService_BeginBrowser_FullMethodName:    current,
	nodev1.GrantService_FinishBrowser_FullMethodName:   current,
	nodev1.GrantService_EndBrowser_FullMethodName:      current,
	nodev1.CredentialService_Lease_FullMethodName:      members,
	nodev1.CredentialService_RenewLease_FullMethodName: members,
	nodev1.CredentialService_Release_FullMethodName:    members,
	nodev1.RecordService_Ship_FullMethodName:           current,
}

// A caller is a node that was let in.
type caller struct {
	name postern.NodeName
	node *typesv1.Node
}

type callerKey struct{}

// callerOf is the node that calls; the guard has put it there for every method that is
// for nodes.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// admit says whether the call may go on, and as whom.
func (s *Server) admit(ctx context.Context, method string) (context.Context, error) {
	switch methods[method] {
	case anybody:
		return ctx, nil
	case bearer:
		_, _, err := s.identify(ctx)
		return ctx, err
	case current, members:
	default:
		return nil, fault.New(codes.PermissionDenied, "nobody may call %s", method)
	}
	name, cert, err := s.identify(ctx)
	if err != nil {
		return nil, err
	}
	node, err := s.Nodes.Node(ctx, name, serial(cert))
	switch {
	case err != nil:
		return nil, fault.Wrap(err, codes.Unavailable, "the node could not be looked up; try again")
	case node == nil:
		return nil, fault.New(codes.PermissionDenied, "node %q is not enrolled any more", name)
	case node.GetSpec().GetSerial() != serial(cert):
		return nil, fault.New(codes.PermissionDenied, "node %q has a newer certificate than this one", name).WithKind(fault.KindSuperseded)
	}
	if role := node.GetSpec().GetRole(); role != "" && (role != postern.RoleWall || methods[method] != members) {
		return nil, fault.New(codes.PermissionDenied, "%q is a %s, and may not call %s", name, role, method)
	}
	if reason, lock, ok := s.Snapshot().Locked("", "", "", "", name, s.Now()); ok {
		return nil, fault.New(codes.PermissionDenied, "%s (lock %s)", reason, lock).WithKind(postern.CodeKilled.String())
	}
	return context.WithValue(ctx, callerKey{}, caller{name, node}), nil
}

// identify is the node that the connection's certificate names.
func (s *Server) identify(ctx context.Context) (postern.NodeName, *x509.Certificate, error) {
	cert := clientCert(ctx)
	if cert == nil {
		return "", nil, fault.New(codes.Unauthenticated, "this call needs the client certificate of a node")
	}
	name, err := s.Authority.NodeFromCert(cert)
	if err != nil || name == "" {
		return "", nil, fault.Wrap(err, codes.Unauthenticated, "the client certificate is not that of a node")
	}
	return name, cert, nil
}

// clientCert is the certificate that TLS has verified, or nil.
func clientCert(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 || len(info.State.VerifiedChains[0]) == 0 {
		return nil
	}
	return info.State.VerifiedChains[0][0]
}

func serial(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer func() { err = s.answer(ctx, info.FullMethod, recover(), err) }()
	ctx, cancel := context.WithTimeout(ctx, unaryWait)
	defer cancel()
	if ctx, err = s.admit(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() { err = s.answer(ss.Context(), info.FullMethod, recover(), err) }()
	ctx, err := s.admit(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	return handler(srv, admitted{ss, ctx})
}

// admitted is a stream whose context knows the caller.
type admitted struct {
	grpc.ServerStream
	ctx context.Context
}

func (a admitted) Context() context.Context { return a.ctx }

// answer is the error as the node may see it. What went wrong inside is logged here and
// stays here.
func (s *Server) answer(ctx context.Context, method string, panicked any, err error) error {
	if panicked != nil {
		s.Logger.ErrorContext(ctx, "panic in a call of a node", "method", method, "panic", panicked, "stack", string(debug.Stack()))
		return fault.New(codes.Internal, "internal error")
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return fault.Wrap(err, codes.Canceled, "the call was cancelled")
	case errors.Is(err, context.DeadlineExceeded) && fault.CodeOf(err) == codes.Internal:
		return fault.Wrap(err, codes.DeadlineExceeded, "the call took too long")
	}
	f := fault.From(err)
	if f.Code == codes.Internal {
		s.Logger.ErrorContext(ctx, "call of a node failed", "method", method, "error", err)
	}
	return f
}
