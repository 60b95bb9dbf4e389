package http

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/posterngate/postern/test/e2e/house"
	"github.com/posterngate/postern/test/servers"
)

// shownWorld are resources that look at what the gateway shows them.
const shownWorld = `
apiVersion: postern/v1
kind: Resource
metadata: {name: vouched}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: ${VOUCHED}, tls: {mode: disable}, http: {identity: true, auth: {scheme: none}}}}
---
apiVersion: postern/v1
kind: Secret
metadata: {name: partner}
spec: {data: {username: postern-client, password: ${CLIENT_SECRET}}}
---
apiVersion: postern/v1
kind: Resource
metadata: {name: partner}
spec:
  protocol: http
  endpoint: {host: 127.0.0.1, port: ${PARTNER}, tls: {mode: disable}}
  credential: {oauth: {tokenUrl: "http://127.0.0.1:${TOKENS}/token", revocationUrl: "http://127.0.0.1:${TOKENS}/revoke", secret: partner, scopes: [orders.read], audience: partner-api}}
---
apiVersion: postern/v1
kind: Secret
metadata: {name: bucket}
spec: {data: {username: ${AWS_KEY}, password: ${AWS_SECRET}}}
---
apiVersion: postern/v1
kind: Resource
metadata: {name: bucket}
spec:
  protocol: http
  endpoint: {host: 127.0.0.1, port: ${S3}, tls: {ca: {pem: "${S3_CA}"}}, http: {auth: {scheme: sigv4, region: us-east-1, service: s3}}}
  credential: {sealed: bucket}
---
apiVersion: postern/v1
kind: Secret
metadata: {name: mutual}
spec: {data: {username: gateway, certificate: "${CERT}", privateKey: "${KEY}"}}
---
apiVersion: postern/v1
kind: Resource
metadata: {name: mutual}
spec:
  protocol: http
  endpoint: {host: 127.0.0.1, port: ${MUTUAL}, tls: {ca: {pem: "${MUTUAL_CA}"}}, http: {auth: {scheme: certificate}}}
  credential: {sealed: mutual}
---
apiVersion: postern/v1
kind: Task
metadata: {name: look}
spec:
  purpose: see what a resource is shown
  resources: {names: [vouched, partner, bucket, mutual]}
  permit: [{methods: [GET, PUT], path: "/**", query: [list-type, prefix]}]
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: sip}
spec:
  purpose: a little now and then
  resources: {names: [vouched]}
  permit: [{methods: [GET], path: /}]
  limits: {rate: 2/h}
  duration: 1h
---
apiVersion: postern/v1
kind: Resource
metadata: {name: calls}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: ${CALLS}, tls: {mode: disable}, http: {auth: {scheme: none}}}}
---
apiVersion: postern/v1
kind: Task
metadata: {name: calls}
spec:
  purpose: call all there is
  resources: {names: [calls]}
  permit: [{grpc: ["grpc.testing.TestService/*", "grpc.testing.UnimplementedService/*"]}]
  duration: 1h
---
apiVersion: postern/v1
kind: Task
metadata: {name: one-call}
spec:
  purpose: call one thing
  resources: {names: [calls]}
  permit: [{grpc: [grpc.testing.TestService/UnaryCall]}]
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: look}
spec: {subjects: [{group: analysts}], tasks: [look, sip, calls, one-call]}
---
apiVersion: postern/v1
kind: RoleBinding
metadata: {name: leads-audit}
spec: {role: auditor, subjects: [{group: leads}]}
`

// plain is a server without TLS, and its port.
func plain(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	return port
}

// look asks for a path of a resource, or of TASK--RESOURCE, as alice, through the node; with a
// body it is a PUT.
func (s *service) look(t *testing.T, resource, path, body string, headers ...string) (int, string) {
	t.Helper()
	task := "look"
	if t, r, named := strings.Cut(resource, "--"); named {
		task, resource = t, r
	}
	method := http.MethodGet
	if body != "" {
		method = http.MethodPut
	}
	req := house.Must(http.NewRequestWithContext(t.Context(), method, "https://"+task+"--"+resource+"."+s.Nodes[0].HTTPDomain+path, strings.NewReader(body)))(t)
	req.Header.Set("Authorization", "Bearer "+s.DataToken(t, "alice"))
	for _, l := range headers {
		name, value, _ := strings.Cut(l, ": ")
		req.Header[name] = append(req.Header[name], value)
	}
	resp := house.Must(s.client(t).Do(req))(t)
	defer resp.Body.Close()
	s.last = resp.Header
	return resp.StatusCode, string(house.Must(io.ReadAll(resp.Body))(t))
}

