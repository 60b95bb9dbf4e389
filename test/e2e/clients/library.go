package clients

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
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
	typesv1 "github.com/posterngate/postern/pkg/gen/postern/types/v1"
)

// Plain posts JSON by net/http.
type Plain struct{ API }

// Post posts a body as it is; the caller closes what comes back.
func (p Plain) Post(ctx context.Context, method, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url(method), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	if p.Token != "" {
		req.Header.Set("Authorization", "Bearer "+p.Token)
	}
	return p.HTTP.Do(req)
}

func (p Plain) Call(ctx context.Context, method string, req, resp proto.Message) (code, text string) {
	body, err := protojson.Marshal(req)
	if err != nil {
		return Broken, err.Error()
	}
	return p.Raw(ctx, method, body, resp)
}

// Raw posts a body as it is and reads the answer.
func (p Plain) Raw(ctx context.Context, method string, body []byte, resp proto.Message) (code, text string) {
	r, err := p.Post(ctx, method, "application/json", body)
	if err != nil {
		return Broken, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return Broken, err.Error()
	}
	return fromJSON(r.StatusCode == http.StatusOK, b, resp)
}

// fromJSON reads an answer or an error in Connect's JSON.
func fromJSON(ok bool, b []byte, resp proto.Message) (code, text string) {
	if !ok {
		var e struct{ Code, Message string }
		if err := json.Unmarshal(b, &e); err != nil || e.Code == "" {
			return Broken, fmt.Sprintf("no error of the API (%v): %s", err, b)
		}
		return e.Code, e.Message
	}
	if err := protojson.Unmarshal(b, resp); err != nil {
		return Broken, err.Error()
	}
	return "", ""
}

func (p Plain) Watch(t *testing.T, req *apiv1.WatchRequest) func() *apiv1.WatchResponse {
	t.Helper()
	r, err := p.Post(t.Context(), "PolicyService/Watch", streamed, frame(t, req))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Body.Close() })
	return func() *apiv1.WatchResponse { t.Helper(); return readFrame(t, r.Body) }
}

// streamed is the content type of a stream in JSON; each message is a frame.
const streamed = "application/connect+json"

func frame(t *testing.T, m proto.Message) []byte {
	t.Helper()
	js, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(js))), js...)
}

func readFrame(t *testing.T, r io.Reader) *apiv1.WatchResponse {
	t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(head[1:]))
	if _, err := io.ReadFull(r, b); err != nil {
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

// Connect is the generated client, for Connect, gRPC and gRPC-Web alike.
func Connect(a API, opts ...connect.ClientOption) Client {
	return overConnect{apiv1connect.NewPolicyServiceClient(a.HTTP, a.Addr, opts...), a.Token}
}

type overConnect struct {
	policy apiv1connect.PolicyServiceClient
	token  string
}

func (c overConnect) Call(ctx context.Context, method string, req, resp proto.Message) (code, text string) {
	switch req := req.(type) {
	case *apiv1.CreateRequest:
		return answer[typesv1.Object](resp)(c.policy.Create(ctx, signed(c, req)))
	case *apiv1.UpdateRequest:
		return answer[typesv1.Object](resp)(c.policy.Update(ctx, signed(c, req)))
	case *apiv1.GetRequest:
		return answer[typesv1.Object](resp)(c.policy.Get(ctx, signed(c, req)))
	case *apiv1.DeleteRequest:
		return answer[apiv1.DeleteResponse](resp)(c.policy.Delete(ctx, signed(c, req)))
	}
	return Broken, fmt.Sprintf("%s takes no %T", method, req)
}

func signed[T any](c overConnect, m *T) *connect.Request[T] {
	req := connect.NewRequest(m)
	req.Header().Set("Authorization", "Bearer "+c.token)
	return req
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

func (c overConnect) Watch(t *testing.T, req *apiv1.WatchRequest) func() *apiv1.WatchResponse {
	t.Helper()
	s, err := c.policy.Watch(t.Context(), signed(c, req))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return func() *apiv1.WatchResponse {
		t.Helper()
		if !s.Receive() {
			t.Fatalf("the stream ended: %v", s.Err())
		}
		return proto.CloneOf(s.Msg())
	}
}

// GRPC is grpc-go, another implementation than the server's.
type GRPC struct {
	Conn  *grpc.ClientConn
	token string
}

// DialGRPC makes a client that is closed at the test's end.
func DialGRPC(t *testing.T, a API) GRPC {
	t.Helper()
	conn, err := grpc.NewClient(strings.TrimPrefix(a.Addr, "https://"), grpc.WithTransportCredentials(credentials.NewTLS(a.tls(t))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return GRPC{conn, a.Token}
}

func (g GRPC) with(ctx context.Context) context.Context {
	if g.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+g.token)
}

func (g GRPC) Call(ctx context.Context, method string, req, resp proto.Message) (code, text string) {
	if err := g.Conn.Invoke(g.with(ctx), prefix+method, req, resp); err != nil {
		return connect.Code(status.Code(err)).String(), status.Convert(err).Message()
	}
	return "", ""
}

func (g GRPC) Watch(t *testing.T, req *apiv1.WatchRequest) func() *apiv1.WatchResponse {
	t.Helper()
	s, err := g.Conn.NewStream(g.with(t.Context()), &grpc.StreamDesc{ServerStreams: true}, prefix+"PolicyService/Watch")
	if err == nil {
		err = s.SendMsg(req)
	}
	if err == nil {
		err = s.CloseSend()
	}
	if err != nil {
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
