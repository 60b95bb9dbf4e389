package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

// A client speaks to the API in its own way. Errors come as a code in gRPC's words, such
// as "aborted", and a text.
type client interface {
	// call calls a method with one answer.
	call(ctx context.Context, method string, req, resp proto.Message) (code, text string)
	// watch opens PolicyService/Watch; next waits for one message.
	watch(t *testing.T, req *apiv1.WatchRequest) (next func() *apiv1.WatchResponse)
}

const prefix = "/postern.api.v1."

// plain posts JSON, as curl does.
type plain struct {
	h     *house.House
	token string
}

func (p plain) post(ctx context.Context, method, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.h.Addr+prefix+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	if p.token != "" {
		req.Header.Set("Authorization", "Bearer "+p.token)
	}
	return p.h.HTTP().Do(req)
}

func (p plain) call(ctx context.Context, method string, req, resp proto.Message) (code, text string) {
	body, err := protojson.Marshal(req)
	if err != nil {
		return "client", err.Error()
	}
	return p.raw(ctx, method, body, resp)
}

// raw posts a body as it is.
func (p plain) raw(ctx context.Context, method string, body []byte, resp proto.Message) (code, text string) {
	r, err := p.post(ctx, method, "application/json", body)
	if err != nil {
		return "client", err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return "client", err.Error()
	}
	if r.StatusCode != http.StatusOK {
		var e struct{ Code, Message string }
		if err := json.Unmarshal(b, &e); err != nil {
			return "client", fmt.Sprintf("%s: %s", r.Status, b)
		}
		return e.Code, e.Message
	}
	if err := protojson.Unmarshal(b, resp); err != nil {
		return "client", err.Error()
	}
	return "", ""
}

func (p plain) watch(t *testing.T, req *apiv1.WatchRequest) func() *apiv1.WatchResponse {
	t.Helper()
	js := house.Must(protojson.Marshal(req))(t)
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(js))), js...)
	r := house.Must(p.post(t.Context(), "PolicyService/Watch", "application/connect+json", frame))(t)
	t.Cleanup(func() { r.Body.Close() })
	return func() *apiv1.WatchResponse {
		t.Helper()
		var head [5]byte
		if _, err := io.ReadFull(r.Body, head[:]); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, binary.BigEndian.Uint32(head[1:]))
		if _, err := io.ReadFull(r.Body, b); err != nil {
			t.Fatal(err)
		}
		if head[0] != 0 {
			t.Fatalf("the stream ended: %s", b)
		}
		var m apiv1.WatchResponse
		if err := protojson.Unmarshal(b, &m); err != nil {
			t.Fatal(err)
		}
		return &m
	}
}

// overConnect is the generated client, for Connect, gRPC and gRPC-Web alike.
type overConnect struct {
	h     *house.House
	token string
	opts  []connect.ClientOption
}

func (c overConnect) call(ctx context.Context, method string, req, resp proto.Message) (code, text string) {
	switch req := req.(type) {
	case *apiv1.CreateRequest:
		return answer[typesv1.Object](resp)(c.h.APIWith(c.token, c.opts...).Policy.Create(ctx, connect.NewRequest(req)))
	case *apiv1.UpdateRequest:
		return answer[typesv1.Object](resp)(c.h.APIWith(c.token, c.opts...).Policy.Update(ctx, connect.NewRequest(req)))
	case *apiv1.GetRequest:
		return answer[typesv1.Object](resp)(c.h.APIWith(c.token, c.opts...).Policy.Get(ctx, connect.NewRequest(req)))
	case *apiv1.DeleteRequest:
		return answer[apiv1.DeleteResponse](resp)(c.h.APIWith(c.token, c.opts...).Policy.Delete(ctx, connect.NewRequest(req)))
	}
	return "client", fmt.Sprintf("%s takes no %T", method, req)
}

// answer puts what a call gave into resp.
func answer[T any, P interface {
	*T
	proto.Message
}](resp proto.Message) func(*connect.Response[T], error) (string, string) {
	return func(r *connect.Response[T], err error) (string, string) {
		if err != nil {
			return connect.CodeOf(err).String(), err.Error()
		}
		proto.Merge(resp, P(r.Msg))
		return "", ""
	}
}

func (c overConnect) watch(t *testing.T, req *apiv1.WatchRequest) func() *apiv1.WatchResponse {
	t.Helper()
	s := house.Must(c.h.APIWith(c.token, c.opts...).Policy.Watch(t.Context(), connect.NewRequest(req)))(t)
	t.Cleanup(func() { _ = s.Close() })
	return func() *apiv1.WatchResponse {
		t.Helper()
		if !s.Receive() {
			t.Fatalf("the stream ended: %v", s.Err())
		}
		return proto.CloneOf(s.Msg())
	}
}

// overGRPC is grpc-go, another implementation than the server's.
type overGRPC struct {
	conn  *grpc.ClientConn
	token string
}

func dialGRPC(t *testing.T, h *house.House, token string) overGRPC {
	t.Helper()
	conn := house.Must(grpc.NewClient(strings.TrimPrefix(h.Addr, "https://"), grpc.WithTransportCredentials(credentials.NewTLS(h.TLS()))))(t)
	t.Cleanup(func() { _ = conn.Close() })
	return overGRPC{conn, token}
}

func (g overGRPC) with(ctx context.Context) context.Context {
	if g.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+g.token)
}

func (g overGRPC) call(ctx context.Context, method string, req, resp proto.Message) (code, text string) {
	if err := g.conn.Invoke(g.with(ctx), prefix+method, req, resp); err != nil {
		return connect.Code(status.Code(err)).String(), status.Convert(err).Message()
	}
	return "", ""
}

func (g overGRPC) watch(t *testing.T, req *apiv1.WatchRequest) func() *apiv1.WatchResponse {
	t.Helper()
	s := house.Must(g.conn.NewStream(g.with(t.Context()), &grpc.StreamDesc{ServerStreams: true}, prefix+"PolicyService/Watch"))(t)
	if err := s.SendMsg(req); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return func() *apiv1.WatchResponse {
		t.Helper()
		var m apiv1.WatchResponse
		if err := s.RecvMsg(&m); err != nil {
			t.Fatal(err)
		}
		return &m
	}
}