// client reaches the node's listener whatever host is asked for, and follows nothing.
func (s *service) client(t *testing.T) *http.Client {
	cfg := s.TLS()
	tr := &http.Transport{TLSClientConfig: cfg, Dial: func(string, string) (net.Conn, error) { return net.Dial("tcp", s.Nodes[0].HTTP) }} //nolint:staticcheck // one address
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: house.Patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// TestShown: what a resource gets to see of who asks, and of the credential that is lent.
func TestShown(t *testing.T) {
	s := &service{}
	// The keys are fetched from the control plane, as any service would.
	var keys *oidc.IDTokenVerifier
	vouched := plain(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/echo" {
			_, _ = io.WriteString(w, "you sent "+r.Header.Get("Postern-Identity"))
			return
		}
		token, err := keys.Verify(r.Context(), r.Header.Get("Postern-Identity"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		var more struct{ Task, Grant, Sid string }
		_ = token.Claims(&more)
		_, _ = fmt.Fprintf(w, "%s under %s in %s, %d headers", token.Subject, more.Task, more.Sid, len(r.Header["Postern-Identity"])+len(r.Header["Postern_identity"]))
	})
	p := newPartner(t)
	store := servers.ObjectStore(t, servers.S3Options{})
	key, secret := awsKey(t, store.CredentialsFile)
	m := newMutual(t)
	oneLine := func(b []byte) string { return strings.ReplaceAll(string(b), "\n", `\n`) }
	s.House = house.Start(t, house.Options{Bare: true, Extra: strings.NewReplacer(
		"${VOUCHED}", vouched, "${CALLS}", calls(t), "${PARTNER}", p.port, "${TOKENS}", p.tokens, "${CLIENT_SECRET}", p.secret,
		"${S3}", store.Endpoint[strings.LastIndexByte(store.Endpoint, ':')+1:], "${S3_CA}", oneLine(house.Must(os.ReadFile(store.CAFile))(t)), "${AWS_KEY}", key, "${AWS_SECRET}", secret,
		"${MUTUAL}", m.port, "${MUTUAL_CA}", oneLine(m.ca), "${CERT}", oneLine(m.cert), "${KEY}", oneLine(m.key),
	).Replace(shownWorld)})
	s.Serves(t, "vouched", "partner", "bucket", "mutual", "calls")
	ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: &http.Transport{TLSClientConfig: s.TLS()}})
	keys = oidc.NewVerifier(s.Addr, oidc.NewRemoteKeySet(ctx, s.Addr+"/.well-known/jwks.json"), &oidc.Config{ClientID: "vouched", SupportedSigningAlgs: []string{oidc.ES256}})

	t.Run("identity", func(t *testing.T) {
		for _, headers := range [][]string{nil, {"Postern-Identity: eyJhbGciOiJub25lIn0.e30."}, {"postern_identity: x", "Postern_identity: y"}} {
			status, text := s.look(t, "vouched", "/", "", headers...)
			if status != http.StatusOK || !strings.HasPrefix(text, "alice under look in s-") || !strings.HasSuffix(text, " 1 headers") {
				t.Errorf("%v: %d %s", headers, status, text)
			}
		}
		if _, text := s.look(t, "vouched", "/echo", ""); !strings.HasPrefix(text, "you sent ***") || strings.Contains(text, "eyJ") {
			t.Errorf("the client got what the resource was told: %s", text)
		}
		if r := s.CLI(t, "ada", "ca", "rotate", "identity", "--lead", "1s"); r.Code != 0 {
			t.Errorf("%+v", r)
		}
	})
	t.Run("access tokens", func(t *testing.T) {
		// The server gives tokens of seconds; the client goes on, and sees none of them.
		house.Eventually(t, func() string { return "a second token is shown: " + fmt.Sprint(p.seen()) }, func() bool {
			status, text := s.look(t, "partner", "/", "")
			if status != http.StatusOK || !strings.HasPrefix(text, "you showed Bearer ***") || strings.Contains(text, "at-") {
				t.Fatalf("%d %s", status, text)
			}
			return len(p.seen()) > 1
		})
		if status, text := s.look(t, "partner", "/redirect", ""); status != http.StatusServiceUnavailable || strings.Contains(text, "at-") {
			t.Errorf("a redirect with the token: %d %s", status, text)
		}
		house.Eventually(t, func() string { return "what is over is revoked" }, func() bool { return p.ended() > 0 })
		if strings.Contains(s.Log(), p.secret) || strings.Contains(s.Log(), "at-0") {
			t.Error("a secret is in the log")
		}
	})
	t.Run("CVE-2026-46405 a token with an error", func(t *testing.T) {
		for _, path := range []string{"/refuse", "/refuse-aloud"} {
			if status, text := s.look(t, "partner", path, ""); status != http.StatusUnauthorized || strings.Contains(text+fmt.Sprint(s.last), "at-0") {
				t.Errorf("%s: %d %v %s", path, status, s.last, text)
			}
		}
		// Nor where the credential itself cannot be had, once the last one is over.
		p.fail()
		house.Eventually(t, func() string { return "no token is left" }, func() bool {
			status, text := s.look(t, "partner", "/", "")
			if said := text + fmt.Sprint(s.last); strings.Contains(said, "at-0") || strings.Contains(said, p.secret) || status != http.StatusOK && status != http.StatusServiceUnavailable {
				t.Fatalf("%d %s", status, said)
			}
			return status == http.StatusServiceUnavailable
		})
		if log := s.Log(); strings.Contains(log, p.secret) || strings.Contains(log, "at-0") {
			t.Error("a secret is in the log")
		}
	})
	t.Run("signatures", func(t *testing.T) {
		// A real object store looks at them; the body goes by without being kept.
		big := strings.Repeat("0123456789abcdef", 256<<10)
		for path, body := range map[string]string{"/recordings/plain.txt": "hello", "/recordings/a%20b%2Bc.txt": "spaces", "/recordings/big": big} {
			if status, text := s.look(t, "bucket", path, body); status != http.StatusOK {
				t.Errorf("put %s: %d %s", path, status, text)
			}
			if status, text := s.look(t, "bucket", path, ""); status != http.StatusOK || text != body {
				t.Errorf("get %s: %d %.200s", path, status, text)
			}
		}
		// So do SDKs of today, with a checksum behind it.
		chunks := []string{"Content-Encoding: aws-chunked", "X-Amz-Decoded-Content-Length: 5", "X-Amz-Trailer: x-amz-checksum-crc32"}
		if status, text := s.look(t, "bucket", "/recordings/chunks", "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", append(chunks, "X-Amz-Content-Sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER")...); status != http.StatusOK {
			t.Errorf("put in chunks: %d %s", status, text)
		}
		if status, text := s.look(t, "bucket", "/recordings/chunks", ""); status != http.StatusOK || text != "hello" {
			t.Errorf("what was put in chunks: %d %q", status, text)
		}
		if status, text := s.look(t, "bucket", "/recordings?list-type=2&prefix=a%20b", "", "X-Amz-Date: 20200101T000000Z", "X-Amz-Security-Token: x"); status != http.StatusOK || !strings.Contains(text, "a b+c.txt") {
			t.Errorf("list: %d %s", status, text)
		}
	})
	t.Run("rate", func(t *testing.T) {
		for i, want := range []int{200, 200, 429} {
			if status, text := s.look(t, "sip--vouched", "/", ""); status != want || want == 429 && !strings.Contains(text, `task "sip" allows 2 in an hour`) {
				t.Errorf("request %d: %d %s", i+1, status, text)
			}
		}
		if after, err := strconv.Atoi(s.last.Get("Retry-After")); err != nil || after < 60 || after > 1800 {
			t.Errorf("when to come again: %q", s.last.Get("Retry-After"))
		}
	})
	t.Run("gRPC", s.interop)
	t.Run("gRPC that is narrowed", s.narrowed)
	t.Run("client certificate", func(t *testing.T) {
		if status, text := s.look(t, "mutual", "/", ""); status != http.StatusOK || text != "known" {
			t.Errorf("%d %s", status, text)
		}
	})
}
