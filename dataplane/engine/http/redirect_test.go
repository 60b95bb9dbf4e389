package http

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
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
		"/a?b=c": "http://" + h.addr + "/a?b=c", "https://orders.internal/a": "http://" + h.addr + "/a", "//Orders.Internal/a": "http://" + h.addr + "/a", "https://orders.internal:443/a": "http://" + h.addr + "/a",
		"https://orders.internal:8443/a": "https://orders.internal:8443/a",
		"https://elsewhere.example/a":    "https://elsewhere.example/a", "https://user:word@orders.internal/a": "http://" + h.addr + "/a",
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

// TestLinks: what is linked within the resource is found at the gateway, by clients that take
// no path for a link too.
func TestLinks(t *testing.T) {
	h := newHouse(t)
	h.mux.HandleFunc("/list", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Add("Link", `<https://orders.internal/list?page=2>; rel="next", <https://Orders.Internal:443/list?page=9>; rel=last; title="a <https://orders.internal/> \", b"`)
		w.Header().Add("Link", `</list?page=1>;rel=prev,<https://elsewhere.example/a>;rel=help,<//orders.internal>;rel=up,<https://orders.internal:8443/>;rel=other,<https://orders.internal/.well-known/a>;rel=a,<https://orders.internal//b>;rel=b`)
		w.Header().Add("Link", `<https://orders.internal/unfinished`)
	})
	resp, _ := h.ask(t, "GET /list", "")
	at := "<http://" + h.addr
	want := []string{
		at + `/list?page=2>; rel="next", ` + at + `/list?page=9>; rel=last; title="a <https://orders.internal/> \", b"`,
		`</list?page=1>;rel=prev,<https://elsewhere.example/a>;rel=help,` + at + `/>;rel=up,<https://orders.internal:8443/>;rel=other,` + at + `/.well-known/a>;rel=a,` + at + `//b>;rel=b`,
		`<https://orders.internal/unfinished`,
	}
	if got := resp.Header["Link"]; !slices.Equal(got, want) {
		t.Errorf("links\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestClearsItsOwn: who signs out of a service stays signed in to the others behind the gateway.
func TestClearsItsOwn(t *testing.T) {
	h := newHouse(t)
	h.mux.HandleFunc("/out", func(w http.ResponseWriter, r *http.Request) { w.Header()["Clear-Site-Data"] = r.URL.Query()["clear"] })
	for query, want := range map[string][]string{
		"": nil, `clear="cookies"`: nil, `clear="*"`: {`"cache", "storage"`}, `clear="cookies",+"storage"`: {`"storage"`}, `clear="cache"&clear="cookies"`: {`"cache"`},
	} {
		if resp, _ := h.ask(t, "GET /out?"+strings.ReplaceAll(query, `"`, "%22"), ""); !slices.Equal(resp.Header["Clear-Site-Data"], want) {
			t.Errorf("%s: %q", query, resp.Header["Clear-Site-Data"])
		}
	}
}

func FuzzRelink(f *testing.F) {
	for _, v := range []string{`<a>; rel="b"`, `"<a>`, `"\"<a>", <b>`, `<<a>>`, `<a`, ``} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if got := relink(v, func(s string) string { return s }); got != v {
			t.Errorf("%q became %q", v, got)
		}
	})
}
