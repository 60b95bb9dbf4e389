package http

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/request"
)

// TestOrigins: a service takes the pages that it is asked from through the gateway for its own,
// and those of others for what they are.
func TestOrigins(t *testing.T) {
	h := newHouse(t)
	h.mux.HandleFunc("/form", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host+" "+r.Header.Get("Origin")+" "+r.Header.Get("Referer"))
	})
	tr := secure(t, enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: h.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}}), h.door))
	for _, c := range []struct{ host, origin, referer, want string }{
		{"t--target.example.com", "https://t--target.example.com", "https://t--target.example.com/form?a=b", "https://orders.internal https://orders.internal/form?a=b"},
		{"T--Target.example.com:8443", "https://t--target.example.com:8443", "https://t--target.example.com:8443", "https://orders.internal https://orders.internal"},
		{"t--target.example.com", "https://t--other.example.com", "https://t--target.example.com.evil.example/", "https://t--other.example.com https://t--target.example.com.evil.example/"},
		{"t--target.example.com", "http://t--target.example.com", "https://t--target.example.com:8443/", "http://t--target.example.com https://t--target.example.com:8443/"},
		{"t--target.example.com", "null", "", "null "},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://t--target.example.com/form", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host, req.Header = c.host, http.Header{"Authorization": {"Bearer " + enginetest.Token}, request.TaskHeader: {"t.target"}, "Origin": {c.origin}, "Referer": {c.referer}}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		told, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || string(told) != "orders.internal "+c.want {
			t.Errorf("%+v: %s %q %v", c, resp.Status, told, err)
		}
	}
}
