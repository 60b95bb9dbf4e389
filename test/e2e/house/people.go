package house

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/posterngate/postern/deploy/dev/idp"
	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	"github.com/posterngate/postern/pkg/gen/postern/api/v1/apiv1connect"
)

// token signs somebody in at a client of the provider, the way people do, once.
func (h *House) token(t testing.TB, client, who string) string {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	key := [2]string{client, who}
	if h.tokens[key] == "" {
		h.tokens[key] = Must(idp.SignIn(context.Background(), h.Issuer, client, who))(t)
	}
	return h.tokens[key]
}

// APIToken is a person's token for the API.
func (h *House) APIToken(t testing.TB, who string) string {
	t.Helper()
	return h.token(t, idp.APIClient, who)
}

// DataToken is a person's token for listeners; nightly's is the workload's own.
func (h *House) DataToken(t testing.TB, who string) string {
	t.Helper()
	if who == "nightly" {
		return h.token(t, idp.SharedClient, who) // the audience that its trust rule names
	}
	return h.token(t, idp.DataClient, who)
}

// ClientCert takes a task as a person and makes a client certificate for it, good for so
// long; 0 is as long as the task lasts.
func (h *House) ClientCert(t testing.TB, who, task string, ttl time.Duration) *tls.Certificate {
	t.Helper()
	key := Must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	req := &apiv1.CreateGrantRequest{Task: task, Csr: Must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))(t)}
	if ttl > 0 {
		req.Ttl = durationpb.New(ttl)
	}
	resp := Must(h.API(who).Grants.CreateGrant(t.Context(), Request(req)))(t)
	block, _ := pem.Decode(resp.Msg.GetCertificate())
	if block == nil {
		t.Fatalf("no certificate in %v", resp.Msg)
	}
	return &tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key, Leaf: Must(x509.ParseCertificate(block.Bytes))(t)}
}

// TLS trusts the house's CA.
func (h *House) TLS() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.CA)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

// HTTP reaches the API; it sends no token.
func (h *House) HTTP() *http.Client { return h.http }

// API is the public API as somebody.
type API struct {
	Policy    apiv1connect.PolicyServiceClient
	Access    apiv1connect.AccessServiceClient
	Grants    apiv1connect.GrantServiceClient
	Approvals apiv1connect.ApprovalServiceClient
	Sessions  apiv1connect.SessionServiceClient
	Audit     apiv1connect.AuditServiceClient
	Nodes     apiv1connect.NodeAdminServiceClient
	Locks     apiv1connect.LockServiceClient
}

// API is the API as a person, signed in at the first call; "" sends no token.
func (h *House) API(who string, opts ...connect.ClientOption) *API {
	if who != "" {
		opts = append(opts, connect.WithInterceptors(&bearer{h: h, who: who}))
	}
	return newAPI(h, opts)
}

// APIWith is the API with a token as it is given.
func (h *House) APIWith(token string, opts ...connect.ClientOption) *API {
	return newAPI(h, append(opts, connect.WithInterceptors(&bearer{fixed: token})))
}

func newAPI(h *House, opts []connect.ClientOption) *API {
	return &API{
		Policy:    apiv1connect.NewPolicyServiceClient(h.http, h.Addr, opts...),
		Access:    apiv1connect.NewAccessServiceClient(h.http, h.Addr, opts...),
		Grants:    apiv1connect.NewGrantServiceClient(h.http, h.Addr, opts...),
		Approvals: apiv1connect.NewApprovalServiceClient(h.http, h.Addr, opts...),
		Sessions:  apiv1connect.NewSessionServiceClient(h.http, h.Addr, opts...),
		Audit:     apiv1connect.NewAuditServiceClient(h.http, h.Addr, opts...),
		Nodes:     apiv1connect.NewNodeAdminServiceClient(h.http, h.Addr, opts...),
		Locks:     apiv1connect.NewLockServiceClient(h.http, h.Addr, opts...),
	}
}

// Request wraps a message for a call.
func Request[T any](m *T) *connect.Request[T] { return connect.NewRequest(m) }

type bearer struct {
	h          *House
	who, fixed string
}

func (b *bearer) header(ctx context.Context) (string, error) {
	if b.who == "" {
		return "Bearer " + b.fixed, nil
	}
	b.h.mu.Lock()
	defer b.h.mu.Unlock()
	key := [2]string{idp.APIClient, b.who}
	if b.h.tokens[key] == "" {
		token, err := idp.SignIn(ctx, b.h.Issuer, idp.APIClient, b.who)
		if err != nil {
			return "", err
		}
		b.h.tokens[key] = token
	}
	return "Bearer " + b.h.tokens[key], nil
}

func (b *bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		v, err := b.header(ctx)
		if err != nil {
			return nil, err
		}
		req.Header().Set("Authorization", v)
		return next(ctx, req)
	}
}

func (b *bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		c := next(ctx, spec)
		if v, err := b.header(ctx); err == nil {
			c.RequestHeader().Set("Authorization", v)
		}
		return c
	}
}

func (b *bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}
