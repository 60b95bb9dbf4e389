package who

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	apiv1 "github.com/posterngate/postern/pkg/gen/postern/api/v1"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
	"github.com/posterngate/postern/test/e2e/house"
)

// TestStrangers: what somebody without any credential is told, at every method and route.
func TestStrangers(t *testing.T) {
	h := house.Start(t)
	t.Run("API", func(t *testing.T) { sweepAPI(t, h) })
	t.Run("routes", func(t *testing.T) { sweepRoutes(t, h) })
	t.Run("nodes", func(t *testing.T) { sweepNodes(t, h) })
	t.Run("CVE-2023-42442 a recording", func(t *testing.T) { sweepRecording(t, h) })
	t.Run("skew", func(t *testing.T) { skew(t, h) })
	t.Run("asks", func(t *testing.T) { asks(t, h) })
}

// open are the methods that answer without a token. What they need stands in the request.
var open = []string{"/postern.api.v1.AccessService/LoginOptions", "/postern.api.v1.GrantService/CreateGrant"}

func methodsOf(services protoreflect.ServiceDescriptors) (all []string) {
	for i := range services.Len() {
		s := services.Get(i)
		for j := range s.Methods().Len() {
			all = append(all, fmt.Sprintf("/%s/%s", s.FullName(), s.Methods().Get(j).Name()))
		}
	}
	return all
}

func sweepAPI(t *testing.T, h *house.House) {
	all := methodsOf(apiv1.File_postern_api_v1_api_proto.Services())
	if len(all) < 30 {
		t.Fatalf("only %d methods are known", len(all))
	}
	for _, m := range all {
		for kind, body := range map[string]string{"application/json": "{}", "application/proto": "", "application/grpc-web+proto": "\x00\x00\x00\x00\x00", "application/connect+json": "\x00\x00\x00\x00\x02{}"} {
			for _, token := range []string{"", "Bearer x", "Bearer pst_x", "Basic YTpi"} {
				req := house.Must(http.NewRequestWithContext(t.Context(), http.MethodPost, h.Addr+m, strings.NewReader(body)))(t)
				req.Header.Set("Content-Type", kind)
				if token != "" {
					req.Header.Set("Authorization", token)
				}
				resp := house.Must(h.HTTP().Do(req))(t)
				var text bytes.Buffer
				_, err := text.ReadFrom(resp.Body)
				resp.Body.Close()
				if err != nil {
					t.Fatal(err)
				}
				if slices.Contains(open, m) && (token == "" || m == open[0]) {
					continue
				}
				said := text.String() + resp.Header.Get("Grpc-Status") + resp.Header.Get("Grpc-Message")
				refused := resp.StatusCode == http.StatusUnauthorized || strings.Contains(said, "unauthenticated") || strings.Contains(said, "grpc-status: 16") || resp.Header.Get("Grpc-Status") == "16"
				misfit := resp.StatusCode == http.StatusUnsupportedMediaType // unary and streams have their own forms
				if !refused && !misfit {
					t.Errorf("%s as %s with %q: %d %.200s", m, kind, token, resp.StatusCode, said)
				}
			}
		}
	}
	// CreateGrant without anything makes nothing.
	if _, err := h.API("").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: "sales-report"})); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("a grant for nobody: %v", err)
	}
}

func sweepRoutes(t *testing.T, h *house.House) {
	for _, path := range []string{
		"/", "/debug/pprof/", "/metrics", "/readyz", "/approvals/h-1", "/approvals/", "/recordings/", "/v1/policy", "/../etc/passwd", "//", "/%2e%2e/",
		"/postern.node.v1.NodeService/Sync", "/postern.node.v1.CredentialService/LeaseCredential", "/postern.api.v1.PolicyService/Nothing", "/postern.api.v1.PolicyService", "/oauth2/token", "/oauth2/",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
			req := house.Must(http.NewRequestWithContext(t.Context(), method, h.Addr+path, nil))(t)
			resp := house.Must(h.HTTP().Do(req))(t)
			var text bytes.Buffer
			_, _ = text.ReadFrom(resp.Body)
			resp.Body.Close()
			page := strings.HasPrefix(path, "/approvals") // a page to sign in at, which tells nothing yet
			if resp.StatusCode < 400 && !page {
				t.Errorf("%s %s answers %d %.100s", method, path, resp.StatusCode, text.String())
			}
			for _, told := range []string{"alice", "sales-report", "warehouse"} {
				if strings.Contains(text.String(), told) {
					t.Errorf("%s %s tells strangers of %s", method, path, told)
				}
			}
		}
	}
}

