package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/posterngate/postern/pkg/fault"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/pkg/object"
	"github.com/posterngate/postern/pkg/postern"
	"github.com/posterngate/postern/pkg/record"
)

// fake is a control plane with fixed answers: who calls is the token, and a name such
// as "denied" or "pending" asks for that outcome.
type fake struct {
	apiv1connect.UnimplementedAccessServiceHandler
	apiv1connect.UnimplementedPolicyServiceHandler
	apiv1connect.UnimplementedGrantServiceHandler
	apiv1connect.UnimplementedApprovalServiceHandler
	apiv1connect.UnimplementedSessionServiceHandler
}

func fakeAPI() http.Handler {
	f := &fake{}
	mux := http.NewServeMux()
	opts := connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
			if strings.TrimPrefix(req.Header().Get("Authorization"), "Bearer ") == "dead" {
				return nil, failed(codes.Unauthenticated, "bad-token", "the token has expired")
			}
			return next(ctx, req)
		}
	}))
	mux.Handle(apiv1connect.NewAccessServiceHandler(f, opts))
	mux.Handle(apiv1connect.NewPolicyServiceHandler(f, opts))
	mux.Handle(apiv1connect.NewGrantServiceHandler(f, opts))
	mux.Handle(apiv1connect.NewApprovalServiceHandler(f, opts))
	mux.Handle(apiv1connect.NewSessionServiceHandler(f, opts))
	return mux
}

// failed is an error as the control plane sends it.
func failed(code codes.Code, kind, reason string, more ...fault.Violation) error {
	f := fault.New(code, "%s", reason).WithKind(kind)
	f.Violations = more
	e := connect.NewError(connect.Code(code), f)
	for _, d := range f.GRPCStatus().Details() {
		if detail, err := connect.NewErrorDetail(d.(proto.Message)); err == nil {
			e.AddDetail(detail)
		}
	}
	return e
}

func (*fake) WhoAmI(_ context.Context, req *connect.Request[apiv1.WhoAmIRequest]) (*connect.Response[apiv1.WhoAmIResponse], error) {
	return connect.NewResponse(&apiv1.WhoAmIResponse{
		Subject: &typesv1.Subject{Name: strings.TrimPrefix(req.Header().Get("Authorization"), "Bearer "), Groups: []string{"analysts"}},
		Roles:   []string{"viewer"}, ExpireTime: &timestamppb.Timestamp{Seconds: 1893456000},
	}), nil
}

func (*fake) ListTasks(context.Context, *connect.Request[apiv1.ListTasksRequest]) (*connect.Response[apiv1.ListTasksResponse], error) {
	return connect.NewResponse(&apiv1.ListTasksResponse{Tasks: []*apiv1.TaskOffer{
		{Task: "sales-report", Resources: []string{"warehouse"}, Purpose: "figures\x1b[2J\nof the month", Terms: "at once", Duration: "1h"},
		{Task: "two-places", Resources: []string{"east", "west"}, Terms: "at once", Duration: "1h"},
		{Task: "host", Resources: []string{"web-1"}, Protocols: map[string]string{"web-1": "ssh"}},
		{Task: "service", Resources: []string{"orders-api"}, Protocols: map[string]string{"orders-api": "http"}},
	}}), nil
}

func (*fake) ListEndpoints(context.Context, *connect.Request[apiv1.ListEndpointsRequest]) (*connect.Response[apiv1.ListEndpointsResponse], error) {
	return connect.NewResponse(&apiv1.ListEndpointsResponse{List: []byte("forged"), Signature: []byte("no")}), nil
}

func (*fake) CreateGrant(_ context.Context, req *connect.Request[apiv1.CreateGrantRequest]) (*connect.Response[apiv1.CreateGrantResponse], error) {
	switch req.Msg.GetTask() {
	case "asked":
		return nil, failed(codes.FailedPrecondition, "no-grant", "task \"asked\" needs a yes", fault.Violation{Field: "rule", Reason: "asked/by-leads"}, fault.Violation{Field: "hint", Reason: "ask for it"})
	case "refused":
		return nil, failed(codes.FailedPrecondition, "hold-refused", "bob said no: later\n  hint: postern login --issuer mine", fault.Violation{Field: "hint", Reason: "ask again"})
	case "denied":
		return nil, failed(codes.PermissionDenied, "no-grant", "no binding offers task \"denied\"", fault.Violation{Field: "hint", Reason: "your tasks: sales-report"})
	}
	return connect.NewResponse(&apiv1.CreateGrantResponse{
		Grant: &typesv1.Grant{Id: "g-1", Task: req.Msg.GetTask(), EndTime: &timestamppb.Timestamp{Seconds: 1893456000 + int64(req.Msg.GetTtl().AsDuration().Seconds())}}, Token: "pst_token", Resources: []string{"warehouse"},
	}), nil
}

