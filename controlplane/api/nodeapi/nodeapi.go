// Package nodeapi is the control plane's door for nodes: mutual TLS, who may call what,
// limits and deadlines. Every call but Register is a node's, by the certificate that
// the control plane issued to it; a node that is locked, not enrolled any more, or has
// a newer certificate is refused. It converts, and leaves the answers to the services
// that it is given.
package nodeapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/posterngate/postern/controlplane/credential"
	"github.com/posterngate/postern/controlplane/publish"
	"github.com/posterngate/postern/controlplane/task"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/policy"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/run"
)

const (
	maxMessageBytes = 4 << 20 // from a node
	maxHeaderBytes  = 16 << 10
	maxStreams      = 10_000 // of one connection: every parked hold is one
	unaryWait       = 30 * time.Second
	handshakeWait   = 10 * time.Second
	stopWait        = 5 * time.Second

	// A connection is asked to make place for a new one, so that nodes spread over
	// replicas again, and what still runs on it after the grace is cut.
	connectionAge   = 30 * time.Minute
	connectionGrace = 30 * time.Minute
)

// Authority knows the certificates that the control plane has issued.
type Authority interface {
	// Roots are the CAs of control plane and nodes as they are now.
	Roots() *x509.CertPool
	// NodeFromCert is the node that a client certificate names; it verifies the chain.
	NodeFromCert(c *x509.Certificate) (postern.NodeName, error)
}

// Nodes finds enrolled nodes; publish.Directory is one.
type Nodes interface {
	// Node is the enrolled node, nil where there is none. Serial is that of the
	// caller's certificate: an answer that names another is a fresh one.
	Node(ctx context.Context, name postern.NodeName, serial string) (*typesv1.Node, error)
}

// Hub publishes policy to nodes; *publish.Hub is one.
type Hub interface {
	Serve(ctx context.Context, n publish.Node, conn nodev1.SyncService_SyncServer) error
}

// Fleet reaches the nodes of all replicas; *fleet.Fleet is one.
type Fleet interface {
	Broadcast(ctx context.Context, cmd *nodev1.Command) (postern.NodeName, error)
}

// Grants opens grants; *task.Service is one.
type Grants interface {
	OpenFor(ctx context.Context, req *nodev1.OpenGrantRequest, node postern.NodeName) (task.Opening, error)
	// Opened says why a node may ask nothing under a grant: nobody has opened it there.
	Opened(ctx context.Context, grant postern.GrantID, node postern.NodeName) error
}

// SignIns lets people in who sign in elsewhere; *signin.Service is one.
type SignIns interface {
	SignIn(ctx context.Context, req *nodev1.SignInRequest, node postern.NodeName, show func(*nodev1.SignInPrompt) error) (*typesv1.SignedGrant, error)
}

// Holds parks things for people; *approve.Service is one.
type Holds interface {
	OpenHold(ctx context.Context, node postern.NodeName, req *nodev1.OpenHoldRequest) (*typesv1.Hold, error)
	// Follow tells each how a hold stands until it is settled. Cancelling ctx withdraws
	// the hold unless others follow it.
	Follow(ctx context.Context, id string, each func(*typesv1.Hold) error) (*typesv1.Hold, error)
	Consume(ctx context.Context, node postern.NodeName, id string, digest []byte, session string) (*typesv1.Hold, error)
	URL(id string) string
}

// Broker lends credentials; *credential.Broker is one.
type Broker interface {
	Lease(ctx context.Context, node credential.NodeIdentity, req *nodev1.LeaseRequest) (*nodev1.LeaseResponse, error)
	Renew(ctx context.Context, node postern.NodeName, req *nodev1.RenewLeaseRequest) (*nodev1.RenewLeaseResponse, error)
	Release(ctx context.Context, node postern.NodeName, req *nodev1.ReleaseRequest) (*nodev1.ReleaseResponse, error)
}

// Budgets keeps what grants may use; *budget.Service is one.
type Budgets interface {
	Draw(ctx context.Context, node postern.NodeName, req *nodev1.DrawBudgetRequest) (*nodev1.DrawBudgetResponse, error)
}

// Vouchers sign for resources who asks; *vouch.Service is one.
type Vouchers interface {
	Vouch(ctx context.Context, node postern.NodeName, req *nodev1.VouchRequest) (*nodev1.VouchResponse, error)
}

// Pins keeps what servers of MCP say of themselves; *pin.Service is one.
type Pins interface {
	Pin(ctx context.Context, req *nodev1.PinServerRequest) (*nodev1.PinServerResponse, error)
}