// sweepRecording: who knows the name of a session has nothing of its recording without having
// signed in as somebody who may read it, by no method and no route.
func sweepRecording(t *testing.T, h *house.House) {
	const said = "not-for-strangers"
	if r := h.Psql(t, "alice", "sales-report", "SELECT '"+said+"';\n"); r.Code != 0 {
		t.Fatalf("%+v", r)
	}
	id := house.Poll(t, "whose it is reads it", func() (string, bool) {
		sessions := house.Must(h.API("alice").Sessions.ListSessions(t.Context(), house.Request(&apiv1.ListSessionsRequest{})))(t).Msg.GetSessions()
		for _, s := range sessions {
			if strings.Contains(h.CLI(t, "alice", "sessions", "replay", s.GetId()).Out, said) {
				return s.GetId(), true
			}
		}
		return "", false
	})
	grant := house.Must(h.API("alice").Grants.CreateGrant(t.Context(), house.Request(&apiv1.CreateGrantRequest{Task: "sales-report"})))(t).Msg.GetToken()
	proofs := map[string]http.Header{
		"nothing": {}, "nonsense": {"Authorization": {"Bearer x"}}, "a token for listeners": {"Authorization": {"Bearer " + h.DataToken(t, "alice")}},
		"a grant token": {"Authorization": {"Bearer " + grant}}, "a token in a cookie": {"Cookie": {"__Host-postern=" + h.APIToken(t, "alice")}},
		"somebody else's": {"Authorization": {"Bearer " + h.APIToken(t, "carol")}},
	}
	take := func(what, method, target, kind, body string, header http.Header) {
		req := house.Must(http.NewRequestWithContext(t.Context(), method, h.Addr+target, strings.NewReader(body)))(t)
		req.Header = header.Clone()
		req.Header.Set("Content-Type", kind)
		resp := house.Must(h.HTTP().Do(req))(t)
		defer resp.Body.Close()
		var text bytes.Buffer
		_, _ = text.ReadFrom(resp.Body)
		for _, found := range []string{said, "data_key", "dataKey", "sales-report", "warehouse"} {
			if strings.Contains(text.String(), found) {
				t.Errorf("%s %s with %s is answered %s: %.300q", method, target, what, resp.Status, text.String())
			}
		}
		if n := text.Len(); n > 2000 && !strings.HasPrefix(target, "/approvals") {
			t.Errorf("%s %s with %s: %d bytes", method, target, what, n)
		}
	}
	for what, header := range proofs {
		for _, raw := range []string{"", `,"raw":true`, `,"follow":true,"fromIndex":1`} {
			message := `{"id":"` + id + `"` + raw + `}`
			envelope := string([]byte{0, 0, 0, 0, byte(len(message))}) + message
			for kind, body := range map[string]string{"application/connect+json": envelope, "application/grpc+json": envelope, "application/grpc-web+json": envelope, "application/json": message} {
				for _, m := range []string{"ReadRecording", "GetSession"} {
					take(what, http.MethodPost, "/postern.api.v1.SessionService/"+m, kind, body, header)
				}
			}
			for _, m := range []string{"ReadRecording", "GetSession"} {
				take(what, http.MethodGet, "/postern.api.v1.SessionService/"+m+"?connect=v1&encoding=json&message="+url.QueryEscape(message), "", "", header)
			}
		}
		for _, path := range []string{"/recordings/", "/sessions/", "/v1/sessions/", "/blobs/", "/replay/", "/approvals/", "/approvals/../recordings/", "/debug/"} {
			for _, end := range []string{"", "/0", "/00000000", ".tar", "/recording", "?download=1"} {
				take(what, http.MethodGet, path+id+end, "", "", header)
			}
		}
	}
}