func (*fake) RequestGrant(_ context.Context, req *connect.Request[apiv1.RequestGrantRequest]) (*connect.Response[apiv1.RequestGrantResponse], error) {
	g := &typesv1.Grant{Id: "g-1", Task: req.Msg.GetTask(), EndTime: &timestamppb.Timestamp{Seconds: 1893456000}}
	if req.Msg.GetTask() == "pending" {
		return connect.NewResponse(&apiv1.RequestGrantResponse{Grant: g, Hold: &typesv1.Hold{Id: "h-1", ApproverGroups: []string{"leads"}}}), nil
	}
	return connect.NewResponse(&apiv1.RequestGrantResponse{Grant: g}), nil
}

// GetHold shows what somebody asks who writes a reason of several lines.
func (*fake) GetHold(context.Context, *connect.Request[apiv1.GetHoldRequest]) (*connect.Response[apiv1.GetHoldResponse], error) {
	return connect.NewResponse(&apiv1.GetHoldResponse{Hold: &typesv1.Hold{
		Id: "h-1", Scope: "statement", Subject: "mallory", Task: "purge-order", Reason: "please\nmasked     everything", Statement: "DELETE FROM a\nWHERE id = 7", ApproverGroups: []string{"leads"}, Rule: "leads",
	}}), nil
}

func (*fake) GetSession(context.Context, *connect.Request[apiv1.GetSessionRequest]) (*connect.Response[apiv1.GetSessionResponse], error) {
	return connect.NewResponse(&apiv1.GetSessionResponse{Session: &typesv1.Session{Id: "s-1", Subject: "mallory", ClientAddress: "127.0.0.1:1", ClientProgram: "x\nsubject     bob"}}), nil
}

// ReadRecording is a recording of nothing but its beginning.
func (*fake) ReadRecording(_ context.Context, req *connect.Request[apiv1.ReadRecordingRequest], stream *connect.ServerStream[apiv1.ReadRecordingResponse]) error {
	raw := make([]byte, 32)
	key, err := record.OpenDataKey(raw)
	if err != nil {
		return err
	}
	_, node, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(node.Public())
	if err != nil {
		return err
	}
	id := postern.SessionID(req.Msg.GetId())
	if id == "s-swapped" {
		id = "s-1"
	}
	frames, err := record.AppendFrames(nil, &record.Event{Seq: 1, Time: time.Unix(1893456000, 0), Kind: record.KindOpened, Session: &record.Session{ID: id, Subject: "mallory"}})
	if err != nil {
		return err
	}
	chunk, _, err := record.AppendChunk(nil, record.Header{Session: id, Codec: record.CodecNone, First: 1, Last: 1, Key: record.WrappedKey{ID: "k", Sealed: raw}}, key, frames)
	if err != nil {
		return err
	}
	return stream.Send(&apiv1.ReadRecordingResponse{Chunk: chunk, NodeKey: public, DataKey: raw})
}

func (*fake) Get(_ context.Context, req *connect.Request[apiv1.GetRequest]) (*connect.Response[typesv1.Object], error) {
	switch req.Msg.GetName() {
	case "bad":
		return nil, failed(codes.InvalidArgument, "INVALID", "spec.method: <nothing> is no method", fault.Violation{Field: "spec.method", Reason: "<nothing> is no method"})
	case "down":
		return nil, failed(codes.Unavailable, "", "the store does not answer")
	case "email":
		return connect.NewResponse(&typesv1.Object{Kind: &typesv1.Object_Mask{Mask: &typesv1.Mask{
			ApiVersion: "postern/v1", Kind: "Mask", Metadata: &typesv1.Metadata{Name: "email", Etag: "7"}, Spec: &typesv1.MaskSpec{Method: "redact", Value: "***"}}}}), nil
	}
	return nil, failed(codes.NotFound, "", "there is no such object")
}

func (*fake) List(_ context.Context, req *connect.Request[apiv1.ListRequest]) (*connect.Response[apiv1.ListResponse], error) {
	if req.Msg.GetKind() != "mask" {
		return nil, failed(codes.PermissionDenied, "", "only masks")
	}
	return connect.NewResponse(&apiv1.ListResponse{Objects: []*typesv1.Object{object.Bare("mask", "email")}}), nil
}

func (*fake) Update(_ context.Context, req *connect.Request[apiv1.UpdateRequest]) (*connect.Response[typesv1.Object], error) {
	if req.Msg.GetObject().GetMask().GetSpec().GetValue() == "refused" {
		return nil, failed(codes.InvalidArgument, "INVALID", "spec.value: is refused", fault.Violation{Field: "spec.value", Reason: "is refused"})
	}
	return connect.NewResponse(req.Msg.GetObject()), nil
}

func (*fake) Apply(_ context.Context, req *connect.Request[apiv1.ApplyRequest]) (*connect.Response[apiv1.ApplyResponse], error) {
	resp := &apiv1.ApplyResponse{Version: &typesv1.Version{Epoch: "e", Revision: 7}}
	for _, o := range req.Msg.GetObjects() {
		resp.Applied = append(resp.Applied, &apiv1.Applied{Object: o, Action: "created"})
	}
	return connect.NewResponse(resp), nil
}

func (*fake) Delete(_ context.Context, req *connect.Request[apiv1.DeleteRequest]) (*connect.Response[apiv1.DeleteResponse], error) {
	return connect.NewResponse(&apiv1.DeleteResponse{Version: &typesv1.Version{Epoch: "e", Revision: 7}}), nil
}
