package http

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	pkghttp "github.com/posterngate/postern/pkg/http"
	"github.com/posterngate/postern/pkg/postern"
)

// TestFieldsNameNoMethod: a field of a form by which the resource would take another method goes
// on only where the task allows what it may name.
func TestFieldsNameNoMethod(t *testing.T) {
	const form = "application/x-www-form-urlencoded"
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		h := newHouse(t)
		if version == "HTTP/1.1" {
			plain := httptest.NewServer(h.mux)
			t.Cleanup(plain.Close)
			h.door.Terms(func(terms *engine.Terms) {
				terms.Port, terms.TLS = plain.Listener.Addr().(*net.TCPAddr).Port, engine.TLSTerms{Mode: "disable"}
			})
		}
		var got atomic.Int32
		h.mux.HandleFunc("/orders/7", func(w http.ResponseWriter, r *http.Request) {
			if b, err := io.ReadAll(r.Body); err == nil {
				got.Add(1)
				_, _ = w.Write(b)
			}
		})
		allow := func(verdict postern.Verdict, methods ...string) {
			h.door.Set(func(p *enginetest.Policy) {
				p.Version++
				p.Decide = func(_ string, facts any) postern.Decision {
					if !slices.Contains(methods, facts.(*pkghttp.Facts).Method) {
						return postern.Decision{Verdict: postern.VerdictDeny, Reason: "not this method", Rule: "t/permit"}
					}
					return postern.Decision{Verdict: verdict, Effect: postern.EffectWrite, Rule: "t/permit"}
				}
			})
		}
		for _, c := range []struct {
			verdict    postern.Verdict
			methods    []string
			kind, body string
			passes     bool
		}{
			{postern.VerdictAllow, []string{"POST"}, form, "a=1&method=DELETE", true},
			{postern.VerdictAllow, []string{"POST"}, form, "a=1&_method=DELETE", false},
			{postern.VerdictAllow, []string{"POST"}, form, strings.Repeat("a=1&", 50_000) + "_method=DELETE&b=2", false},
			{postern.VerdictAllow, []string{"POST", "PUT", "PATCH"}, form, "_method=PATCH", false},
			{postern.VerdictAllow, []string{"POST", "PUT", "PATCH", "DELETE"}, form, "_method=PATCH", true},
			{postern.VerdictAllow, []string{"POST"}, "application/json", `{"_method":"DELETE"}`, false},
			{postern.VerdictAllow, []string{"PUT"}, form, "_method=DELETE", false},
			{postern.VerdictHold, []string{"POST"}, form, "_method=DELETE", false},
			{postern.VerdictHold, []string{"POST", "PUT", "PATCH", "DELETE"}, form, "_method=DELETE", true},
		} {
			got.Store(0)
			allow(c.verdict, c.methods...)
			resp, said := h.ask(t, "POST /orders/7", c.body, "Content-Type: "+c.kind)
			if passed := resp.StatusCode == http.StatusOK && said == c.body; passed != c.passes || !c.passes && (resp.StatusCode != http.StatusForbidden || got.Load() > 0) {
				t.Errorf("%s: %v of %v: %.100s: %s %.300s", version, c.verdict, c.methods, c.body, resp.Status, said)
			}
		}
	}
}
