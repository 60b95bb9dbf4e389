package http

import (
	"net/http"
	"sync/atomic"
	"testing"
)

// TestCaches: no cache that others have too keeps an answer, whatever the resource says.
func TestCaches(t *testing.T) {
	h := newHouse(t)
	var says atomic.Pointer[http.Header]
	h.mux.HandleFunc("/cached", func(w http.ResponseWriter, _ *http.Request) {
		for name, values := range *says.Load() {
			w.Header()[name] = values
		}
	})
	for _, c := range []struct{ said, want string }{
		{"", "private"},
		{"public, max-age=600, S-MaxAge=60", "private, max-age=600"},
		{"max-age=600,must-revalidate", "private, max-age=600, must-revalidate"},
		{"Private, max-age=600", "Private, max-age=600"},
		{"no-store", "no-store"},
		{`private="set-cookie, x-a"`, `private, private="set-cookie, x-a"`},
	} {
		said := http.Header{"Surrogate-Control": {"max-age=600"}, "Cdn-Cache-Control": {"public"}, "Cloudflare-Cdn-Cache-Control": {"public"}, "X-Accel-Expires": {"600"}, "Expires": {"0"}}
		if c.said != "" {
			said["Cache-Control"] = []string{c.said}
		}
		says.Store(&said)
		for range 2 { // the second time the head is known
			resp, _ := h.ask(t, "GET /cached", "")
			if got := resp.Header["Cache-Control"]; len(got) != 1 || got[0] != c.want {
				t.Errorf("%q becomes %q", c.said, got)
			}
			for name := range said {
				if has := resp.Header[name] != nil; has != (name == "Expires" || name == "Cache-Control") {
					t.Errorf("%s goes on: %v", name, has)
				}
			}
		}
	}
}
