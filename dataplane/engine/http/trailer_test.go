package http

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/posterngate/postern/dataplane/engine"
	"github.com/posterngate/postern/dataplane/engine/enginetest"
	"github.com/posterngate/postern/dataplane/request"
	"github.com/posterngate/postern/pkg/postern"
)

// masking is a policy that masks the member email of answers.
func masking(string, any) postern.Decision {
	return postern.Decision{Verdict: postern.VerdictAllow, Effect: postern.EffectRead, Obligations: []postern.Obligation{
		{Content: &postern.ContentRule{Fields: []postern.FieldRule{{Path: "email", Mask: &postern.MaskRule{Method: postern.MaskRedact, Value: "***"}}}}},
	}}
}

// TestTrailers: what stands behind a body says no more than what stands before it may say,
// either way.
func TestTrailers(t *testing.T) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2"} {
		h := newHouse(t)
		if version == "HTTP/1.1" {
			plain := httptest.NewServer(h.mux)
			t.Cleanup(plain.Close)
			h.door.Terms(func(terms *engine.Terms) {
				terms.Port, terms.TLS = plain.Listener.Addr().(*net.TCPAddr).Port, engine.TLSTerms{Mode: "disable"}
			})
		}
		h.mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				t.Error(err)
			}
			w.Header().Set("Trailer", "Content-Digest, Postern-Code, X-Sum")
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"email":"bela@sample.example"}`)
			_ = http.NewResponseController(w).Flush() // or it has a length, behind which nothing can stand
			for name, value := range map[string]string{"Content-Digest": "of all", "Postern-Code": "denied", "X-Sum": fmt.Sprint(r.Trailer), http.TrailerPrefix + "Repr-Digest": "of all"} {
				w.Header().Set(name, value)
			}
		})
		c := newClient(h.addr, "t.target", enginetest.Token)
		t.Cleanup(c.Close)
		ask := func() (string, http.Header) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.base+"/trailers", io.MultiReader(strings.NewReader("hello")))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+enginetest.Token)
			req.Header.Set(request.TaskHeader, "t.target")
			req.Trailer = http.Header{identityHeader: {"root"}, "X-Forwarded-User": {"root"}, "X-Http-Method-Override": {"DELETE"}}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatal(resp.Status, err)
			}
			return string(b), resp.Trailer
		}
		_, all := ask()
		if got := all.Get("X-Sum"); got != "map[]" {
			t.Errorf("%s: the resource was told %s", version, got)
		}
		if all.Get("Content-Digest") != "of all" || all.Get("Repr-Digest") != "of all" || all["Postern-Code"] != nil {
			t.Errorf("%s: %v", version, all)
		}
		h.door.Set(func(p *enginetest.Policy) { p.Decide, p.Version = masking, 1 })
		body, some := ask()
		if body != `{"email":"***"}` || some.Get("X-Sum") != "map[]" || len(some) != 1 {
			t.Errorf("%s: %s with %v", version, body, some)
		}
	}
}
