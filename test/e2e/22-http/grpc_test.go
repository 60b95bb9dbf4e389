package http

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/posterngate/postern/test/e2e/house"
)

// calls is the interop server, and its port.
func calls(t *testing.T) string {
	t.Helper()
	ln := house.Must(net.Listen("tcp", "127.0.0.1:0"))(t)
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
}

// caller is alice, as a client of gRPC says it.
type caller string

func (c caller) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(c)}, nil
}

func (caller) RequireTransportSecurity() bool { return true }

func (s *service) dial(t *testing.T, task string) *grpc.ClientConn {
	t.Helper()
	conn := house.Must(grpc.NewClient(s.Nodes[0].HTTP,
		grpc.WithTransportCredentials(credentials.NewTLS(s.TLS())), grpc.WithAuthority(task+"--calls."+s.Nodes[0].HTTPDomain), grpc.WithPerRPCCredentials(caller(s.DataToken(t, "alice")))))(t)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// narrowed: a call that goes on ends when its task does not allow it any more, and others
// of the task are let through.
func (s *service) narrowed(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), house.Patience)
	defer cancel()
	client := testgrpc.NewTestServiceClient(s.dial(t, "calls"))
	open := house.Must(client.FullDuplexCall(ctx))(t)
	ask := &testgrpc.StreamingOutputCallRequest{ResponseParameters: []*testgrpc.ResponseParameters{{Size: 1}}}
	house.Must(0, open.Send(ask))(t)
	house.Must(open.Recv())(t)
	s.Apply(t, "ada", `{apiVersion: postern/v1, kind: Task, metadata: {name: calls}, spec: {purpose: call one thing, resources: {names: [calls]}, duration: 1h,
		permit: [{grpc: [grpc.testing.TestService/EmptyCall]}]}}`)
	_, err := open.Recv()
	if ctx.Err() != nil || err == nil {
		t.Errorf("it goes on: %v", err)
	}
	if _, err := client.EmptyCall(ctx, &testgrpc.Empty{}); err != nil {
		t.Errorf("what is still allowed: %v", err)
	}
	if _, err := client.UnaryCall(ctx, &testgrpc.SimpleRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("what is not: %v", err)
	}
}

// interop: every case of the interop client is through a node as it is direct, and a call
// that is refused is found by its name.
func (s *service) interop(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), house.Patience)
	defer cancel()
	conn := s.dial(t, "calls")
	client := testgrpc.NewTestServiceClient(conn)
	for _, do := range []func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
		interop.DoEmptyUnaryCall, interop.DoLargeUnaryCall, interop.DoClientStreaming, interop.DoServerStreaming, interop.DoPingPong,
		interop.DoEmptyStream, interop.DoTimeoutOnSleepingServer, interop.DoCancelAfterBegin, interop.DoCancelAfterFirstResponse,
		interop.DoCustomMetadata, interop.DoStatusCodeAndMessage, interop.DoSpecialStatusMessage,
	} {
		do(ctx, client)
	}
	interop.DoUnimplementedMethod(ctx, conn)
	interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))

	_, err := testgrpc.NewTestServiceClient(s.dial(t, "one-call")).EmptyCall(ctx, &testgrpc.Empty{})
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "one-call/permit") {
		t.Errorf("refused with %v", err)
	}
	found := ""
	house.Eventually(t, func() string { return "the call that was refused is found: " + found }, func() bool {
		found = s.CLI(t, "bob", "audit", "search", "EmptyCall").All()
		return strings.Contains(found, "POST /grpc.testing.TestService/EmptyCall") && strings.Contains(found, "one-call")
	})
}