func sweepNodes(t *testing.T, h *house.House) {
	conn := house.Must(grpc.NewClient(h.NodesAddr, grpc.WithTransportCredentials(credentials.NewTLS(h.TLS()))))(t)
	defer conn.Close()
	all := methodsOf(nodev1.File_postern_node_v1_node_proto.Services())
	if len(all) < 10 {
		t.Fatalf("only %d methods are known", len(all))
	}
	for _, m := range append(all, "postern.node.v1.NodeService/Sync", "/postern.node.v1.NodeService/Nothing", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo") {
		err := conn.Invoke(t.Context(), m, &emptypb.Empty{}, &emptypb.Empty{})
		switch code := status.Code(err); {
		case code == codes.Unauthenticated || code == codes.PermissionDenied:
		case strings.HasSuffix(m, "/Register") && code == codes.InvalidArgument: // it needs a join token in the request
		case !slices.Contains(all, m) && (code == codes.Unimplemented || code == codes.Internal || code == codes.Unavailable):
		default:
			t.Errorf("%s without a certificate: %v", m, err)
		}
	}
}

// skew: a clock that is a minute off is let pass, and one that is five is named.
func skew(t *testing.T, h *house.House) {
	block, _ := pem.Decode(house.Must(os.ReadFile(filepath.Join(h.Dir, "idp.key")))(t))
	key := house.Must(x509.ParseECPrivateKey(block.Bytes))(t)
	for what, c := range map[string]struct {
		iat, exp time.Duration
		says     string
	}{
		"the issuer is 55 s ahead":    {55 * time.Second, time.Hour, ""},
		"the issuer is 5 min ahead":   {5 * time.Minute, time.Hour, "ahead of the clock here"},
		"the token ended 30 s ago":    {-time.Hour, -30 * time.Second, ""},
		"the token ended 5 min ago":   {-time.Hour, -5 * time.Minute, "expired at"},
		"the token has always ended":  {-time.Hour, -24 * time.Hour, "expired at"},
		"the token begins in an hour": {time.Hour, 2 * time.Hour, "ahead of the clock here; at most 1m0s is let pass"},
	} {
		now := time.Now()
		token := signed(t, h, key, map[string]any{"aud": "postern-data", "iat": now.Add(c.iat).Unix(), "exp": now.Add(c.exp).Unix()})
		r := h.PsqlWith(t, token, "sales-report", "SELECT 40 + 2;\n")
		if c.says == "" && strings.TrimSpace(r.Out) != "42" || c.says != "" && (r.Code == 0 || !strings.Contains(r.Err, c.says)) {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

func signed(t *testing.T, h *house.House, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	sum := sha256.Sum256(house.Must(x509.MarshalPKIXPublicKey(&key.PublicKey))(t))
	signer := house.Must(jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", fmt.Sprintf("%x", sum[:8]))))(t)
	claims["iss"], claims["sub"], claims["groups"] = h.Issuer, "alice", []string{"analysts"}
	return house.Must(jwt.Signed(signer).Claims(claims).Serialize())(t)
}

// asks: a thousand asks of one subject meet a limit that says its name, and nobody else does.
func asks(t *testing.T, h *house.House) {
	h.Apply(t, "ada", "kind: Binding\nmetadata: {name: asked}\nspec: {subjects: [{group: contractors}], tasks: [purge-order], approval: {scope: grant, rule: leads}}")
	carol, refused := h.API("carol"), 0
	house.Eventually(t, func() string { return "the binding is there" }, func() bool {
		_, err := carol.Grants.RequestGrant(t.Context(), house.Request(&apiv1.RequestGrantRequest{Task: "purge-order", Reason: "x"}))
		return err == nil
	})
	for range 1000 {
		_, err := carol.Grants.RequestGrant(t.Context(), house.Request(&apiv1.RequestGrantRequest{Task: "purge-order", Reason: "x"}))
		if connect.CodeOf(err) == connect.CodeResourceExhausted {
			if refused++; !strings.Contains(err.Error(), `limit "ask": carol`) {
				t.Fatalf("the limit does not say its name: %v", err)
			}
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused < 500 {
		t.Errorf("%d of a thousand asks were refused", refused)
	}
	if _, err := h.API("alice").Grants.RequestGrant(t.Context(), house.Request(&apiv1.RequestGrantRequest{Task: "sales-report", Reason: "x"})); err != nil {
		t.Errorf("somebody else: %v", err)
	}
}
