package http

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/posterngate/postern/test/e2e/house"
)

// shownWorld are resources that look at what the gateway shows them.
const shownWorld = `
apiVersion: postern/v1
kind: Resource
metadata: {name: vouched}
spec: {protocol: http, endpoint: {host: 127.0.0.1, port: ${VOUCHED}, tls: {mode: disable}, http: {identity: true, auth: {scheme: none}}}}
---
apiVersion: postern/v1
kind: Task
metadata: {name: look}
spec:
  purpose: see what a resource is shown
  resources: {names: [vouched]}
  permit: [{methods: [GET], path: "/**"}]
  duration: 1h
---
apiVersion: postern/v1
kind: Binding
metadata: {name: look}
spec: {subjects: [{group: analysts}], tasks: [look]}
`

// plain is a server without TLS, and its port.
func plain(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	return port
}

// look asks for a path of a resource, as alice, through the node.
func (s *service) look(t *testing.T, resource, path string, headers ...string) (int, string) {
	t.Helper()
	req := house.Must(http.NewRequestWithContext(t.Context(), http.MethodGet, "https://look--"+resource+"."+s.Nodes[0].HTTPDomain+path, nil))(t)
	req.Header.Set("Authorization", "Bearer "+s.DataToken(t, "alice"))
	for _, l := range headers {
		name, value, _ := strings.Cut(l, ": ")
		req.Header[name] = append(req.Header[name], value)
	}
	resp := house.Must(s.client(t).Do(req))(t)
	defer resp.Body.Close()
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
	s.House = house.Start(t, house.Options{Bare: true, Extra: strings.NewReplacer("${VOUCHED}", vouched).Replace(shownWorld)})
	s.Serves(t, "vouched")
	ctx := oidc.ClientContext(t.Context(), &http.Client{Transport: &http.Transport{TLSClientConfig: s.TLS()}})
	keys = oidc.NewVerifier(s.Addr, oidc.NewRemoteKeySet(ctx, s.Addr+"/.well-known/jwks.json"), &oidc.Config{ClientID: "vouched", SupportedSigningAlgs: []string{oidc.ES256}})

	t.Run("identity", func(t *testing.T) {
		for _, headers := range [][]string{nil, {"Postern-Identity: eyJhbGciOiJub25lIn0.e30."}, {"postern_identity: x", "Postern_identity: y"}} {
			status, text := s.look(t, "vouched", "/", headers...)
			if status != http.StatusOK || !strings.HasPrefix(text, "alice under look in s-") || !strings.HasSuffix(text, " 1 headers") {
				t.Errorf("%v: %d %s", headers, status, text)
			}
		}
		if _, text := s.look(t, "vouched", "/echo"); !strings.HasPrefix(text, "you sent ***") || strings.Contains(text, "eyJ") {
			t.Errorf("the client got what the resource was told: %s", text)
		}
		if r := s.CLI(t, "ada", "ca", "rotate", "identity", "--lead", "1s"); r.Code != 0 {
			t.Errorf("%+v", r)
		}
	})
}
