package http

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	nodev1 "github.com/posterngate/postern/pkg/gen/postern/node/v1"
)

// TestDiscovery: a client with nothing to show is told where people sign in, for the very URL
// that it asked, and never by the resource.
func TestDiscovery(t *testing.T) {
	var issuers atomic.Pointer[[]*nodev1.Issuer]
	issuers.Store(&[]*nodev1.Issuer{{Url: "https://a.example", Scopes: []string{"openid", "groups", "offline_access"}}, {Url: "https://b.example/x", Scopes: []string{"openid"}}})
	h := newHouse(t, func(c *Config) { c.Issuers = func() []*nodev1.Issuer { return *issuers.Load() } })
	var asked atomic.Int64
	h.mux.HandleFunc("/.well-known/", func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	h.mux.HandleFunc("/app", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer resource_metadata="https://elsewhere.example/"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	at := func(method, target string, headers ...string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.addr+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range headers {
			name, value, _ := strings.Cut(line, ": ")
			req.Header.Set(name, value)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	for path, metadata := range map[string]string{"/mcp": metadataPath + "/mcp", "/a%20b/c": metadataPath + "/a%20b/c", "/": metadataPath} {
		resp, _ := at(http.MethodPost, path, "Postern-Task: t.target")
		want := `Bearer realm="postern", error="invalid_token", resource_metadata="http://` + h.addr + metadata + `"`
		if got := resp.Header.Values("WWW-Authenticate"); resp.StatusCode != http.StatusUnauthorized || !slices.Contains(got, want) {
			t.Errorf("%s: %s %q", path, resp.Status, got)
		}
		for _, headers := range [][]string{nil, {"Postern-Task: t.target", "Authorization: Bearer " + enginetest.Token}} {
			resp, text := at(http.MethodGet, metadata, headers...)
			var m struct {
				Resource string
				Servers  []string `json:"authorization_servers"`
				Scopes   []string `json:"scopes_supported"`
			}
			if err := json.Unmarshal([]byte(text), &m); err != nil || resp.StatusCode != http.StatusOK || m.Resource != "http://"+h.addr+strings.TrimPrefix(metadata, metadataPath) ||
				!slices.Equal(m.Servers, []string{"https://a.example", "https://b.example/x"}) || !slices.Equal(m.Scopes, []string{"openid"}) {
				t.Errorf("%s: %s %s", metadata, resp.Status, text)
			}
		}
	}
	if resp, text := at(http.MethodPut, metadataPath+"/mcp", "Postern-Task: t.target", "Authorization: Bearer "+enginetest.Token); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("written: %s %s", resp.Status, text)
	}
	if resp, _ := at(http.MethodGet, "/app", "Postern-Task: t.target", "Authorization: Bearer "+enginetest.Token); resp.StatusCode != http.StatusUnauthorized || resp.Header["Www-Authenticate"] != nil {
		t.Errorf("a challenge of the resource: %s %q", resp.Status, resp.Header["Www-Authenticate"])
	}
	issuers.Store(new([]*nodev1.Issuer))
	if resp, text := at(http.MethodGet, metadataPath+"/mcp"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("nothing is known: %s %s", resp.Status, text)
	}
	if asked.Load() > 0 {
		t.Error("the resource was asked")
	}
}