// Entrances let browsers in; *entrance.Service is one.
type Entrances interface {
	Begin(ctx context.Context, node postern.NodeName, req *nodev1.BeginBrowserRequest) (*nodev1.BeginBrowserResponse, error)
	Finish(ctx context.Context, node postern.NodeName, req *nodev1.FinishBrowserRequest) (*nodev1.FinishBrowserResponse, error)
	End(ctx context.Context, token string) error
}

// Records takes records in; *recording.Service is one.
type Records interface {
	Ingest(ctx context.Context, node postern.NodeName, c *nodev1.ShipRequest) (*nodev1.ShipResponse, error)
}

// Services is what stands behind the door; everything but Options, Logger and Now is
// required.
type Services struct {
	// TLS has the server's certificate, whose chain ends with the CA.
	TLS       *tls.Config
	Authority Authority
	Nodes     Nodes
	Snapshot  func() *policy.Snapshot
	Enrol     nodev1.EnrolServiceServer
	Hub       Hub
	Fleet     Fleet
	Grants    Grants
	SignIns   SignIns
	Holds     Holds
	Broker    Broker
	Budgets   Budgets
	Vouchers  Vouchers
	Pins      Pins
	Entrances Entrances
	Records   Records
	// RecordingKey is the public key to which sessions that begin now are sealed.
	RecordingKey func() []byte
	// RawKey is that for what masks hide; empty where there is none.
	RawKey []byte
	// Options are further ones, such as a stats handler for traces.
	Options []grpc.ServerOption
	Logger  *slog.Logger
	Now     func() time.Time
}

// Server serves nodes.
type Server struct {
	Services
	grpc *grpc.Server

	mu      sync.Mutex
	readers *run.Group // of goroutines that end with their streams, while Run runs
}

// New makes a Server.
func New(s Services) *Server {
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	srv := &Server{Services: s}
	config := s.TLS.Clone()
	config.MinVersion = tls.VersionTLS13
	// A certificate that is shown is verified; the guard says who must show one.
	config.ClientAuth = tls.VerifyClientCertIfGiven
	config.NextProtos = []string{"h2"}
	base := config.Clone()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := base.Clone()
		now.ClientCAs = s.Authority.Roots()
		return now, nil
	}
	srv.grpc = grpc.NewServer(append([]grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(config)),
		grpc.ChainUnaryInterceptor(srv.unary),
		grpc.ChainStreamInterceptor(srv.stream),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeWait),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 15 * time.Second, Timeout: 10 * time.Second,
			MaxConnectionAge: connectionAge, MaxConnectionAgeGrace: connectionGrace,
		}),
	}, s.Options...)...)
	nodev1.RegisterEnrolServiceServer(srv.grpc, s.Enrol)
	nodev1.RegisterSyncServiceServer(srv.grpc, syncService{Server: srv})
	nodev1.RegisterGrantServiceServer(srv.grpc, grantService{Server: srv})
	nodev1.RegisterCredentialServiceServer(srv.grpc, credentialService{Server: srv})
	nodev1.RegisterRecordServiceServer(srv.grpc, recordService{Server: srv})
	return srv
}

// Run serves l, which it closes, until ctx is done. It is called once.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	readers := run.New(context.WithoutCancel(ctx))
	s.mu.Lock()
	s.readers = readers
	s.mu.Unlock()

	g := run.New(ctx)
	g.Go("stop", func(ctx context.Context) error {
		<-ctx.Done()
		s.stop()
		return nil
	})
	g.Go("serve", func(context.Context) error {
		if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			return fmt.Errorf("serve nodes: %w", err)
		}
		return nil
	})
	err := g.Wait()

	s.mu.Lock()
	s.readers = nil
	s.mu.Unlock()
	return errors.Join(err, readers.Wait())
}

// stop lets calls finish for a while. Streams of nodes end by themselves only when the
// Hub stops, so the rest is cut.
func (s *Server) stop() {
	cut := time.AfterFunc(stopWait, s.grpc.Stop)
	defer cut.Stop()
	s.grpc.GracefulStop()
}

// read runs fn beside a stream. It may outlive the stream's handler, for a pending
// Recv ends only after that; Run waits for it. It is false while Run does not run.
func (s *Server) read(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers == nil {
		return false
	}
	s.readers.Go("read", func(context.Context) error { fn(); return nil })
	return true
}
