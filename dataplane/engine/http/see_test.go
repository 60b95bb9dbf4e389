package http

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/posterngate/postern/dataplane/engine/enginetest"
)

// TestFormsSaidTwice: an answer that says twice what it is may be read in a way that its masks
// do not see, and is not shown.
func TestFormsSaidTwice(t *testing.T) {
	const said = `{"email":"bela@sample.example"}`
	for name, c := range map[string]struct{ header, first, second string }{
		"another type":    {"Content-Type", "application/json", "text/csv"},
		"no type":         {"Content-Type", "application/json", ""},
		"the same":        {"Content-Type", "application/json", "application/json"},
		"another packing": {"Content-Encoding", "identity", "gzip"},
		"packed, or not":  {"Content-Encoding", "", "gzip"},
	} {
		for _, status := range []int{http.StatusOK, http.StatusNotFound} {
			h := newHouse(t)
			serve := func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header()[c.header] = []string{c.first, c.second}
				w.WriteHeader(status)
				_, _ = io.WriteString(w, said)
			}
			h.mux.HandleFunc("/twice", serve)
			h.mux.HandleFunc("/mcp", serve)
			h.door.Set(func(p *enginetest.Policy) { p.Decide = masking })
			resp, told := h.ask(t, "GET /twice", "")
			if strings.Contains(told, "sample") || strings.Contains(told, "***") {
				t.Errorf("%s: %s %q", name, resp.Status, told)
			}
			if status == http.StatusOK && (resp.StatusCode != http.StatusForbidden || !strings.Contains(told, c.header+" stands twice")) {
				t.Errorf("%s: %s %q", name, resp.Status, told)
			}
			h.door.Set(func(p *enginetest.Policy) { p.Decide, p.Version = messages, 1 })
			if resp, told := h.ask(t, "POST /mcp", aCall, "Content-Type: application/json"); strings.Contains(told, "***") || strings.Contains(told, "sample") {
				t.Errorf("%s: of a server of MCP: %s %q", name, resp.Status, told)
			}
		}
	}
}

// TestPartsAreNotMasked: a part of an answer, by whatever a server takes for the wish for one,
// does not say what its values are.
func TestPartsAreNotMasked(t *testing.T) {
	h := newHouse(t)
	for path, c := range map[string]struct {
		kind, part string
		status     int
	}{
		"/part.json": {"application/json", `"bela@sample.example"`, http.StatusPartialContent},
		"/part.csv":  {"text/csv", "7,bela@sample.example\n", http.StatusPartialContent},
		"/whole":     {"application/json", `"bela@sample.example"`, http.StatusOK},
	} {
		h.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Ms-Range") == "" {
				t.Error("the resource was not asked for a part")
			}
			w.Header().Set("Content-Type", c.kind)
			w.Header().Set("Content-Range", "bytes 10-30/100")
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.part)
		})
		h.door.Set(func(p *enginetest.Policy) { p.Decide = masking })
		resp, told := h.ask(t, "GET "+path, "", "X-Ms-Range: bytes=10-30")
		if resp.StatusCode != http.StatusForbidden || strings.Contains(told, "sample") {
			t.Errorf("%s: %s %q", path, resp.Status, told)
		}
	}
}

// TestConditionsUnderMasks: what is written on a condition is not written without it, and no
// condition tells whether a guess about what is masked is right.
func TestConditionsUnderMasks(t *testing.T) {
	h := newHouse(t)
	h.mux.HandleFunc("/order", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"match":%q,"none":%q}`, r.Header.Get("If-Match"), r.Header.Get("If-None-Match"))
	})
	h.door.Set(func(p *enginetest.Policy) { p.Decide = masking })
	for _, c := range []struct{ text, header, want string }{
		{"PUT /order", "If-None-Match: *", `{"match":"","none":"*"}`},
		{"DELETE /order", "If-Match: *", `{"match":"*","none":""}`},
		{"PUT /order", `If-Match: "7"`, ""},
		{"PATCH /order", `If-None-Match: "7"`, ""},
		{"GET /order", `If-None-Match: "7"`, `{"match":"","none":""}`},
		{"HEAD /order", `If-Match: "7"`, ""},
	} {
		resp, told := h.ask(t, c.text, "", c.header)
		if refused := c.want == "" && !strings.HasPrefix(c.text, "HEAD"); refused != (resp.StatusCode == http.StatusForbidden) || !refused && told != c.want {
			t.Errorf("%s with %s: %s %s", c.text, c.header, resp.Status, told)
		}
	}
}
