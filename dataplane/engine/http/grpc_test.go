package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/postern"
)

// TestGRPC: every case of the interop client is through the gateway as it is direct, over
// a resource with TLS and one without.
func TestGRPC(t *testing.T) {
	r := newResource(t) // lends its certificate
	pool := x509.NewCertPool()
	pool.AddCert(r.Certificate())
	for _, plain := range []bool{false, true} {
		t.Run(map[bool]string{false: "TLS", true: "plaintext"}[plain], func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var opts []grpc.ServerOption
			if !plain {
				opts = append(opts, grpc.Creds(credentials.NewServerTLSFromCert(&r.TLS.Certificates[0])))
			}
			server := grpc.NewServer(opts...)
			testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
			done := make(chan struct{})
			go func() { defer close(done); _ = server.Serve(ln) }()
			t.Cleanup(func() { server.Stop(); <-done })

			terms := r.terms()
			terms.Port, terms.HTTP.Auth = ln.Addr().(*net.TCPAddr).Port, "none"
			if plain {
				terms.TLS = engine.TLSTerms{Mode: "disable"}
			}
			door := enginetest.NewDoor(t, terms, credential)
			addr := enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: r.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}, Limits: request.Limits{Handshake: 500 * time.Millisecond}}), door)
			conn, err := grpc.NewClient(addr,
				grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS12})),
				grpc.WithPerRPCCredentials(bearer{}), grpc.WithAuthority("example.com"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			client := testgrpc.NewTestServiceClient(conn)
			ctx := t.Context()
			for _, do := range []func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
				interop.DoEmptyUnaryCall, interop.DoLargeUnaryCall, interop.DoClientStreaming, interop.DoServerStreaming, interop.DoPingPong,
				interop.DoEmptyStream, interop.DoTimeoutOnSleepingServer, interop.DoCancelAfterBegin, interop.DoCancelAfterFirstResponse,
				interop.DoCustomMetadata, interop.DoStatusCodeAndMessage, interop.DoSpecialStatusMessage,
			} {
				do(ctx, client)
			}
			silent(t, client)
			interop.DoUnimplementedMethod(ctx, conn)
			interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))

			door.Set(func(p *enginetest.Policy) {
				p.Decide = func(string, any) postern.Decision { return postern.Decision{Rule: "t/permit", Reason: "not today"} }
			})
			_, err = client.EmptyCall(ctx, &testgrpc.Empty{})
			if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "not today") || !strings.Contains(err.Error(), "t/permit") {
				t.Errorf("refused with %v", err)
			}
		})
	}
}

// silent has a stream on which nobody says anything for longer than a body may stand still.
func silent(t *testing.T, client testgrpc.TestServiceClient) {
	t.Helper()
	stream, err := client.FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say := func() {
		t.Helper()
		if err := stream.Send(&testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 3}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	say()
	time.Sleep(1500 * time.Millisecond)
	say()
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

// bearer is who the client says it is.
type bearer struct{}

func (bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + enginetest.Token, "postern-task": "t.target"}, nil
}
func (bearer) RequireTransportSecurity() bool { return true }
