package http

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
)

// TestRedirects: who is sent on within the resource stays at the gateway, and is sent nowhere
// else than the resource has said.
func TestRedirects(t *testing.T) {
	h := newHouse(t)
	h.mux.HandleFunc("/go", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("to"))
		w.WriteHeader(http.StatusFound)
	})
	for to, want := range map[string]string{
		"/a?b=c": "http://" + h.addr + "/a?b=c", "https://orders.internal/a": "http://" + h.addr + "/a", "//Orders.Internal/a": "http://" + h.addr + "/a",
		"https://elsewhere.example/a": "https://elsewhere.example/a", "https://user:word@orders.internal/a": "http://" + h.addr + "/a",
		"https://orders.internal//elsewhere.example/a": "http://" + h.addr + "//elsewhere.example/a", "https://orders.internal": "http://" + h.addr + "/", "https://orders.internal?b": "http://" + h.addr + "/?b",
	} {
		c := newClient(h.addr, "t.target", enginetest.Token)
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
		t.Cleanup(c.Close)
		resp, err := c.request(t.Context(), "GET /go?to="+url.QueryEscape(to), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		at, err := resp.Location()
		if err != nil || at.String() != want {
			t.Errorf("%s leads to %v, %v (%q)", to, at, err, resp.Header.Get("Location"))
		}
	}
}
