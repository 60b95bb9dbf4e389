package http

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
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

// TestDestinations: where WebDAV copies or moves to is a path of the resource, in the form in
// which it was judged, or the request is refused.
func TestDestinations(t *testing.T) {
	h := newHouse(t)
	h.mux.HandleFunc("/dav/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("Destination"))
	})
	tr := secure(t, enginetest.Serve(t, New(Config{TLS: &tls.Config{Certificates: h.TLS.Certificates[:1], MinVersion: tls.VersionTLS12}}), h.door))
	const here = "https://t--target.example.com"
	for _, c := range []struct {
		destinations []string
		want         string // where it went, or why it was refused
	}{
		{[]string{here + "/dav/%62%C3%A9"}, "https://orders.internal/dav/b%C3%A9"},
		{[]string{"HTTPS://T--target.example.com/dav/b c"}, "a character that must be encoded"},
		{[]string{"/dav/b"}, "https://orders.internal/dav/b"},
		{[]string{here + "/dav/../b"}, "a segment of dots"},
		{[]string{here + "/dav/b?x=1"}, "has a query"},
		{[]string{here + "/.postern/session"}, "the gateway's own"},
		{[]string{here + ".evil.example/dav/b"}, "another server"},
		{[]string{"https://orders.internal/dav/b"}, "another server"},
		{[]string{"//orders.internal/dav/b"}, "an empty segment"},
		{[]string{here + "/dav/b", "/dav/c"}, "more than once"},
		{[]string{""}, "cannot be read"},
		{[]string{here}, "https://orders.internal/"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "MOVE", here+"/dav/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + enginetest.Token}, request.TaskHeader: {"t.target"}, "Destination": c.destinations}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		told, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if went := resp.StatusCode == http.StatusOK; err != nil || went != strings.HasPrefix(c.want, "https:") || !strings.Contains(string(told), c.want) {
			t.Errorf("%q: %s %q %v", c.destinations, resp.Status, told, err)
		}
	}
}
